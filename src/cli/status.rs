//! `kvfs status`.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::logging::{shown, shown_json};
use crate::mount::daemon;
use crate::mount::survey::{self, Found, State};

#[derive(Args)]
pub(super) struct Status {
    /// Only this mount, or the one that a part of is bound there
    mountpoint: Option<PathBuf>,
    /// As a JSON array
    #[arg(long)]
    json: bool,
    /// Ask the store too, and say in one line whether all is well: exit code 3 if a mount does not answer or there is
    /// none, 4 if a store does not
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

impl Status {
    /// Prints the status of all kvfs mounts, or of one.
    pub(super) fn show(self) -> Result<(), Failure> {
        let found = find(self.mountpoint.as_deref())?;
        let mut out = std::io::stdout().lock();
        let printed = if self.check {
            writeln!(out, "kvfs: {}", shown(&check(&found)?))
        } else if self.json {
            let all: Value = found.iter().map(document).collect();
            writeln!(out, "{}", shown_json(&all.to_string()))
        } else {
            table(&mut out, &found)
        };
        match printed.and_then(|()| out.flush()) {
            // A reader that has read enough is no failure.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Failure::Other(format!("cannot print the status: {error}")))
            }
            _ => Ok(()),
        }
    }
}

fn find(only: Option<&Path>) -> Result<Vec<Found>, Failure> {
    let unread = |error| Failure::Other(format!("cannot read the mount table: {error}"));
    let Some(only) = only else { return survey::of(|_| true).map_err(unread) };
    let absolute = std::path::absolute(only).unwrap_or_else(|_| only.to_owned());
    // A dead mount cannot be resolved; the mount table has its path.
    let resolved = absolute.canonicalize().ok();
    let found = survey::of(|path| path == absolute || Some(path) == resolved.as_deref()).map_err(unread)?;
    if found.is_empty() {
        let why =
            format!("nothing of kvfs is mounted at {}; `kvfs status` lists what is", absolute.display());
        return Err(Failure::Mountpoint(why));
    }
    Ok(found)
}

/// One line if all mounts and stores answer.
fn check(found: &[Found]) -> Result<String, Failure> {
    for seen in found {
        let shown = seen.place.path.display();
        if let Some(trouble) = seen.state.trouble(&seen.place, seen.daemon) {
            return Err(Failure::Mountpoint(format!("{shown} {trouble}")));
        }
        survey::ask_store(&seen.place.path).map_err(|why| {
            Failure::Store(format!("{shown} answers, but not its store {}: {why}", seen.place.source))
        })?;
    }
    match found {
        [] => Err(Failure::Mountpoint("nothing of kvfs is mounted".into())),
        [seen] => {
            Ok(format!("{} is well, and so is its store {}", seen.place.path.display(), seen.place.source))
        }
        all => Ok(format!("{} mounts are well, and so are their stores", all.len())),
    }
}

/// The status document of a mount, with what this process knows.
fn document(seen: &Found) -> Value {
    let mut document = match &seen.state {
        State::Answers(document) => document.clone(),
        _ => json!({"store": seen.place.source, "pid": seen.daemon}),
    };
    document["mountpoint"] = seen.place.path.to_string_lossy().into();
    let is_down = !document["down"].is_null();
    document["state"] = if is_down { "down" } else { seen.state.name() }.into();
    if let Some(trouble) = seen.state.trouble(&seen.place, seen.daemon) {
        document["error"] = trouble.into();
    }
    let whole = (!seen.place.is_whole()).then_some(&seen.place);
    let bound = whole.into_iter().chain(&seen.others);
    if let (State::Answers(_), Some(own), true) = (&seen.state, seen.daemon, document["replaced"].is_null()) {
        document["still_serve"] = daemon::replaced(&seen.place.path, own).into();
    }
    document["bound"] = bound
        .map(|place| json!({"path": place.path.to_string_lossy(), "of": place.root.to_string_lossy()}))
        .collect();
    document
}

