//! `kvfs status`.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::mount::mounts;

/// Prints the status of all kvfs mounts, or of one.
pub(super) fn show(only: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let only = only.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    // A dead mount cannot be resolved, but is listed under its own name.
    let resolved = only.as_ref().and_then(|path| path.canonicalize().ok());
    let all =
        mounts::ours().map_err(|error| Failure::Other(format!("cannot read the mount table: {error}")))?;
    let wanted =
        |path: &Path| only.as_deref().is_none_or(|only| path == only || resolved.as_deref() == Some(path));
    let found: Vec<Value> =
        all.iter().map(|place| &place.path).filter(|path| wanted(path)).map(|path| of(path)).collect();
    if let (Some(only), true) = (&only, found.is_empty()) {
        return Err(Failure::Mountpoint(format!("nothing of kvfs is mounted at {}", only.display())));
    }
    let mut out = std::io::stdout().lock();
    let printed = if as_json { writeln!(out, "{}", Value::from(found)) } else { table(&mut out, &found) };
    match printed.and_then(|()| out.flush()) {
        // A reader that has read enough is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot print the status: {error}")))
        }
        _ => Ok(()),
    }
}

fn of(path: &Path) -> Value {
    let document = mounts::ask(path);
    match document.map(|bytes| serde_json::from_slice::<Value>(&bytes)) {
        Ok(Ok(mut document)) => {
            document["mountpoint"] = path.to_string_lossy().into();
            document
        }
        Ok(Err(error)) => json!({"mountpoint": path.to_string_lossy(), "error": error.to_string()}),
        Err(error) => json!({"mountpoint": path.to_string_lossy(), "error": error.to_string()}),
    }
}

fn table(out: &mut impl Write, found: &[Value]) -> std::io::Result<()> {
    if found.is_empty() {
        return writeln!(out, "nothing of kvfs is mounted");
    }
    for mount in found {
        writeln!(out, "{}", mount["mountpoint"].as_str().unwrap_or_default())?;
        if let Some(error) = mount["error"].as_str() {
            writeln!(out, "  dead: {error} (mount it again, or umount it)")?;
            continue;
        }
        for (name, value) in mount.as_object().into_iter().flatten().filter(|(name, _)| *name != "mountpoint")
        {
            match value {
                Value::Null => {}
                Value::Object(counts) => {
                    let counts: Vec<String> =
                        counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
                    writeln!(out, "  {name:<11} {}", counts.join(", "))?;
                }
                Value::String(text) => writeln!(out, "  {name:<11} {text}")?,
                other => writeln!(out, "  {name:<11} {other}")?,
            }
        }
    }
    Ok(())
}
