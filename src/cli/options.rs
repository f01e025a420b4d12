//! `-o a,b=c`, as mount(8) and fstab pass options: each becomes the flag of the same name.

use std::ffi::OsString;

use clap::CommandFactory;

use super::refusal;

/// Options for mount(8) itself, or that hold anyway.
const IGNORED: [&str; 20] = [
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "_netdev",
    "nofail",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "async",
    "relatime",
    "noatime",
    "atime",
    "default_permissions",
];

/// Replaces every `-o LIST` in `arguments` by flags of `C`.
pub(super) fn expand<C: CommandFactory>(
    arguments: impl Iterator<Item = OsString>,
) -> Result<Vec<OsString>, String> {
    let command = C::command();
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let mut expanded = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        let list = match text.strip_prefix("-o") {
            Some("") => arguments.next().ok_or("-o needs a list of options, as in -o ro,allow_other")?,
            Some(list) => list.into(),
            None => {
                expanded.push(argument);
                continue;
            }
        };
        let list = list.into_string().map_err(|_| "-o: the options must be UTF-8".to_owned())?;
        for option in list.split(',').filter(|option| !option.is_empty()) {
            expanded.extend(flag(option, &known)?.map(OsString::from));
        }
    }
    Ok(expanded)
}

fn flag(option: &str, known: &[&str]) -> Result<Option<String>, String> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    if IGNORED.contains(&name) || name.starts_with("x-") || name == "comment" {
        return Ok(None);
    }
    let name = if name == "ro" { "read-only".to_owned() } else { name.replace('_', "-") };
    if !known.contains(&name.as_str()) {
        let known: Vec<String> = known.iter().map(|name| name.replace('-', "_")).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        return Err(refusal::no_such_option(&format!("-o {option}"), &name.replace('-', "_"), &known));
    }
    Ok(Some(value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[arg(long)]
        read_only: bool,
        #[arg(long)]
        max_age: Option<String>,
    }

    fn expanded(arguments: &[&str]) -> Result<Vec<String>, String> {
        let all = expand::<Flags>(arguments.iter().map(OsString::from))?;
        Ok(all.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn option_lists_become_flags() {
        let all =
            expanded(&["kvfs", "none", "/mnt", "-o", "rw,_netdev,max_age=5s,x-systemd.automount", "-oro"])
                .unwrap();
        assert_eq!(all, ["kvfs", "none", "/mnt", "--max-age=5s", "--read-only"]);
        let flags = Flags::parse_from(["kvfs", "--max-age=5s", "--read-only"]);
        assert!(flags.read_only && flags.max_age.is_some());
    }

    #[test]
    fn unknown_options_are_named() {
        assert!(expanded(&["kvfs", "-o", "ro,frobnicate=1"]).unwrap_err().contains("frobnicate=1"));
        assert!(expanded(&["kvfs", "-o"]).is_err());
    }
}
