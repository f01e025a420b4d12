//! Answers that introduce inodes: to LOOKUP, MKNOD, MKDIR, CREATE and READDIRPLUS. They are encoded and written here, because fuser
//! has one number for what the kernel names an inode by and what programs see.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, Filesystem, ReplyCreate, ReplyDirectoryPlus, ReplyEntry, Request, Session};

use super::codec::{BLOCK, open_flags, ttl};
use crate::cache::FOREVER;
use crate::fs::{Attr, Found, Item, Opened};

/// The device of the mount, once that is mounted.
#[derive(Clone, Default)]
pub(super) struct Device(Arc<OnceLock<File>>);

impl Device {
    /// Known before the first message comes.
    pub(super) fn attach<FS: Filesystem>(&self, session: &Session<FS>) -> io::Result<()> {
        let device = File::from(session.as_fd().try_clone_to_owned()?);
        self.0.get_or_init(|| device);
        Ok(())
    }

    /// Where the answer to a message goes.
    pub(super) fn answer_to(&self, request: &Request) -> Answer {
        Answer { device: self.clone(), unique: request.unique().0 }
    }
}

/// The answer to one message. It takes the place of fuser's, which says EIO if nothing is sent.
pub(super) struct Answer {
    device: Device,
    unique: u64,
}

