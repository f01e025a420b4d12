//! What readers and writers count.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What may be counted without being a fault: how much was done; what other writers or a removal explain; and that stat(2) saw the
/// size of a text that was not published, which no rule of a program's reading depends on.
const NO_FAULT: [&str; 6] = ["reads", "new", "writes", "absent", "lost to another", "size of a draft"];

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    counts: BTreeMap<String, u64>,
    /// The first fault, in detail.
    example: Option<String>,
}

impl Tally {
    pub(super) fn add(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn fault(&mut self, what: &str, example: impl FnOnce() -> String) {
        self.add(what);
        self.example.get_or_insert_with(|| format!("{what}: {}", example()));
    }

    /// An answer of `call` that no local disk would give.
    pub(super) fn error(&mut self, call: &str, error: &io::Error) {
        self.fault(&format!("{call}: {}", short(error)), || error.to_string());
    }

    pub(super) fn sum(tallies: &[(String, Self)]) -> Self {
        let mut sum = Self::default();
        for (who, tally) in tallies {
            for (what, count) in &tally.counts {
                *sum.counts.entry(what.clone()).or_default() += count;
            }
            if let (None, Some(example)) = (&sum.example, &tally.example) {
                sum.example = Some(format!("{who}: {example}"));
            }
        }
        sum
    }

    pub(super) fn has_fault(&self) -> bool {
        self.faults().next().is_some()
    }

    fn faults(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.counts.iter().filter(|(what, _)| !NO_FAULT.contains(&what.as_str()))
    }
}

/// What is no fault first.
impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in NO_FAULT {
            if let Some(count) = self.counts.get(what) {
                write!(to, "  {what} {count}")?;
            }
        }
        let faults: Vec<String> = self.faults().map(|(what, count)| format!("{what} {count}")).collect();
        if faults.is_empty() {
            return Ok(());
        }
        write!(to, "  WRONG: {}", faults.join(", "))?;
        self.example.as_ref().map_or(Ok(()), |example| write!(to, " ({example})"))
    }
}

fn short(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ESTALE) => "ESTALE".to_owned(),
        Some(libc::ENOENT) => "ENOENT".to_owned(),
        Some(libc::EINVAL) => "EINVAL".to_owned(),
        Some(libc::EFAULT) => "EFAULT".to_owned(),
        _ => error.to_string(),
    }
}
