//! The words of a command line, before its flags are parsed: finds the command, wherever it stands.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;

use crate::nearest::nearest;
use crate::store::Location;

/// The command that needs no name: a mount.
const MOUNT: &str = "mount";
/// Words for the flags that every program has.
const HELP: &str = "help";
const VERSION: &str = "version";

/// Moves the command's name before all flags; refuses a first word that is probably a mistyped command.
pub(super) fn arrange(command: &Command, mut arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let Some(at) = first_word(command, &arguments) else { return Ok(arguments) };
    let word = arguments[at].to_string_lossy().into_owned();
    if command.find_subcommand(&word).is_some() {
        arguments[1..=at].rotate_right(1);
        return Ok(arguments);
    }
    match word.as_str() {
        MOUNT => _ = arguments.remove(at),
        VERSION => arguments[at] = "--version".into(),
        HELP => return help(command, arguments.get(at + 1).map(OsString::as_os_str)),
        // A mistyped option is named first: what follows it may be its value.
        _ if is_mistyped(&word) && knows_options(command, &arguments[..at]) => {
            return Err(mistyped(command, &word));
        }
        _ => {}
    }
    Ok(arguments)
}

/// The index of the first word that is no flag and no flag's value; `None` after `--`.
fn first_word(command: &Command, arguments: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at) {
        let text = argument.to_string_lossy();
        match text.strip_prefix('-') {
            None | Some("") => return Some(at),
            Some("-") => return None,
            Some(flag) => at += 1 + usize::from(wants_value(command, flag)),
        }
    }
    None
}

/// Whether every option in `arguments` belongs to some command.
fn knows_options(command: &Command, arguments: &[OsString]) -> bool {
    let is_known = |name: &str| all(command).any(|arg| arg.get_long() == Some(name));
    let texts = arguments.iter().map(|argument| argument.to_string_lossy());
    texts
        .filter_map(|text| Some(text.strip_prefix("--")?.split('=').next()?.to_owned()))
        .all(|name| is_known(&name))
}

/// The arguments of all commands.
fn all(command: &Command) -> impl Iterator<Item = &clap::Arg> {
    command.get_subcommands().flat_map(Command::get_arguments).chain(command.get_arguments())
}

/// Whether `flag` of any command takes a value.
fn wants_value(command: &Command, flag: &str) -> bool {
    let mut all = all(command);
    match flag.strip_prefix('-') {
        Some(long) => all.any(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values()),
        None => all.any(|arg| arg.get_action().takes_values() && arg.get_short() == flag.chars().next_back()),
    }
}

fn help(command: &Command, about: Option<&OsStr>) -> Result<Vec<OsString>, String> {
    let about = about.map(OsStr::to_string_lossy).filter(|word| ![MOUNT, HELP, VERSION].contains(&&**word));
    let mut arguments: Vec<OsString> = vec!["kvfs".into()];
    if let Some(word) = about {
        if command.find_subcommand(&*word).is_none() {
            let near =
                nearest(&word, commands(command)).map(|near| format!("; the nearest is: kvfs help {near}"));
            let near = near.unwrap_or_else(|| " (kvfs help lists the commands)".into());
            return Err(format!("there is no command {word:?}{near}"));
        }
        arguments.push(word.into_owned().into());
    }
    arguments.push("--help".into());
    Ok(arguments)
}

/// Whether `word` is neither a command nor a store nor a path: a directory that is to be created has a slash in its name.
fn is_mistyped(word: &str) -> bool {
    let absent =
        || Path::new(word).symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    !word.contains('/') && !Location::looks_like(word) && (word.is_empty() || absent())
}

fn mistyped(command: &Command, word: &str) -> String {
    let meant = commands(command).chain(Location::NAMES);
    match nearest(word, meant) {
        Some(near) if Location::NAMES.contains(&near) => {
            format!(
                "{word:?} is no command, store or directory; the nearest is the store {near}, as in: {}",
                Location::example(near)
            )
        }
        Some(near) => format!("{word:?} is no command, store or directory; the nearest is: kvfs {near}"),
        None if word.is_empty() => "the first word is empty; name the directory to mount on".into(),
        None => format!(
            "{word:?} is no command, store or directory; `kvfs help` lists the commands, `kvfs ./{word}` makes the \
             directory and mounts on it"
        ),
    }
}

fn commands(command: &Command) -> impl Iterator<Item = &str> {
    let named = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
    named.chain([HELP, MOUNT, VERSION])
}
