//! Files in a directory that others may write to.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the regular file at `name` in `directory` has, up to `most` bytes. Symbolic links are not followed, on the way neither, and
/// nothing is waited for (openat2(2), Linux 5.6).
pub fn read(directory: &Path, name: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = open(&File::open(directory)?, name)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(most as u64).read_to_end(&mut text)?;
    Ok(text)
}

fn open(directory: &File, name: &Path) -> io::Result<File> {
    let name = CString::new(name.as_os_str().as_bytes())?;
    // SAFETY: all zeros is one.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
    let (directory, size) = (directory.as_raw_fd(), size_of::<libc::open_how>());
    // SAFETY: `name` is a NUL-terminated string, and `how` of this size; both outlive the call.
    let file = unsafe { libc::syscall(libc::SYS_openat2, directory, name.as_ptr(), &raw const how, size) };
    let file = i32::try_from(file).ok().filter(|file| *file >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the descriptor was made by the call, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(file) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed_and_no_more_is_read_than_is_asked_for() {
        let home = tempfile::TempDir::new().unwrap();
        let at = |name: &str| home.path().join(name);
        for directory in ["in/d", "out"] {
            std::fs::create_dir_all(at(directory)).unwrap();
            std::fs::write(at(directory).join("k"), "12345").unwrap();
        }
        symlink(at("out"), at("in/linked")).unwrap();
        symlink(at("out/k"), at("in/k")).unwrap();
        let text = |name: &str| read(&at("in"), Path::new(name), 3).ok();
        assert_eq!(text("d/k").as_deref(), Some(&b"123"[..]));
        for name in ["linked/k", "k", "../out/k", "d", "none"] {
            assert_eq!(text(name), None, "{name}");
        }
    }
}
