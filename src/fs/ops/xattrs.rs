//! Extended attributes `user.kvfs.*`: what a store knows of a key, and the reason behind the last errno.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::fs::core::Fs;
use crate::fs::rejected::Lost;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::join;
use crate::fs::state::nodes::Body;
use crate::fs::types::{Ino, ROOT};

const PREFIX: &str = "user.kvfs.";
/// The one that can be set, and that is listed: a JSON array of strings. All others are computed, and would be copied to other
/// files by whoever copies what is listed.
const TAGS: &str = "tags";
/// What changed from now on; followed by a dot and a cursor, what changed after it.
const CHANGES: &str = "changes";
/// Has the store asked: empty if it answers, else why not.
const CHECK: &str = "check";

impl Fs {
    /// How many texts could not be published and were kept as rejected.
    pub fn rejected(&self) -> u64 {
        self.rejected.rejected()
    }

    /// How many files and directories are in no store, and of how many attributes are kept.
    pub fn unstored(&self) -> (usize, usize) {
        let used = self.state.lock().used();
        (used.names, used.attributes)
    }

    /// Texts that were neither published nor kept.
    pub fn lost(&self) -> Option<Lost> {
        self.rejected.lost()
    }

    /// The path of an inode, for messages.
    pub fn name_of(&self, ino: Ino) -> String {
        self.state.lock().inode(ino).map_or_else(|_| ".".into(), |inode| inode.name.clone())
    }

    /// The path of a name in a directory, for messages.
    pub fn path_of(&self, within: Ino, name: &str) -> String {
        let within = self.state.lock().directory_path(within).unwrap_or_default();
        join(&within, name)
    }

    /// Names of the attributes of an inode that are data.
    pub fn list_xattrs(&self, ino: Ino) -> FsResult<Vec<String>> {
        if ino == ROOT || !self.cache.limits().tags {
            return Ok(Vec::new());
        }
        Ok(match self.state.lock().inode(ino)?.body {
            Body::Key(_) => vec![format!("{PREFIX}{TAGS}")],
            Body::Directory | Body::Local(_) | Body::Draft(_) => Vec::new(),
        })
    }

    /// The value of one attribute.
    pub async fn get_xattr(self: Arc<Self>, ino: Ino, name: String) -> FsResult<String> {
        let Some(name) = name.strip_prefix(PREFIX) else {
            // `ls -l` asks every file for its security label until it hears that there can be none.
            return Err(if name.starts_with("user.") { FsError::NoAttribute } else { FsError::NotSupported });
        };
        if name == CHECK {
            return Ok(self.cache.check().await.err().map_or_else(String::new, |error| error.to_string()));
        }
        if let Some(cursor) = name.strip_prefix(CHANGES) {
            return self.changes_after(ino, cursor.trim_start_matches('.')).await;
        }
        if ino == ROOT {
            return match name {
                "store" => Ok(self.cache.name().to_owned()),
                "last_error" => Ok(self.last_error().map_or_else(String::new, |last| last.to_string())),
                _ => Err(FsError::NoAttribute),
            };
        }
        let (file, key, meta, directory) = {
            let state = self.state.lock();
            let inode = state.inode(ino)?;
            let meta = if let Body::Key(meta) = &inode.body { Some(meta.clone()) } else { None };
            (inode.name.clone(), inode.key.clone(), meta, matches!(inode.body, Body::Directory))
        };
        if directory && name == "store" {
            return Ok(self.cache.name().to_owned());
        }
        if name == "last_error" {
            return self.last_error_of(&file).map(|last| last.to_string()).ok_or(FsError::NoAttribute);
        }
        let meta = meta.ok_or(FsError::NoAttribute)?;
        match name {
            "id" => Ok(meta.id.to_string()),
            "revision" => Ok(meta.revision.0.to_string()),
            "created" => Ok(seconds(meta.created)),
            "store" => Ok(self.cache.name().to_owned()),
            TAGS if self.cache.limits().tags => Ok(json!(self.cache.get_tags(&key).await?).to_string()),
            "ttl" => {
                let left = self.cache.get_ttl(&key).await?.ok_or(FsError::NoAttribute)?;
                Ok(left.as_secs().to_string())
            }
            "age" => {
                let age = self.cache.get_key_value(&key).await?.age;
                let age = if self.cache.is_pushed() { std::time::Duration::ZERO } else { age };
                Ok(format!("{:.3}", age.as_secs_f64()))
            }
            _ => Err(FsError::NoAttribute),
        }
    }
}

impl Fs {
    /// Sets an attribute: the tags of a key, as a JSON array of strings, and no other.
    pub async fn set_xattr(self: Arc<Self>, ino: Ino, name: String, value: Vec<u8>) -> FsResult<()> {
        self.writable()?;
        let tags = name.strip_prefix(PREFIX).is_some_and(|name| name == TAGS) && self.cache.limits().tags;
        let key = {
            let state = self.state.lock();
            let inode = state.inode(ino).ok().filter(|inode| tags && matches!(inode.body, Body::Key(_)));
            inode.ok_or(FsError::NotSupported)?.key.clone()
        };
        let tags: Vec<String> = serde_json::from_slice(&value).map_err(|_| FsError::Tags)?;
        Ok(self.cache.set_tags(&key, &tags).await?)
    }
}

/// Seconds since 1970 with milliseconds.
fn seconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}", since.as_secs(), since.subsec_millis())
}
