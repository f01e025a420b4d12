//! Errors of the parser in one line: the word, the fact, the next step.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use super::environment;
use crate::nearest::nearest;

/// The message about an unknown option.
pub(super) fn no_such_option(shown: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no option {shown}; the nearest is {near}"),
        None => format!("there is no option {shown} (kvfs --help lists them)"),
    }
}

/// The message for `error` about the `arguments` of `command`.
pub(super) fn explain(error: &Error, command: &Command, arguments: &[OsString]) -> String {
    let named = arguments.get(1).and_then(|name| command.find_subcommand(name));
    let refusal = Refusal { error, top: command, command: named.unwrap_or(command), arguments };
    match error.kind() {
        ErrorKind::UnknownArgument => refusal.unknown(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => refusal.value(),
        ErrorKind::ArgumentConflict => {
            let (one, other) =
                (refusal.called(ContextKind::InvalidArg), refusal.called(ContextKind::PriorArg));
            format!("{one} and {other} exclude each other; leave one away")
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => {
            format!("{} is missing; as in: {}", refusal.text(ContextKind::InvalidArg), refusal.usage())
        }
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues => {
            if !refusal.text(ContextKind::InvalidArg).starts_with('-') {
                return format!("that is a word too many; as in: {}", refusal.usage());
            }
            format!("{} takes no value; leave it away", refusal.called(ContextKind::InvalidArg))
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            format!("{} (see kvfs --help)", line.trim_start_matches("error: "))
        }
    }
}

struct Refusal<'a> {
    error: &'a Error,
    top: &'a Command,
    /// The one that was asked for.
    command: &'a Command,
    arguments: &'a [OsString],
}

impl Refusal<'_> {
    fn text(&self, kind: ContextKind) -> String {
        match self.error.get(kind) {
            Some(ContextValue::Strings(several)) => several.join(", "),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    /// A flag without the placeholder of its value; or its variable, if that was refused.
    fn called(&self, kind: ContextKind) -> String {
        let text = self.text(kind);
        let flag = text.split([' ', '=', '[']).next().unwrap_or_default();
        self.variable(flag).unwrap_or_else(|| flag.to_owned())
    }

    /// The flag or word itself, as the parser knows it.
    fn argument(&self) -> Option<&Arg> {
        let text = self.text(ContextKind::InvalidArg);
        let flag = text.split([' ', '=', '[']).next().unwrap_or_default();
        self.command.get_arguments().find(|arg| Some(flag.trim_start_matches('-')) == arg.get_long())
    }

    /// The variable that has set `flag`, if no argument has.
    fn variable(&self, flag: &str) -> Option<String> {
        let long = flag.strip_prefix("--")?;
        let arg = self.command.get_arguments().find(|arg| arg.get_long() == Some(long))?;
        let short = arg.get_short().map(|short| format!("-{short}"));
        let given = self.arguments.iter().map(|given| given.to_string_lossy()).any(|given| {
            given.split('=').next() == Some(flag)
                || short.as_ref().is_some_and(|short| given.starts_with(short))
        });
        let name = arg.get_env().filter(|name| !given && environment::is_set(name))?;
        Some(name.to_string_lossy().into_owned())
    }

    fn usage(&self) -> String {
        let usage = self.command.clone().render_usage().to_string();
        let line = usage.trim_start_matches("Usage: ").lines().next().unwrap_or_default().to_owned();
        if line.starts_with("kvfs ") { line } else { format!("kvfs {line}") }
    }

    fn unknown(&self) -> String {
        let text = self.text(ContextKind::InvalidArg);
        let flag = text.split('=').next().unwrap_or_default();
        if !flag.starts_with('-') {
            return format!("{text:?} is a word too many; as in: {}", self.usage());
        }
        let known = flags(self.command);
        if !known.iter().any(|known| known == flag) {
            if flags(self.top).iter().any(|known| known == flag) {
                return format!("{flag} is an option of a mount, not of {}; leave it away", self.name());
            }
            let others = self.top.get_subcommands().filter(|other| !other.is_hide_set());
            let mut others = others.filter(|other| other.get_name() != self.command.get_name());
            if let Some(other) = others.find(|other| flags(other).iter().any(|known| known == flag)) {
                return format!("{flag} is an option of `kvfs {}` only; leave it away", other.get_name());
            }
        }
        // A long option with one dash is taken for many short ones.
        let whole = self.arguments.iter().map(|given| given.to_string_lossy()).find(|given| {
            flag.len() == 2 && given.len() > 2 && given.starts_with('-') && !given.starts_with("--")
        });
        let whole = whole.as_deref().and_then(|given| given.split('=').next()).unwrap_or(flag);
        let known: Vec<&str> = known.iter().map(String::as_str).filter(|known| known.len() > 2).collect();
        no_such_option(whole, &format!("--{}", whole.trim_start_matches('-')), &known)
    }

    fn name(&self) -> String {
        format!("`kvfs {}`", self.command.get_name())
    }

    fn value(&self) -> String {
        let (flag, value) = (self.called(ContextKind::InvalidArg), self.text(ContextKind::InvalidValue));
        if value.is_empty() && self.error.kind() == ErrorKind::InvalidValue {
            let example = self.argument().and_then(Arg::get_value_names).and_then(|names| names.first());
            return format!("{flag} needs a value: {flag} {}", example.map_or("VALUE", |name| name.as_str()));
        }
        let shown = if flag.starts_with('-') { format!("{flag} {value}") } else { format!("{flag}={value}") };
        if self.argument().is_some_and(|arg| !arg.get_action().takes_values()) {
            return format!("{shown}: say 1, yes, true or on; or 0, no, false or off");
        }
        match (self.error.get(ContextKind::ValidValue), self.error.source()) {
            (Some(ContextValue::Strings(valid)), _) => format!("{shown}: it is one of {}", valid.join(", ")),
            (_, Some(why)) => format!("{shown}: {why}"),
            _ => format!("{shown}: there is no such value (see kvfs --help)"),
        }
    }
}

/// All flags of a command, with their dashes.
fn flags(command: &Command) -> Vec<String> {
    let of = |arg: &Arg| {
        let long = arg.get_long().map(|long| format!("--{long}"));
        long.into_iter().chain(arg.get_short().map(|short| format!("-{short}")))
    };
    command.get_arguments().filter(|arg| !arg.is_positional()).flat_map(of).collect()
}