impl Answer {
    /// To LOOKUP, MKNOD and MKDIR.
    pub(super) fn entry(self, reply: ReplyEntry, result: Result<Found, Errno>) {
        match result {
            Ok(Found { attr: None, ttl }) if ttl.is_zero() => reply.error(Errno::ENOENT),
            Ok(Found { attr, ttl }) => {
                let attr = attr.as_ref();
                self.send(reply, &entry_out(attr, lasting(attr, ttl), ttl));
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// To CREATE.
    pub(super) fn created(self, reply: ReplyCreate, result: Result<(Found, Opened), Errno>) {
        match result {
            Ok((Found { attr, ttl }, opened)) => {
                let flags = open_flags(opened.direct, opened.no_flush).bits();
                let attr = attr.as_ref();
                let mut out = entry_out(attr, lasting(attr, ttl), ttl);
                // A fuse_open_out.
                put_u64(&mut out, [opened.fh.0]);
                put_u32(&mut out, [flags, 0]);
                self.send(reply, &out);
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// To READDIRPLUS.
    pub(super) fn entries(self, reply: ReplyDirectoryPlus, entries: &Entries) {
        self.send(reply, &entries.out);
    }

    /// Sends the answer in the place of fuser's. Of that a reference to the device is left, which lives as long as the mount.
    fn send<R>(&self, reply: R, out: &[u8]) {
        let Some(mut device) = self.device.0.get() else { return };
        std::mem::forget(reply);
        let size = (16 + out.len()) as u32;
        let header = [&size.to_ne_bytes()[..], &[0; 4], &self.unique.to_ne_bytes()].concat();
        if let Err(error) = device.write_vectored(&[io::IoSlice::new(&header), io::IoSlice::new(out)]) {
            // At unmount the device is gone, and with it who asked.
            tracing::debug!("answer to message {}: {error}", self.unique);
        }
    }
}

/// For how long the kernel may keep the attributes of an entry: they change with the inode only, except those of directories.
const fn lasting(attr: Option<&Attr>, entry: Duration) -> Duration {
    match attr {
        Some(attr) if attr.directory => entry,
        Some(attr) if !attr.lasts => Duration::ZERO,
        Some(_) | None => FOREVER,
    }
}

/// The answer to READDIRPLUS, made of the entries that there is room for.
pub(super) struct Entries {
    out: Vec<u8>,
    room: usize,
}

/// Room that every kernel has.
const PAGE: usize = 4096;

impl Entries {
    /// None yet. fuser says how much room the kernel has by `Debug` only.
    pub(super) fn of(reply: &ReplyDirectoryPlus) -> Self {
        let room = room(&format!("{reply:?}")).unwrap_or(PAGE);
        Self { out: Vec::with_capacity(room), room }
    }

    /// Adds an entry. True if there is no room for it.
    pub(super) fn add(&mut self, item: &Item, attr: &Attr, valid: Duration) -> bool {
        let size = ENTRY_OUT + DIRENT + item.name.len();
        if self.out.len() + size.next_multiple_of(8) > self.room {
            return true;
        }
        put_entry(&mut self.out, Some(attr), if attr.lasts { valid } else { Duration::ZERO }, valid);
        put_u64(&mut self.out, [attr.number.0, item.next]);
        put_u32(&mut self.out, [item.name.len() as u32, kind(attr) >> 12]);
        self.out.extend(item.name.as_bytes());
        self.out.resize(self.out.len().next_multiple_of(8), 0);
        false
    }
}

fn room(reply: &str) -> Option<usize> {
    let (_, room) = reply.split_once("max_size: ")?;
    room.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// Sizes of `fuse_entry_out`, and of `fuse_dirent` without the name.
const ENTRY_OUT: usize = 128;
const DIRENT: usize = 24;

fn entry_out(attr: Option<&Attr>, attr_valid: Duration, entry_valid: Duration) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRY_OUT + 16);
    put_entry(&mut out, attr, attr_valid, entry_valid);
    out
}

/// Appends a `fuse_entry_out`; one without an inode is a negative dentry.
fn put_entry(out: &mut Vec<u8>, attr: Option<&Attr>, attr_valid: Duration, entry_valid: Duration) {
    let (attr_valid, entry_valid) = (ttl(attr_valid), ttl(entry_valid));
    let node = attr.map_or(0, |attr| attr.ino.0);
    put_u64(out, [node, 0, entry_valid.as_secs(), attr_valid.as_secs()]);
    put_u32(out, [entry_valid.subsec_nanos(), attr_valid.subsec_nanos()]);
    match attr {
        Some(attr) => put_attr(out, attr),
        None => out.extend([0; 88]),
    }
}

/// Appends a `fuse_attr`.
fn put_attr(out: &mut Vec<u8>, attr: &Attr) {
    let [accessed, modified, changed] = [attr.accessed, attr.modified, attr.changed].map(since_epoch);
    put_u64(out, [attr.number.0, attr.size, attr.size.div_ceil(512), accessed.0, modified.0, changed.0]);
    put_u32(out, [accessed.1, modified.1, changed.1]);
    let (mode, device, flags) = (kind(attr) | attr.mode & 0o7777, 0, 0);
    put_u32(out, [mode, attr.links, attr.uid, attr.gid, device, BLOCK, flags]);
}

const fn kind(attr: &Attr) -> u32 {
    if attr.directory { libc::S_IFDIR } else { libc::S_IFREG }
}

/// Seconds, two's complement before 1970, and nanoseconds from there on.
fn since_epoch(time: SystemTime) -> (u64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs(), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            let seconds = before.as_secs() + u64::from(before.subsec_nanos() > 0);
            let nanos = (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000;
            (seconds.wrapping_neg(), nanos)
        }
    }
}

fn put_u64<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    for number in numbers {
        out.extend_from_slice(&number.to_ne_bytes());
    }
}

fn put_u32<const N: usize>(out: &mut Vec<u8>, numbers: [u32; N]) {
    for number in numbers {
        out.extend_from_slice(&number.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Ino;

    fn attr() -> Attr {
        let time = |seconds| UNIX_EPOCH + Duration::new(seconds, 7);
        Attr {
            ino: Ino(5),
            number: Ino(1 << 62),
            directory: false,
            size: 513,
            mode: 0o640,
            links: 1,
            uid: 2,
            gid: 3,
            accessed: time(10),
            modified: time(20),
            changed: UNIX_EPOCH - Duration::new(1, 1),
            created: time(0),
            lasts: true,
        }
    }

    fn u64_at(out: &[u8], at: usize) -> u64 {
        u64::from_ne_bytes(out[at..at + 8].try_into().unwrap())
    }

    fn u32_at(out: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(out[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn an_entry_has_the_layout_of_the_kernel() {
        let out = entry_out(Some(&attr()), Duration::new(8, 9), Duration::new(6, 7));
        assert_eq!(out.len(), ENTRY_OUT);
        // fuse_entry_out, then fuse_attr from 40 on.
        assert_eq!([0, 8, 16, 24].map(|at| u64_at(&out, at)), [5, 0, 6, 8]);
        assert_eq!([32, 36].map(|at| u32_at(&out, at)), [7, 9]);
        let seconds_before = 2_u64.wrapping_neg();
        assert_eq!(
            [40, 48, 56, 64, 72, 80].map(|at| u64_at(&out, at)),
            [1 << 62, 513, 2, 10, 20, seconds_before]
        );
        assert_eq!([88, 92, 96].map(|at| u32_at(&out, at)), [7, 7, 999_999_999]);
        assert_eq!(
            [100, 104, 108, 112, 116, 120, 124].map(|at| u32_at(&out, at)),
            [0o100_640, 1, 2, 3, 0, 4096, 0]
        );
    }

    #[test]
    fn nothing_is_an_entry_without_an_inode() {
        let out = entry_out(None, FOREVER, Duration::new(1, 0));
        assert_eq!((out.len(), u64_at(&out, 0), u64_at(&out, 16)), (ENTRY_OUT, 0, 1));
        assert_eq!(out[40..], [0; 88]);
    }

    #[test]
    fn a_listing_has_as_many_entries_as_there_is_room_for() {
        let item = |name: &str| Item { name: name.into(), number: Ino(1 << 62), directory: false, next: 3 };
        let mut entries = Entries { out: Vec::new(), room: 320 };
        assert!(!entries.add(&item("k"), &attr(), Duration::ZERO));
        assert!(entries.add(&item("a long name"), &attr(), Duration::ZERO));
        assert!(!entries.add(&item("a name "), &attr(), Duration::ZERO));
        assert_eq!(entries.out.len(), 320);
        assert_eq!([128, 136].map(|at| u64_at(&entries.out, at)), [1 << 62, 3]);
        assert_eq!([144, 148].map(|at| u32_at(&entries.out, at)), [1, 0o10]);
        assert_eq!(entries.out[152..160], *b"k\0\0\0\0\0\0\0");
    }

    #[test]
    fn fuser_says_how_much_room_there_is() {
        assert_eq!(room("Reply { reply: Raw, buf: List(Buf { max_size: 32768, buf: [] }) }"), Some(32768));
        assert_eq!(room("Reply"), None);
    }
}
