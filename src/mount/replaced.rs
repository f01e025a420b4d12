//! Taking the place of a mount that lives: it is asked for its place, over its open root directory, and goes on as before
//! if that is closed early.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mounts;
use crate::failure::Failure;
use crate::fs::Fs;
use crate::fuse::{ANSWER, HAND_OVER, NEXT_GUESTS};
use crate::sys::{self, moving};

/// The mount is asked again so long after it has refused.
const PAUSE: Duration = Duration::from_millis(100);
/// Those who were on their way into the old mount have come to it by then.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// How often is asked who has come.
const LOOK: Duration = Duration::from_millis(5);

/// A mount that lives, in whose place another one is to be put.
pub(super) struct Replaced {
    root: Arc<File>,
    place: PathBuf,
}

/// Refuses what cannot be replaced at `place`, where a mount of kvfs lives whose status document is given.
pub(super) fn check(place: &Path, document: &Value) -> Result<(), Failure> {
    let refused = |why: String| refusal(place, &why);
    let shown = place.display();
    if !sys::may_mount() {
        return Err(refused("only root can do that; umount it, and mount it anew".into()));
    }
    if !moving::can_go_beneath() {
        return Err(refused("that takes Linux 6.5; umount it, and mount it anew".into()));
    }
    if document["store"].as_str().is_some_and(|store| store.starts_with("memory:")) {
        return Err(refused(
            "its values are in its memory alone; copy them (cp -r), umount it, and mount it anew".into(),
        ));
    }
    if mounts::count(place) != 1 {
        return Err(refused(format!(
            "several mounts lie there; end those that should not be with: umount {shown}"
        )));
    }
    if let Some(inner) = mounts::below(place) {
        return Err(refused(format!(
            "{} is mounted in it, and would be gone; umount that first",
            inner.display()
        )));
    }
    match mounts::find(place).ok().flatten().and_then(|found| found.owner) {
        Some(user) if user != sys::owner().0 => {
            Err(refused(format!("it is a mount of user {user}; have it ended, and mount it anew")))
        }
        _ => Ok(()),
    }
}

fn refusal(place: &Path, why: &str) -> Failure {
    Failure::Mountpoint(format!("the mount at {} is not replaced: {why}", place.display()))
}

impl Replaced {
    pub(super) fn open(place: &Path) -> Result<Self, Failure> {
        let root =
            File::open(place).map_err(|error| refusal(place, &format!("it cannot be opened: {error}")))?;
        Ok(Self { root: Arc::new(root), place: place.to_owned() })
    }

    /// Asks for the place, for so long. From then on nobody begins anything there until the mount is replaced or this is dropped.
    fn ask(&self, timeout: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let answer = self.call(HAND_OVER).map_err(|error| self.unanswered(&error))?;
            let why = String::from_utf8_lossy(&answer).into_owned();
            if why.is_empty() {
                return Ok(());
            }
            if began.elapsed() > timeout {
                return Err(refusal(
                    &self.place,
                    &format!("{why}; end that, or umount the mount, and mount it anew"),
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn unanswered(&self, error: &io::Error) -> Failure {
        let why = match error.raw_os_error() {
            Some(libc::ENOTTY | libc::ENOSYS) => {
                "its kvfs is of another version, which cannot hand it over; umount it, and mount it anew"
                    .into()
            }
            _ => format!("it does not answer: {error}"),
        };
        refusal(&self.place, &why)
    }

    fn call(&self, command: u32) -> io::Result<Vec<u8>> {
        let root = self.root.clone();
        // It is closed before the answer is there: who has that may be the last to have it open.
        mounts::within_patience(move || moving::read_ioctl(&root, command, ANSWER))
    }

    /// Puts `mount` in the place.
    pub(super) fn replace(self, mount: &OwnedFd, timeout: Duration, fs: &Fs) -> Result<(), Failure> {
        self.ask(timeout)?;
        let cannot = |error: io::Error| refusal(&self.place, &error.to_string());
        moving::beneath(mount, &self.place).map_err(cannot)?;
        if let Err(error) = moving::detach(&*self.root) {
            _ = moving::detach(mount);
            return Err(cannot(error));
        }
        self.receive(fs);
        Ok(())
    }

    /// Has those come who began something in the old mount: first they are made known to `fs`.
    fn receive(&self, fs: &Fs) {
        let began = Instant::now();
        loop {
            let guests = match self.call(NEXT_GUESTS) {
                Ok(answer) => serde_json::from_slice::<Vec<(u32, String)>>(&answer).unwrap_or_default(),
                Err(error) => return tracing::warn!("the mount that is replaced does not answer: {error}"),
            };
            if guests.is_empty() && began.elapsed() > ON_THE_WAY {
                return;
            }
            fs.expect(guests);
            std::thread::sleep(LOOK);
        }
    }
}
