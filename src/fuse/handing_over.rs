//! The messages by which another daemon takes the mount over, and those that wait for that.

use std::ffi::OsStr;

use fuser::{Errno, FileHandle, INodeNo, ReplyIoctl, Request};

use super::adapter::Adapter;
use super::answer::Step;
use super::messages::Op;
use super::{ANSWER, HAND_OVER, NEXT_GUESTS};
use crate::fs::{Access, Caller, Found, FsError, FsResult, Ino, Opened, ROOT};

/// A file that was created and opened.
type Created = (Found, Opened);

impl Adapter {
    /// Creates a file; if the mount may be about to be handed over, in time.
    pub(super) fn create_or_wait(
        &self,
        caller: Caller,
        (within, name): (Ino, &OsStr),
        mode: u32,
        access: Access,
        exclusive: bool,
    ) -> FsResult<Step<Created, impl Future<Output = FsResult<Created>> + use<>>> {
        let name = name.to_str().ok_or(FsError::BadName)?;
        if let Some(_change) = self.fs.begin_change() {
            return self.fs.create(caller, (within, name), mode, access, exclusive).map(Step::Done);
        }
        let place = (within, name.to_owned());
        Ok(Step::Wait(self.fs.clone().create_in_time(caller, place, mode, access, exclusive)))
    }

    /// The directories come to know that `fh` is closed, and who may have asked for the mount by it.
    pub(super) fn close_directory(&self, fh: FileHandle) {
        self.directories.remove(fh);
        self.fs.end_hand_over(fh.0);
    }

    /// ioctl(2): of root, on the root directory.
    pub(super) fn hand_over(
        &self,
        request: &Request,
        (ino, fh): (INodeNo, FileHandle),
        command: u32,
        reply: ReplyIoctl,
    ) {
        if ino.0 != ROOT.0 || request.uid() != 0 || ![HAND_OVER, NEXT_GUESTS].contains(&command) {
            self.answers.count(Op::IoCtl);
            return reply.error(Errno::ENOTTY);
        }
        let fs = self.fs.clone();
        let answer = async move {
            if command == HAND_OVER {
                return Ok(shortened(&fs.hand_over(fh.0).await?));
            }
            let guests = fs.next_guests(fh.0, ANSWER - 2).ok_or(FsError::Argument)?;
            Ok(serde_json::json!(guests).to_string())
        };
        self.answers.give(Op::IoCtl, ino, answer, |result| match result {
            Ok(text) => reply.ioctl(i32::try_from(text.len()).unwrap_or(0), text.as_bytes()),
            Err(errno) => reply.error(errno),
        });
    }
}

/// At most so much as an answer holds.
fn shortened(text: &str) -> String {
    text.chars().take(ANSWER / 4).collect()
}
