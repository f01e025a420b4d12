//! Handing the mount over to another daemon, and who waits for that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::fs::core::Fs;
use crate::fs::hand_over::{Change, Guest, Phase, Queued, Told, Verdict};
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::nodes::Body;
use crate::fs::types::{Caller, Ino};
use crate::store::{Deadline, Key};

/// What somebody begins by path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begun<'a> {
    Open(Ino),
    /// A change of attributes or size.
    Change(Ino),
    /// A file or directory that is to be made.
    New(Ino, &'a str),
    Rename(Ino, &'a str),
}

/// For so long those who have begun something may take to end it.
const DRAIN: Duration = Duration::from_millis(250);
/// Who has opened a file for so long does what he means to do with it: he may be about to lock it before.
const SETTLED: Duration = Duration::from_millis(200);
/// How often is looked whether they have.
const LOOK: Duration = Duration::from_millis(5);

impl Fs {
    async fn wait_for_verdict(&self, caller: Caller, begun: Begun<'_>) -> FsResult<()> {
        let since = Instant::now();
        loop {
            if self.is_for_here(caller, begun, since) {
                return Ok(());
            }
            let verdict = match self.hand_over.queue(self.guest(caller, begun)) {
                Queued::Hears(verdict) => verdict,
                Queued::Waits(verdict) => Deadline::wait(verdict).await?.unwrap_or(Verdict::Stay),
            };
            if verdict == Verdict::Leave
                && !self.is_for_here(caller, begun, since)
                && self.hand_over.tell(who(caller, begun))
            {
                return Err(self.send_away(caller, begun));
            }
        }
    }

    /// Waits while the mount is handed over. Who began this before it had lost its place is sent to look there, once. Until what is
    /// returned is dropped nothing is handed over.
    pub(crate) async fn admit(&self, caller: Caller, begun: Begun<'_>) -> FsResult<Change> {
        if let Some(change) = self.hand_over.try_change() {
            return Ok(change);
        }
        let since = Instant::now();
        loop {
            let change = self.hand_over.change();
            if self.is_for_here(caller, begun, since) {
                return Ok(change);
            }
            drop(change);
            Box::pin(self.wait_for_verdict(caller, begun)).await?;
        }
    }

    /// A change, where none has to wait.
    pub fn begin_change(&self) -> Option<Change> {
        self.hand_over.try_change()
    }

    /// Whether it is served now. While the mount comes to its end so is what ends a file that is in it alone.
    fn is_for_here(&self, caller: Caller, begun: Begun<'_>, since: Instant) -> bool {
        let phase = self.hand_over.phase();
        match (phase, begun) {
            (Phase::Serving, _) => true,
            (Phase::Ready, _) => false,
            (Phase::Draining, Begun::New(within, name)) => {
                let path = self.path_of(within, name);
                self.state.lock().paths().deferred_rename(&path).is_some()
            }
            (Phase::Draining, Begun::Rename(within, name)) => {
                let path = self.path_of(within, name);
                self.state.lock().named(&path).is_some_and(|(_, inode)| matches!(inode.body, Body::Local(_)))
            }
            (Phase::Draining, Begun::Open(ino)) => self.is_local(ino),
            (Phase::Draining, Begun::Change(ino)) => self.is_local(ino) || self.is_open(ino),
            (Phase::Replaced, Begun::New(..) | Begun::Rename(..)) => {
                self.hand_over.is_told(&who(caller, begun))
            }
            (Phase::Replaced, Begun::Open(ino) | Begun::Change(ino)) => {
                // The kernel does not repeat what comes by a descriptor, and tells not of it.
                let by_descriptor = matches!(begun, Begun::Change(_)) && self.is_open(ino);
                by_descriptor || self.hand_over.is_told(&who(caller, begun)) || {
                    let state = self.state.lock();
                    state.inode(ino).is_ok_and(|inode| state.is_retry(caller.thread, &inode.name, since))
                }
            }
        }
    }

    fn is_local(&self, ino: Ino) -> bool {
        self.state.lock().inode(ino).is_ok_and(|inode| matches!(inode.body, Body::Local(_)))
    }

    fn is_open(&self, ino: Ino) -> bool {
        self.state.lock().inode(ino).is_ok_and(|inode| inode.handles > 0)
    }

    /// The other mount must not send this one to look again, too: that would reach the program.
    fn guest(&self, caller: Caller, begun: Begun<'_>) -> Guest {
        let key = match begun {
            Begun::Open(ino) | Begun::Change(ino) => self.state.lock().inode(ino).ok()?.key.clone(),
            Begun::New(within, name) => self.key_for_new(&self.path_of(within, name)).ok()??,
            Begun::Rename(..) => return None,
        };
        Some((caller.thread, key))
    }

    fn send_away(&self, caller: Caller, begun: Begun<'_>) -> FsError {
        let path = match begun {
            Begun::Open(ino) | Begun::Change(ino) => self.name_of(ino),
            Begun::New(within, name) => self.path_of(within, name),
            Begun::Rename(..) => return FsError::Superseded,
        };
        self.state.lock().redirect_name(caller.thread, path, None)
    }
}

impl Fs {
    /// Asks for the mount, by a handle of its root: empty if another one may take its place until the handle is closed, else
    /// why not.
    pub async fn hand_over(self: Arc<Self>, asker: u64) -> FsResult<String> {
        if !self.hand_over.claim(asker) {
            return Ok("it is being replaced already".into());
        }
        let until = Instant::now() + DRAIN;
        loop {
            tokio::time::sleep(LOOK).await;
            let over = Instant::now() >= until;
            match self.try_hand_over(asker, over) {
                None => return Ok(String::new()),
                Some(why) if over => {
                    self.hand_over.end(asker);
                    return Ok(why);
                }
                Some(_) => {}
            }
        }
    }

    fn try_hand_over(&self, asker: u64, over: bool) -> Option<String> {
        let state = self.state.lock();
        let has_keys = |path: &str| self.has_keys_below(path);
        if let Some(why) = state.held_here(has_keys) {
            return Some(why);
        }
        if self.hand_over.changes() {
            return Some("opens or changes are in flight".into());
        }
        if state.is_opened_within(SETTLED) || !over && state.is_written() {
            return Some("files were opened a moment ago".into());
        }
        (!self.hand_over.ready(asker)).then(|| "it is not asked for any more".into())
    }

    /// Whether keys that are known are in the directory at `path`.
    fn has_keys_below(&self, path: &str) -> bool {
        self.cache.last_keys().is_some_and(|keys| self.has_keys(path, &keys.value))
    }

    /// Another mount is in the place of this one. Who has come for it since is returned, as many as fit `most` bytes; those
    /// who were returned before are sent there.
    pub fn next_guests(&self, asker: u64, most: usize) -> Option<Vec<(u32, String)>> {
        let mut room = most;
        // As JSON: a character has six at most.
        let needs = |(_, key): &(u32, Key)| 6 * key.as_str().len() + 20;
        // Who does not fit at all is not told of.
        let is_told = |guest: &(u32, Key)| needs(guest) <= most;
        let fits = |guest: &Guest| {
            let needs = guest.as_ref().filter(|guest| is_told(guest)).map_or(0, needs);
            let left = room.checked_sub(needs);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let guests = self.hand_over.next_guests(asker, fits)?.into_iter().filter(is_told);
        Some(guests.map(|(thread, key)| (thread, key.as_str().to_owned())).collect())
    }

    /// A handle of a directory is closed: if it was that of who asked for the mount, that is over.
    pub fn end_hand_over(&self, asker: u64) {
        self.hand_over.end(asker);
    }

    /// Whether another mount is in the place of this one.
    pub fn is_replaced(&self) -> bool {
        self.hand_over.phase() == Phase::Replaced
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.state.lock().open_files()
    }

    /// Those come to this mount whom the one before it has sent to look again.
    pub fn expect(&self, guests: Vec<(u32, String)>) {
        let mut state = self.state.lock();
        for (thread, key) in guests {
            _ = state.redirect_name(thread, self.settings.names.encode(&Key::from(key.as_str())), None);
        }
    }
}

fn who(caller: Caller, begun: Begun<'_>) -> Told {
    if caller.thread != 0 {
        return Told::Thread(caller.thread);
    }
    Told::Unknown(match begun {
        Begun::Open(ino) => format!("open {}", ino.0),
        Begun::Change(ino) => format!("change {}", ino.0),
        Begun::New(within, name) => format!("new {}/{name}", within.0),
        Begun::Rename(within, name) => format!("rename {}/{name}", within.0),
    })
}

#[cfg(test)]
mod tests {
    use crate::fs::types::{Access, Opened, ROOT};
    use crate::store::{Expect, Text};

    use super::*;

    const READ: Access = Access { write: false, append: false, truncate: false };
    const WRITE: Access = Access { write: true, ..READ };
    /// The handle of who asks for the mount.
    const ASKER: u64 = 1;

    fn thread(thread: u32) -> Caller {
        Caller { thread, uid: 0, gid: 0 }
    }

    /// A mount with the key `k`, and its inode.
    async fn with_k() -> (Arc<Fs>, Ino) {
        let fs = Fs::in_memory(Duration::ZERO).0;
        fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let ino = fs.clone().lookup(thread(1), ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        (fs, ino)
    }

    async fn ask(fs: &Arc<Fs>) -> String {
        fs.clone().hand_over(ASKER).await.unwrap()
    }

    fn guests(fs: &Fs) -> Vec<(u32, String)> {
        fs.next_guests(ASKER, 1000).unwrap()
    }

    /// What a task comes to that has all it waits for.
    async fn now<T>(task: tokio::task::JoinHandle<T>) -> T {
        tokio::time::timeout(Duration::from_secs(1), task).await.unwrap().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_announced_then_sent_away_once_and_served_when_he_comes_back() {
        for caller in [thread(7), thread(0)] {
            let (fs, ino) = with_k().await;
            assert_eq!(ask(&fs).await, "");
            let opening = tokio::spawn(fs.clone().open(caller, ino, READ));
            let creating =
                tokio::spawn(fs.clone().create_in_time(caller, (ROOT, "new".into()), 0o666, WRITE, true));
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert!(!opening.is_finished() && !creating.is_finished() && !fs.is_replaced());
            assert_eq!(guests(&fs).len(), 2);
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert!(!opening.is_finished() && !creating.is_finished() && fs.is_replaced());
            assert_eq!(guests(&fs), []);
            let ends = (now(opening).await, now(creating).await.map(drop));
            // One thread does one thing at a time; the second of it is taken for back.
            let sent = [ends.0.is_err(), ends.1.is_err()].into_iter().filter(|sent| *sent).count();
            assert_eq!(sent, if caller.thread == 0 { 2 } else { 1 });
            fs.clone().open(caller, ino, READ).await.unwrap();
            fs.end_hand_over(ASKER);
            let other = thread(8);
            assert_eq!(fs.clone().open(other, ino, READ).await, Err(FsError::Superseded));
            fs.clone().open(other, ino, READ).await.unwrap();
            fs.clone().create_in_time(other, (ROOT, "other".into()), 0o666, WRITE, true).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_goes_on_where_who_asked_is_gone() {
        let (fs, ino) = with_k().await;
        assert_eq!(ask(&fs).await, "");
        let opening = tokio::spawn(fs.clone().open(thread(7), ino, READ));
        let changing = tokio::spawn(fs.clone().setattr(thread(8), ino, None, crate::fs::Changes::default()));
        tokio::task::yield_now().await;
        // Somebody else's handle.
        fs.end_hand_over(ASKER + 1);
        assert_eq!(fs.clone().hand_over(ASKER + 1).await.unwrap(), "it is being replaced already");
        assert!(!opening.is_finished() && !changing.is_finished());
        fs.end_hand_over(ASKER);
        now(opening).await.unwrap();
        now(changing).await.unwrap();
        assert_eq!(fs.next_guests(ASKER, 1000), None);
        assert!(!fs.is_replaced() && fs.begin_change().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_handed_over_while_a_change_is_in_flight_or_a_file_is_here_alone() {
        let (fs, _) = with_k().await;
        let change = fs.begin_change().unwrap();
        assert_eq!(ask(&fs).await, "opens or changes are in flight");
        drop(change);
        let (_, Opened { fh, .. }) = fs.create(thread(7), (ROOT, "new.tmp"), 0o666, WRITE, true).unwrap();
        assert_eq!(ask(&fs).await, "\"new.tmp\" is a temporary or scratch file");
        fs.write(fh, 0, b"22").unwrap();
        let asking = tokio::spawn(fs.clone().hand_over(ASKER));
        tokio::time::sleep(LOOK).await;
        // What ends it is let through, and what begins something else is not.
        let creating =
            tokio::spawn(fs.clone().create_in_time(thread(8), (ROOT, "x".into()), 0o666, WRITE, true));
        fs.clone().flush(thread(7), fh, 0).await.unwrap();
        fs.clone().release(fh).await;
        fs.clone().rename(thread(7), (ROOT, "new.tmp".into()), (ROOT, "k".into()), false).await.unwrap();
        assert_eq!(now(asking).await.unwrap(), "");
        assert!(!creating.is_finished());
        fs.end_hand_over(ASKER);
        now(creating).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_whom_the_mount_before_has_sent_is_not_sent_once_more() {
        let (fs, ino) = with_k().await;
        fs.clone().open(thread(1), ino, READ).await.unwrap();
        fs.expect(vec![(7, "k".into())]);
        let look = async || fs.clone().lookup(thread(7), ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let opened = fs.clone().open(thread(7), look().await, WRITE).await.unwrap();
        fs.clone().release(opened.fh).await;
        // As another one is.
        assert_eq!(fs.clone().open(thread(8), ino, WRITE).await, Err(FsError::Superseded));
    }
}
