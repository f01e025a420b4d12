//! The inotify relay: a process that repeats the changes of others inside the mount, so that the kernel raises inotify events.
//! The daemon answers it without any effect ([`crate::fs::Fs::relay`]). It is a process of its own because it waits for the
//! daemon.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{Fs, queue, relay};
use crate::sys;

/// The argument that makes this program a relay.
pub const COMMAND: &str = "__relay";
const PROCESS_NAME: &str = "kvfs-relay";
/// Pause before it is started again after its end.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the relay. `device` is that of the mount. Called after the daemon has replaced its standard streams, which the relay
/// inherits.
pub(super) fn start(fs: Arc<Fs>, mountpoint: PathBuf, device: u64) {
    fs.start_relay();
    let employ = move || {
        loop {
            let ended = serve(&fs, &mountpoint, device);
            let why = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(
                "the process that tells watchers of changes ended ({why}); another one is started"
            );
            std::thread::sleep(PAUSE);
        }
    };
    // PDEATHSIG: a child ends with the thread that started it.
    if let Err(error) = std::thread::Builder::new().name("kvfs-relay".into()).spawn(employ) {
        tracing::error!("cannot tell watchers of changes: {error}");
    }
}

/// Has orders carried out until the relay ends.
fn serve(fs: &Fs, mountpoint: &Path, device: u64) -> io::Result<std::process::ExitStatus> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND).arg(mountpoint).arg(device.to_string()).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    sys::kill_at_end_of_parent(&mut command);
    let mut child = command.spawn()?;
    fs.relay().set_pid(child.id());
    while give_next(fs, &mut child).is_ok() {}
    _ = child.kill();
    // Until it has exited its messages may still arrive.
    let ended = child.wait();
    fs.relay().set_pid(0);
    ended
}

fn give_next(fs: &Fs, child: &mut Child) -> io::Result<()> {
    let order = fs.relay().next();
    fs.forget_dentries(&order);
    let (Some(orders), Some(done)) = (&mut child.stdin, &mut child.stdout) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let kind = match order.kind {
        queue::Kind::Set => b's',
        queue::Kind::Created => b'c',
        queue::Kind::Replaced => b'r',
        queue::Kind::Deleted => b'd',
        queue::Kind::DirectoryMade => b'm',
        queue::Kind::DirectoryRemoved => b'x',
    };
    let mut line = vec![kind];
    let of_file = !matches!(order.kind, queue::Kind::DirectoryMade | queue::Kind::DirectoryRemoved);
    let name = if of_file { fs.shown_path(&order.name) } else { order.name.clone() };
    line.extend(name.bytes());
    line.push(0);
    orders.write_all(&line)?;
    done.read_exact(&mut [0])
}

/// Carries out the orders on standard input, each of which is a letter, a file name and a NUL.
pub fn run(mountpoint: &Path, device: u64) -> io::Result<()> {
    // For ps(1) only.
    _ = std::fs::write("/proc/self/comm", PROCESS_NAME);
    let (mut orders, mut done) = (io::stdin().lock(), io::stdout().lock());
    loop {
        let mut order = Vec::new();
        orders.read_until(0, &mut order)?;
        let Some((kind, name)) = order.split_first() else { return Ok(()) };
        // Open no longer than needed: an open directory keeps the mount busy for umount(2).
        let root = OpenOptions::new().read(true).custom_flags(sys::PATH_ONLY).open(mountpoint);
        if let Ok(root) = root
            && root.metadata()?.dev() == device
            && let Ok(name) = CString::from_vec_with_nul(name.to_vec())
        {
            // An order that other changes have overtaken may fail.
            _ = carry_out(&root, *kind, &name);
        }
        done.write_all(b".")?;
        done.flush()?;
    }
}

fn carry_out(root: &File, kind: u8, name: &CString) -> io::Result<()> {
    match kind {
        b'd' => sys::unlink_at(root, name),
        b'm' => sys::make_directory_at(root, name),
        b'x' => sys::remove_directory_at(root, name),
        b'r' => {
            let temporary = Path::new(&*name.to_string_lossy()).with_file_name(relay::TEMPORARY);
            let temporary = CString::new(temporary.to_string_lossy().into_owned())?;
            sys::rename_at(root, &temporary, name)
        }
        b'c' => sys::create_at(root, name)
            .or_else(|_| sys::open_at(root, name))
            .and_then(|file| sys::touch(&file)),
        _ => sys::touch(&sys::open_at(root, name)?),
    }
}
