//! Where messages come in that the inotify relay sends too. Whether it did is asked here, and nowhere else: what it asks
//! for is answered ([`relayed`]) and not done.

mod relayed;

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::inotify::queue::HANDLE;
use crate::fs::ops::hand_over::Begun;
use crate::fs::rules::error::FsResult;
use crate::fs::types::{Access, Caller, Fh, Found, Ino, Opened};

impl Fs {
    /// Finds `name` in the directory `within` and counts one reference to its inode.
    pub async fn lookup(self: Arc<Self>, caller: Caller, within: Ino, name: String) -> FsResult<Found> {
        match self.relayed(caller) {
            Some(event) => self.relay_lookup(caller, &event?, within, &name),
            None => self.lookup_name(caller, within, name).await,
        }
    }

    /// Opens an inode.
    pub async fn open(self: Arc<Self>, caller: Caller, ino: Ino, access: Access) -> FsResult<Opened> {
        if let Some(event) = self.relayed(caller) {
            return Ok(Self::relay_open(&event?));
        }
        let _open = self.admit(caller, Begun::Open(ino)).await?;
        self.open_inode(caller, ino, access).await
    }

    /// Creates `name` in the directory `within` and opens it. The file is local until its first complete document is
    /// published.
    pub fn create(
        &self,
        caller: Caller,
        (within, name): (Ino, &str),
        mode: u32,
        access: Access,
        exclusive: bool,
    ) -> FsResult<(Found, Opened)> {
        match self.relayed(caller) {
            Some(event) => self.relay_create(&event?, within, name),
            None => self.create_file(caller, (within, name), mode, access, exclusive),
        }
    }

    /// As [`Fs::create`], where the mount may be about to be handed over.
    pub async fn create_in_time(
        self: Arc<Self>,
        caller: Caller,
        (within, name): (Ino, String),
        mode: u32,
        access: Access,
        exclusive: bool,
    ) -> FsResult<(Found, Opened)> {
        if let Some(event) = self.relayed(caller) {
            return self.relay_create(&event?, within, &name);
        }
        let _change = self.admit(caller, Begun::New(within, &name)).await?;
        self.create_file(caller, (within, &name), mode, access, exclusive)
    }

    /// fallocate(2): the file grows with zeros.
    pub fn allocate(&self, fh: Fh, offset: u64, length: u64, keep_size: bool) -> FsResult<()> {
        if fh == HANDLE { Ok(()) } else { self.reserve(fh, offset, length, keep_size) }
    }

    /// unlink(2): deletes the key, durably; a local file just goes. Who has the file open keeps it.
    pub async fn unlink(self: Arc<Self>, caller: Caller, within: Ino, name: String) -> FsResult<()> {
        match self.relayed(caller) {
            Some(event) => self.relay_unlink(&event?, within, &name),
            None => self.unlink_file(caller, within, name).await,
        }
    }

    /// rename(2). The kernel holds the directory's lock meanwhile, so it is told of what it must drop, and not waited for.
    pub async fn rename(
        self: Arc<Self>,
        caller: Caller,
        from: (Ino, String),
        to: (Ino, String),
        no_replace: bool,
    ) -> FsResult<()> {
        if let Some(event) = self.relayed(caller) {
            return self.relay_rename(&event?, to.0, &to.1);
        }
        let _change = self.admit(caller, Begun::Rename(from.0, &from.1)).await?;
        self.rename_name(caller, from, to, no_replace).await
    }

    /// mkdir(2). The directory is in no store until a key is below it.
    pub async fn make_directory(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
        mode: u32,
    ) -> FsResult<Found> {
        if let Some(event) = self.relayed(caller) {
            return self.relay_make_directory(&event?, within, &name);
        }
        let _change = self.admit(caller, Begun::New(within, &name)).await?;
        self.make_empty_directory(caller, within, name, mode).await
    }

    /// rmdir(2): of a directory without keys, files and directories.
    pub async fn remove_directory(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
    ) -> FsResult<()> {
        match self.relayed(caller) {
            Some(event) => self.relay_remove_directory(&event?, within, &name),
            None => self.remove_empty_directory(caller, within, name).await,
        }
    }
}
