//! Opens that were answered "look again", by thread.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::fs::rules::names::{base, is_inside};
use crate::fs::types::{ByNumber, Ino};

/// An open, or a stat(2), that was answered "look again": what the next lookup by the same thread finds.
#[derive(Debug)]
struct Redirect {
    /// The name to look up.
    name: String,
    /// The draft inode made for a writer.
    to: Option<Ino>,
    /// An open certainly follows: it was one. After stat(2) none does, unless that was the beginning of one; nor where there is
    /// nothing, unless it is there by then.
    is_open: bool,
    /// It has looked the name up since.
    looked: bool,
    since: Instant,
}

impl Redirect {
    /// For how long lookups are those that follow.
    const fn life(&self) -> Duration {
        if self.is_open { REDIRECT_LIFE } else { LOOK_LIFE }
    }

    /// Whether the thread is to come back.
    fn is_due(&self) -> bool {
        self.is_open || self.since.elapsed() < LOOK_LIFE
    }

    fn is_late(&self) -> bool {
        self.since.elapsed() >= self.life()
    }
}

/// For so long a lookup finds the draft: one that comes later may be for another open.
const REDIRECT_LIFE: Duration = Duration::from_secs(10);
/// For so long a lookup may be that of a stat(2) that was answered "look again".
const LOOK_LIFE: Duration = Duration::from_secs(1);
/// Redirects not followed by then belong to an open that was given up.
const GIVEN_UP: Duration = Duration::from_hours(1);
/// When there are so many, those are looked for.
const MANY: usize = 256;

/// For so long any caller of thread 0 may be one who was sent to look again.
const UNKNOWN_LIFE: Duration = Duration::from_secs(1);

/// Opens by callers outside of the daemon's PID namespace, all of whom are thread 0, that were answered "look again".
#[derive(Debug)]
struct Unknown {
    /// The last time.
    last: Instant,
    /// The first time since any of them has looked the name up.
    first: Option<Instant>,
    /// How many of them have not looked the name up since, at least: others of thread 0 may have, in their place.
    due: usize,
}

impl Unknown {
    fn is_young(&self) -> bool {
        self.last.elapsed() < UNKNOWN_LIFE
    }

    fn is_late(&self) -> bool {
        self.last.elapsed() >= REDIRECT_LIFE
    }

    /// One of them, for all that is known, looks the name up or opens what he has.
    const fn came_back(&mut self) {
        self.first = None;
        self.due = self.due.saturating_sub(1);
    }

    /// Whether who looks the name up may be one of them.
    fn may_be_back(&self) -> bool {
        self.is_young() || self.due > 0 && !self.is_late()
    }
}

/// By thread, and by name for those of thread 0.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    threads: ByNumber<u32, Redirect>,
    unknown: HashMap<String, Unknown>,
}

impl Redirects {
    /// Remembers what the next lookup of `name` by `thread` shall find. Returns the inodes that nobody is sent to any more.
    pub(super) fn add(&mut self, thread: u32, name: String, to: Option<Ino>) -> Vec<Ino> {
        if thread == 0 {
            self.unknown.retain(|_, unknown| unknown.may_be_back());
            let last = Instant::now();
            let unknown = self.unknown.entry(name).or_insert(Unknown { last, first: None, due: 0 });
            unknown.last = last;
            unknown.first.get_or_insert(last);
            unknown.due += 1;
            return to.into_iter().collect();
        }
        let mut given_up: Vec<Ino> = self.take(thread).into_iter().collect();
        if self.threads.len() >= MANY {
            let old = self.threads.extract_if(|_, redirect| redirect.since.elapsed() > GIVEN_UP);
            given_up.extend(old.filter_map(|(_, redirect)| redirect.to));
        }
        self.threads
            .insert(thread, Redirect { name, to, is_open: true, looked: false, since: Instant::now() });
        given_up
    }

    /// Whether stat(2) of `name` by `thread` is to be answered "look again": once, for it may have no name.
    pub(super) fn add_look(&mut self, thread: u32, name: &str) -> bool {
        if self.threads.get(&thread).is_some_and(Redirect::is_due) {
            return false;
        }
        let (name, since) = (name.to_owned(), Instant::now());
        self.threads.insert(thread, Redirect { name, to: None, is_open: false, looked: false, since });
        true
    }

    /// Whether `thread`, which came at `since`, was told to look `name` up again and now is back, however late: the kernel may
    /// wait for the names on the way, and for the lock of a directory. One of thread 0 is taken for back if before he came one of
    /// them was told so, and none has looked the name up since: what he opens may have no name, and a second "look again" would
    /// reach the program.
    pub(super) fn is_retry(&self, thread: u32, name: &str, since: Instant) -> bool {
        let is_back = |unknown: &Unknown| unknown.first.is_some_and(|first| first <= since);
        match thread {
            0 => self.unknown.get(name).is_some_and(|unknown| is_back(unknown) && !unknown.is_late()),
            _ => self.threads.get(&thread).is_some_and(|redirect| redirect.name == name && redirect.is_due()),
        }
    }

