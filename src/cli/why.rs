//! `kvfs why`: the recent refusals, with the reason and where the text is kept.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::logging::{report, shown};
use crate::mount::mounts::{self, Place};

pub(super) const HELP: &str = "\
Each refusal is told once, with the time, the file, what the program was told, and the reason; the newest comes last. The last \
100 since the mount began are remembered.";

#[derive(Args)]
pub(super) struct Why {
    /// A file, also one that is gone, or a directory; else all that is mounted
    file: Option<PathBuf>,
    /// As a JSON array
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Prints what was refused.
    pub(super) fn show(&self) -> Result<(), Failure> {
        show(self.file.as_deref(), self.json)
    }
}

/// A refusal in the daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Refusal {
    time: String,
    /// The path of the file; in the daemon's answer, below the directory that was asked.
    file: String,
    key: Option<String>,
    errno: Option<String>,
    error: Option<String>,
    reason: String,
    line: Option<usize>,
    column: Option<usize>,
    kept: Option<String>,
    lost: Option<String>,
}

/// Prints the recent refusals on all mounts, or of one file or directory, the newest last.
fn show(file: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let table = |error| Failure::Other(format!("cannot read the mount table: {error}"));
    let places = mounts::ours().map_err(table)?;
    let found = match file {
        Some(file) => of(file, &places)?,
        None => everywhere(&places)?,
    };
    let mut out = io::stdout().lock();
    let printed = if as_json {
        writeln!(out, "{}", serde_json::json!(found))
    } else if found.is_empty() {
        let what = file.map_or_else(String::new, |file| format!(" of {}", shown(&file.to_string_lossy())));
        writeln!(out, "nothing{what} was refused since the mount began")
    } else {
        found.iter().try_for_each(|refusal| print(&mut out, refusal))
    };
    match printed {
        // A reader that has read enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|error| Failure::Other(format!("cannot print what was refused: {error}"))),
    }
}

/// The refusals of all mounts that answer; fails if none does.
fn everywhere(places: &[Place]) -> Result<Vec<Refusal>, Failure> {
    if places.is_empty() {
        return Err(Failure::Mountpoint(
            "nothing of kvfs is mounted, so nobody knows what was refused".into(),
        ));
    }
    let (mut found, mut answers) = (Vec::new(), 0);
    let whole = |of: &Place| places.iter().find(|one| one.connection == of.connection && one.is_whole());
    // A bound part is skipped if its whole mount is visible.
    for place in places.iter().filter(|place| whole(place).is_none_or(|whole| whole == *place)) {
        match ask(&place.path) {
            Ok(refusals) => {
                answers += 1;
                let directory = place.path.is_dir();
                found.extend(refusals.into_iter().map(|refusal| refusal.seen_from(&place.path, directory)));
            }
            Err(why) => report(&unable(&place.path, &why)),
        }
    }
    if answers == 0 {
        return Err(Failure::Other("no mount of kvfs tells what was refused".into()));
    }
    found.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(found)
}

/// The refusals of a file, also of one that is gone, or in a directory.
fn of(file: &Path, places: &[Place]) -> Result<Vec<Refusal>, Failure> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let known = |path: &Path| places.iter().any(|place| path.starts_with(&place.path));
    let resolved = |path: &Path| path.canonicalize().is_ok_and(|path| known(&path));
    let within = absolute.ancestors().skip(1).find(|path| path.exists()).unwrap_or(&absolute);
    if !known(&absolute) && !resolved(&absolute) && !resolved(within) {
        let shown = shown(&file.to_string_lossy());
        return Err(Failure::Mountpoint(format!(
            "{shown} is in no mount of kvfs; `kvfs why` alone tells of all mounts"
        )));
    }
    let refusals = match ask(&absolute) {
        Ok(refusals) => {
            let directory = absolute.is_dir();
            Ok(refusals.into_iter().map(|refusal| refusal.seen_from(&absolute, directory)).collect())
        }
        // A new file whose text was rejected is gone; its directory has the refusal.
        Err(error) if error.kind() == io::ErrorKind::NotFound => ask(within).map(|refusals| {
            let refusals = refusals.into_iter().map(|refusal| refusal.seen_from(within, true));
            let file = absolute.to_string_lossy();
            refusals.filter(|refusal| refusal.file == file).collect()
        }),
        Err(error) => Err(error),
    };
    refusals.map_err(|why| Failure::Mountpoint(unable(file, &why)))
}

fn ask(place: &Path) -> io::Result<Vec<Refusal>> {
    Ok(serde_json::from_slice(&mounts::refusals(place)?)?)
}

fn unable(place: &Path, why: &io::Error) -> String {
    let shown = shown(&place.to_string_lossy());
    let why =
        if why.kind() == io::ErrorKind::TimedOut { "it does not answer".into() } else { why.to_string() };
    format!("{shown} does not tell what was refused: {why}; `kvfs status` tells how its mount is")
}

impl Refusal {
    /// The refusal by its path, if it is in `place`.
    fn seen_from(self, place: &Path, directory: bool) -> Self {
        let file = if directory { place.join(&self.file) } else { place.to_owned() };
        Self { file: file.to_string_lossy().into_owned(), ..self }
    }
}

fn print(out: &mut impl Write, refusal: &Refusal) -> io::Result<()> {
    let Refusal { time, file, errno, error, reason, kept, lost, .. } = refusal;
    let seconds = time.split('.').next().unwrap_or_default().trim_end_matches('Z');
    write!(out, "{}Z  {}", shown(seconds), shown(file))?;
    match (error, errno) {
        (Some(error), Some(errno)) => writeln!(out, ": {} ({})", shown(error), shown(errno))?,
        _ => writeln!(out)?,
    }
    writeln!(out, "  {}", shown(reason))?;
    match (kept, lost) {
        (Some(path), _) => writeln!(out, "  the text is kept in {}", shown(path)),
        (None, Some(why)) => writeln!(out, "  the text could not be kept: {}", shown(why)),
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_reason_and_where_the_text_is() {
        let refusal = Refusal {
            time: "2026-11-29T10:00:00.123Z".into(),
            file: "/mnt/kv/a\u{7}".into(),
            key: None,
            errno: Some("EINVAL".into()),
            error: Some("Invalid argument".into()),
            reason: "not JSON".into(),
            line: Some(1),
            column: Some(2),
            kept: Some("/rejected/1".into()),
            lost: None,
        };
        let mut out = Vec::new();
        print(&mut out, &refusal).unwrap();
        let printed = "2026-11-29T10:00:00Z  /mnt/kv/a\\u{7}: Invalid argument (EINVAL)\n  not JSON\n  the text is kept in /rejected/1\n";
        assert_eq!(String::from_utf8(out).unwrap(), printed);
    }
}
