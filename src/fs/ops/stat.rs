//! stat(2) that is not answered at once: beside writers, and of a file that others have made anew.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::error::FsResult;
use crate::fs::state::nodes::Inode;
use crate::fs::state::tables::State;
use crate::fs::types::{Caller, Fh, Found, Ino};
use crate::store::Key;
use crate::sys::process::thread_has_open;

impl Fs {
    /// Whether attributes, asked for by no descriptor that the kernel tells of (it tells of none for fstat(2)), are to be
    /// [waited for](Fs::stat).
    pub fn stat_waits(&self, caller: Caller, ino: Ino, fh: Option<Fh>) -> bool {
        fh.is_none() && {
            let state = self.state.lock();
            is_beside_writer(&state, caller, ino) || self.unknown(&state, ino).is_some()
        }
    }

    /// Attributes of an inode that others write to, or of which the store must be asked.
    pub async fn stat(self: Arc<Self>, caller: Caller, ino: Ino) -> FsResult<Found> {
        let unknown = self.unknown(&self.state.lock(), ino);
        match unknown {
            Some(key) => {
                // While the store is down what was last known is shown.
                _ = self.cache.get_key_value(&key).await;
                self.getattr_as(caller, ino, None)
            }
            None => self.stat_beside_writer(caller, ino).await,
        }
    }

    /// The key of an inode that goes on as what its name leads to, if that is not known.
    fn unknown(&self, state: &State, ino: Ino) -> Option<Key> {
        let inode = state.inode(ino).ok().filter(|inode| state.follows_name(ino, inode))?;
        let known = state.named(&inode.name).is_some() || self.peek_meta(&inode.key).is_some();
        (!known).then(|| inode.key.clone())
    }

    /// If the inode has lost its name, and there is a file again under it.
    pub(super) fn find_again(&self, state: &mut State, ino: Ino) {
        let is_there = |inode: &Inode| self.peek_meta(&inode.key).is_some_and(|told| told.value.is_some());
        if state.inode(ino).is_ok_and(|inode| inode.unlinked && is_there(inode)) {
            state.find_again(ino);
        }
    }

    /// Attributes of an inode that others write to. Who found it by its name before the draft began is sent to look again, for he
    /// is not to see the size of the draft; who has it open, or comes by way of a bind mount, is not.
    async fn stat_beside_writer(self: Arc<Self>, caller: Caller, ino: Ino) -> FsResult<Found> {
        if !self.clone().has_open(caller, ino).await
            && let Some(again) = self.state.lock().look_again_to_stat(caller.thread, ino)
        {
            return Err(again);
        }
        self.getattr(ino, None)
    }

    /// Whether the caller has a descriptor of the file, or that cannot be told.
    async fn has_open(self: Arc<Self>, caller: Caller, ino: Ino) -> bool {
        let number = {
            let state = self.state.lock();
            state.inode(ino).map(|inode| state.number_of(ino, inode))
        };
        let (Ok(number), Some(&device)) = (number, self.kernel.device.get()) else { return true };
        let looks = tokio::task::spawn_blocking(move || {
            thread_has_open(caller.thread, device, |shown| Ino(shown) == number).unwrap_or(true)
        });
        looks.await.unwrap_or(true)
    }
}

/// Whether `caller` asks for the attributes of an inode that others write to.
fn is_beside_writer(state: &State, caller: Caller, ino: Ino) -> bool {
    caller.thread != 0 && state.is_written_by_others(ino, caller.thread)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use crate::fs::rules::error::FsError;
    use crate::fs::types::{Access, ROOT};
    use crate::store::{Expect, Text};

    use super::*;

    /// A process that has nothing of the mount open, until its input ends.
    struct Stranger(Child);

    impl Stranger {
        fn start() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
        }

        fn caller(&self) -> Caller {
            Caller { thread: self.0.id(), uid: 0, gid: 0 }
        }
    }

    impl Drop for Stranger {
        fn drop(&mut self) {
            _ = self.0.stdin.take().map(|mut input| input.flush());
            _ = self.0.wait();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_by_the_name_before_a_draft_began_does_not_see_its_size() {
        let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.is_device(1);
        fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let stranger = Stranger::start();
        let (other, writer) = (stranger.caller(), Caller { thread: std::process::id(), uid: 0, gid: 0 });
        let look = async || fs.clone().lookup(other, ROOT, "k".into()).await.unwrap().attr.unwrap();
        let home = look().await.ino;
        assert!(!fs.stat_waits(other, home, None));
        let access = Access { write: true, append: false, truncate: true };
        let opened = fs.clone().open(writer, home, access).await.unwrap();
        assert!(!fs.stat_waits(writer, home, None) && fs.stat_waits(other, home, None));
        let stat = async || fs.clone().stat(other, home).await.map(|found| found.attr.unwrap().size);
        assert_eq!(stat().await, Err(FsError::Superseded));
        let snapshot = look().await;
        assert!(snapshot.ino != home && snapshot.size == 1);
        // It was the beginning of an open, which is not to be sent back once more.
        let read = Access { write: false, truncate: false, ..access };
        let reader = fs.clone().open(other, snapshot.ino, read).await.unwrap();
        // One who comes by way of a bind mount looks no name up in between, and is not sent back twice.
        assert_eq!(stat().await, Err(FsError::Superseded));
        assert_eq!(stat().await, Ok(0));
        let direct = fs.clone().open(other, home, read).await.unwrap();
        assert_eq!(fs.read(direct.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"1");
        for fh in [opened.fh, reader.fh, direct.fh] {
            fs.clone().release(fh).await;
        }
    }
}
