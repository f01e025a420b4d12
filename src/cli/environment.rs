//! `KVFS_*`: each flag's twin in the environment.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Command};

use crate::nearest::nearest;

const PREFIX: &str = "KVFS_";
/// Variables that stand for no flag: the API key of `serve`, etcd's password, and those that `watch` sets for its commands, which
/// may start kvfs in turn.
const OTHERS: [&str; 6] =
    ["KVFS_API_KEY", "KVFS_ETCD_PASSWORD_FILE", "KVFS_EVENT", "KVFS_KEY", "KVFS_FILE", "KVFS_REVISION"];
/// Parts of the variables that containers get for a service named kvfs.
const SERVICE: [&str; 3] = ["KVFS_SERVICE_", "KVFS_PORT", "_TCP"];

/// Whether a variable has a value: an empty one is unset.
pub(super) fn is_set(name: &OsStr) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Makes the flags of `command`, and of its subcommands, parse their variables leniently. With a subcommand (`asked_for`) the
/// variables of a mount are ignored.
pub(super) fn adapt(command: Command, asked_for: bool) -> Command {
    let command = command.mut_subcommands(|below| below.mut_args(adapt_arg));
    // The help has one rule for all.
    command.mut_args(|arg| if asked_for { arg.env(Resettable::Reset) } else { adapt_arg(arg).hide_env(true) })
}

fn adapt_arg(arg: Arg) -> Arg {
    let empty =
        arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    let arg = if empty { arg.env(Resettable::Reset) } else { arg };
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    if is_switch { arg.value_parser(BoolishValueParser::new()) } else { arg }
}

/// One line about variables that are nearly settings of kvfs, if there are any.
pub(super) fn unknown(command: &Command) -> Option<String> {
    let arguments = command.get_subcommands().flat_map(Command::get_arguments).chain(command.get_arguments());
    let known: BTreeSet<&str> = arguments.filter_map(|arg| arg.get_env()?.to_str()).chain(OTHERS).collect();
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = set.filter(|name| name.starts_with(PREFIX) && !known.contains(name.as_str()));
    let mut unknown: Vec<String> =
        ours.filter(|name| !SERVICE.iter().any(|part| name.contains(part))).collect();
    unknown.sort();
    // A name that is near to none of them is not meant for kvfs.
    let about = |name: &String| {
        let near = nearest(&name[PREFIX.len()..], known.iter().map(|name| &name[PREFIX.len()..]))?;
        Some(format!("{name} (the nearest is {PREFIX}{near})"))
    };
    let named: Vec<String> = unknown.iter().filter_map(about).collect();
    (!named.is_empty()).then(|| format!("the environment has what is no setting: {}", named.join(", ")))
}
