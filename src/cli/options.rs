//! `-o a,b=c`, as mount(8) and fstab pass options: each becomes the flag of the same name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::CommandFactory;

use super::refusal;

/// Ignored options: those for mount(8) itself, those that hold anyway (close(2) is durable, there are no links, no access times),
/// and those that a remount takes from the mount table.
const IGNORED: [&str; 42] = [
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "async",
    "sync",
    "dirsync",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "symfollow",
    "nosymfollow",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "mand",
    "nomand",
    "default_permissions",
    "user_id",
    "group_id",
    "max_read",
];

/// Replaces every `-o LIST` in `arguments` by flags of `C`.
pub(super) fn expand<C: CommandFactory>(
    arguments: impl Iterator<Item = OsString>,
) -> Result<Vec<OsString>, String> {
    let command = C::command();
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let mut expanded = Vec::new();
    let mut arguments = of_helper(arguments.collect())?.into_iter();
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

/// Translates the call of mount(8)'s helper, `mount.kvfs SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-o LIST] [-t TYPE]`.
fn of_helper(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if !name.as_bytes().starts_with(b"mount.") {
        return Ok(arguments);
    }
    let mut taken = Vec::new();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.as_bytes() {
            b"-t" | b"-N" => _ = rest.next(),
            b"-o" => taken.extend([Some(argument), rest.next()].into_iter().flatten()),
            [b'-', letters @ ..] if letters.contains(&b'f') => {
                return Err("mount -f (fake) cannot be done by kvfs; leave it away".into());
            }
            // Sloppy, without mtab, verbose.
            [b'-', letters @ ..] if letters.iter().all(|letter| b"snv".contains(letter)) => {}
            _ => taken.push(argument),
        }
    }
    Ok(taken)
}

fn flag(option: &str, known: &[&str]) -> Result<Option<String>, String> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    let is_comment = ["x-", "X-"].iter().any(|prefix| name.starts_with(prefix)) || name == "comment";
    if IGNORED.contains(&name) || is_comment {
        return Ok(None);
    }
    if name == "subtype" {
        let why = format!(
            "-o {option}: the mount table calls every mount of kvfs fuse.kvfs; leave the option away"
        );
        return if value == Some("kvfs") { Ok(None) } else { Err(why) };
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
    fn the_words_of_fstab_are_taken() {
        let words = "sync,dirsync,nodiratime,lazytime,strictatime,nosymfollow,X-mount.mkdir,subtype=kvfs";
        assert_eq!(expanded(&["kvfs", "/mnt", "-o", words]).unwrap(), ["kvfs", "/mnt"]);
        assert!(expanded(&["kvfs", "-o", "subtype=other"]).unwrap_err().contains("fuse.kvfs"));
    }

    #[test]
    fn what_mount_8_says_to_a_helper_is_understood() {
        let said =
            ["/sbin/mount.kvfs", "memory:", "/mnt", "-sv", "-N", "/ns", "-o", "rw,max_age=5s", "-t", "kvfs"];
        assert_eq!(expanded(&said).unwrap(), ["/sbin/mount.kvfs", "memory:", "/mnt", "--max-age=5s"]);
        assert!(expanded(&["mount.kvfs", "memory:", "/mnt", "-f"]).unwrap_err().contains("fake"));
    }

    #[test]
    fn unknown_options_are_named() {
        assert!(expanded(&["kvfs", "-o", "ro,frobnicate=1"]).unwrap_err().contains("frobnicate=1"));
        assert!(expanded(&["kvfs", "-o"]).is_err());
    }
}
