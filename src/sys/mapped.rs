//! Files that processes share by mapping them. Who touches a page that such a file has no longer, or for which its disk
//! has no block, is sent SIGBUS and ends: here the file gets it back, filled with zeros, and the thread goes on.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// How many files can be kept; a process has one for each database.
const PLACES: usize = 32;

/// As many times in a row a page is touched again without one having been missing: other threads may have been sent the
/// signal for the same page. More often, it is about something else.
const STRIKES: u32 = 1_000;

struct Place {
    /// Plus one; 0 if there is none yet.
    file: AtomicI32,
    size: AtomicI64,
}

#[allow(clippy::declare_interior_mutable_const, reason = "the initial value of each place")]
const NOTHING: Place = Place { file: AtomicI32::new(0), size: AtomicI64::new(0) };
static PLACES_OF_FILES: [Place; PLACES] = [NOTHING; PLACES];
static MENDED: AtomicU64 = AtomicU64::new(0);
static STRUCK: AtomicU32 = AtomicU32::new(0);

/// Keeps the first `size` bytes of `file` there and on the disk, from now to the end of the process, and `more` reserved on
/// the disk. The file is never closed: that would end the locks that this process has on it.
pub fn keep(file: &'static File, size: u64, more: u64) -> io::Result<()> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(handle_bus_errors);
    let (size, more) = (bytes(size)?, bytes(more)?);
    let fd = file.as_raw_fd();
    let free = |place: &&Place| {
        let taken = place.file.compare_exchange(0, -1, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok()
    };
    if let Some(place) = PLACES_OF_FILES.iter().find(free) {
        place.size.store(size, Ordering::Release);
        place.file.store(fd + 1, Ordering::Release);
    }
    // SAFETY: the descriptor is open, and stays so.
    let done = unsafe {
        if libc::fallocate(fd, 0, 0, size) == 0 {
            libc::fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, size, more)
        } else {
            -1
        }
    };
    let error = io::Error::last_os_error();
    // Where space cannot be reserved none is missing later either.
    if done == 0 || error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}

/// How many times something was missing in such a file: it has zeros where it had something else.
pub fn mended() -> u64 {
    MENDED.load(Ordering::Acquire)
}

fn bytes(count: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(count).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn handle_bus_errors() {
    let handler: extern "C" fn(libc::c_int) = on_bus_error;
    // SAFETY: zeros are a valid sigaction, all pointers outlive the calls, and the handler calls nothing but what may be
    // called in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus_error(_signal: libc::c_int) {
    let missing = PLACES_OF_FILES.iter().filter(|place| mend(place)).count();
    if missing > 0 {
        MENDED.fetch_add(1, Ordering::AcqRel);
        STRUCK.store(0, Ordering::Release);
    } else if STRUCK.fetch_add(1, Ordering::AcqRel) >= STRIKES {
        // SAFETY: signal may be called in a handler. The page is touched again, and ends the process.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// Gives a file back what it lacks. Whether it was shorter than it should be.
fn mend(place: &Place) -> bool {
    let fd = place.file.load(Ordering::Acquire) - 1;
    if fd < 0 {
        return false;
    }
    let size = place.size.load(Ordering::Acquire);
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the descriptor is never closed, `found` outlives the call and is read only if that has filled it in, and errno,
    // which the interrupted code may be about to look at, is put back.
    unsafe {
        let errno = *libc::__errno_location();
        let short = libc::fstat(fd, found.as_mut_ptr()) == 0 && found.assume_init().st_size < size;
        if libc::fallocate(fd, 0, 0, size) != 0 && short {
            libc::ftruncate(fd, size);
        }
        *libc::__errno_location() = errno;
        short
    }
}