    /// `thread` looks `name` up. Whether it may have been told to look again, and will be back to open what it finds.
    pub(super) fn look_up(&mut self, thread: u32, name: &str) -> bool {
        if let Some(redirect) = self.threads.get_mut(&thread).filter(|redirect| redirect.name == name) {
            redirect.looked = true;
            return redirect.to.is_none() && !redirect.is_late();
        }
        let unknown = self.unknown.get_mut(name).filter(|unknown| thread == 0 && unknown.may_be_back());
        unknown.is_some_and(|unknown| {
            unknown.came_back();
            true
        })
    }

    /// `thread` finds nothing under `name`: it gives the open up, or creates the file. Or the kernel, which drops its dentry,
    /// looks the name up once more for the same open. Returns the inode that nobody is sent to any more.
    pub(super) fn find_nothing(&mut self, thread: u32, name: &str) -> Option<Ino> {
        let Some(redirect) = self.threads.get_mut(&thread).filter(|redirect| base(&redirect.name) == name)
        else {
            return self.take(thread);
        };
        (redirect.is_open, redirect.since) = (false, Instant::now());
        redirect.to.take()
    }

    /// Whether `thread`, which was told to look again, has looked no name up since: it came by way of `/proc/self/fd/N`, or of a
    /// bind-mounted file.
    pub(super) fn has_no_name(&self, thread: u32) -> bool {
        self.threads.get(&thread).is_some_and(|redirect| !redirect.looked)
    }

    /// Whether `thread` was sent to look for this inode, however long ago.
    pub(super) fn is_target(&self, thread: u32, ino: Ino) -> bool {
        self.threads.get(&thread).is_some_and(|redirect| redirect.to == Some(ino))
    }

    /// The inode that `thread` was sent to look for. Who comes late may have given that open up, and now look at the file for
    /// something else.
    pub(super) fn target(&self, thread: u32, name: &str) -> Option<Ino> {
        let redirect = self.threads.get(&thread).filter(|redirect| redirect.name == name)?;
        redirect.to.filter(|_| !redirect.is_late())
    }

    /// What is in the directory at `from` is looked for in `to`: the kernel finds it there.
    pub(super) fn move_directory(&mut self, from: &str, to: &str) {
        for redirect in self.threads.values_mut().filter(|redirect| is_inside(&redirect.name, from)) {
            redirect.name = format!("{to}{}", &redirect.name[from.len()..]);
        }
    }

    /// Forgets the redirect of `thread`. Returns the inode that it led to.
    pub(super) fn take(&mut self, thread: u32) -> Option<Ino> {
        self.threads.remove(&thread)?.to
    }

    /// An open of `name` by thread 0 is answered: the next one is not taken for back.
    pub(super) fn end_unknown(&mut self, name: &str) {
        if let Some(unknown) = self.unknown.get_mut(name) {
            unknown.came_back();
        }
    }

    /// Whether somebody is sent to `ino`, however long ago.
    pub(super) fn lead_to(&self, ino: Ino) -> bool {
        self.threads.values().any(|redirect| redirect.to == Some(ino))
    }

    /// Whether somebody is sent to `ino`, and has not given that open up for all that is known.
    pub(super) fn are_awaited_at(&self, ino: Ino) -> bool {
        self.threads.values().any(|redirect| redirect.to == Some(ino) && !redirect.is_late())
    }

    /// Whether `thread` comes so late to where it was sent that the name may have been looked up by others since as if nobody
    /// would come.
    pub(super) fn is_late(&self, thread: u32) -> bool {
        self.threads.get(&thread).is_some_and(Redirect::is_late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "k";

    fn sent(redirects: &mut Redirects, times: usize) {
        for _ in 0..times {
            assert_eq!(redirects.add(0, NAME.into(), None), vec![]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_thread_0_may_come_back_late() {
        let mut redirects = Redirects::default();
        sent(&mut redirects, 2);
        tokio::time::advance(UNKNOWN_LIFE * 5).await;
        assert!(redirects.look_up(0, NAME), "the first");
        assert!(redirects.look_up(0, NAME), "the second");
        assert!(!redirects.look_up(0, NAME), "somebody else");
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_up_meanwhile_takes_the_place_of_none_for_a_second() {
        let mut redirects = Redirects::default();
        sent(&mut redirects, 1);
        for _ in 0..3 {
            assert!(redirects.look_up(0, NAME));
        }
        tokio::time::advance(UNKNOWN_LIFE).await;
        assert!(!redirects.look_up(0, NAME));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_late_without_a_name_is_known() {
        let mut redirects = Redirects::default();
        sent(&mut redirects, 1);
        tokio::time::advance(UNKNOWN_LIFE * 5).await;
        assert!(redirects.is_retry(0, NAME, Instant::now()));
        tokio::time::advance(REDIRECT_LIFE).await;
        assert!(!redirects.is_retry(0, NAME, Instant::now()));
        assert!(!redirects.look_up(0, NAME));
    }
}