/// The fields that have lines of their own.
const APART: [&str; 15] = [
    "mountpoint",
    "state",
    "error",
    "down",
    "busy",
    "untold_s",
    "answered_s",
    "kept_s",
    "rejected",
    "rejected_in",
    "rejected_note",
    "lost",
    "bound",
    "replaced",
    "still_serve",
];

fn table(out: &mut impl Write, found: &[Found]) -> std::io::Result<()> {
    if found.is_empty() {
        return writeln!(out, "nothing of kvfs is mounted");
    }
    for mount in found.iter().map(document) {
        writeln!(out, "{}", shown(mount["mountpoint"].as_str().unwrap_or_default()))?;
        line(out, "state", &state(&mount))?;
        for (name, value) in
            mount.as_object().into_iter().flatten().filter(|(name, _)| !APART.contains(&name.as_str()))
        {
            match value {
                Value::Null => {}
                Value::Object(counts) => {
                    let counts: Vec<String> =
                        counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
                    line(out, name, &counts.join(", "))?;
                }
                Value::String(text) if name == "last_error" => {
                    line(out, name, &format!("{text}; more of it: kvfs why"))?;
                }
                Value::String(text) => line(out, name, text)?,
                other => line(out, name, &other.to_string())?,
            }
        }
        if let Some(note) = mount["rejected_note"].as_str() {
            line(out, "note", note)?;
        }
        if mount["rejected"].as_u64().is_some_and(|count| count > 0) {
            let kept = mount["rejected_in"].as_str().unwrap_or_default();
            line(out, "rejected", &format!("texts {}, kept in {kept}", mount["rejected"]))?;
        }
        let lost = &mount["lost"];
        if !lost.is_null() {
            let why = lost["why"].as_str().unwrap_or_default();
            line(out, "lost", &format!("of these {}, which could not be kept: {why}", lost["count"]))?;
        }
        if !mount["last_error"].is_null() {
            line(out, "refusals", "kvfs why tells the last ones, each with its reason")?;
        }
        for id in mount["still_serve"].as_array().into_iter().flatten() {
            line(out, "replaced", &format!("process {id} still serves the files that were open before"))?;
        }
        for place in mount["bound"].as_array().into_iter().flatten() {
            let text = |name: &str| place[name].as_str().unwrap_or_default();
            line(out, "bound", &format!("{} of it at {}", text("of"), text("path")))?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, name: &str, text: &str) -> std::io::Result<()> {
    writeln!(out, "  {name:<11} {}", shown(text))
}

/// The state of the mount in words.
fn state(mount: &Value) -> String {
    if let Some(error) = mount["error"].as_str() {
        return error.to_owned();
    }
    if let Some(files) = mount["replaced"]["open_files"].as_u64() {
        return format!("replaced by another mount; serves {files} open files until they are closed");
    }
    let down = &mount["down"];
    if !down.is_null() {
        let why = down["why"].as_str().unwrap_or_default();
        // While the feed worked, the cache was right until it broke.
        let age = mount["untold_s"].as_u64().or(down["answered_s"].as_u64());
        let age = match (mount["kept_s"].as_u64(), age) {
            (Some(age), _) => format!("it has not answered yet; what is shown was kept, and is {age} s old"),
            (None, Some(age)) => format!("what is shown is {age} s old"),
            (None, None) => "it has not answered yet".into(),
        };
        return format!("down for {} s: {why}; {age}", down["since_s"]);
    }
    let busy = &mount["busy"];
    if !busy.is_null() {
        let why = busy["why"].as_str().unwrap_or_default();
        return format!(
            "well, but changes have been refused for {} s, the last one {} s ago: {why}",
            busy["since_s"], busy["tried_s"]
        );
    }
    if let Some(age) = mount["untold_s"].as_u64() {
        return format!("well, but its store has told of no changes for {age} s; it is asked instead");
    }
    // A store that tells of changes is known to answer.
    match mount["answered_s"].as_u64().filter(|_| mount["freshness"] == "bounded") {
        Some(age) => {
            format!("well; its store answered last {age} s ago, and is asked by: kvfs status --check")
        }
        None => "well".into(),
    }
}
