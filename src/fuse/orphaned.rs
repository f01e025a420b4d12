//! Answers in the place of a daemon that was killed, where nobody may abort its connection.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use super::MAX_WRITE;
use super::notify::resend;

/// The kernel gives out no request where a WRITE would not fit.
const BUFFER: usize = MAX_WRITE as usize + (64 << 10);
/// `fuse_in_header` begins with the length, the opcode and the number of the request.
const HEADER: usize = 16;
/// FORGET, INTERRUPT and `BATCH_FORGET`, which have no answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];
/// Time between two looks at what the daemon has taken and not answered.
const TICK: Duration = Duration::from_millis(10);

/// Answers every request with the error of an aborted connection until the daemon has `ended`: a thread of it that waits in the
/// kernel for one of those who wait for an answer keeps the connection open till then.
pub fn refuse_all(device: &File, ended: impl Fn() -> bool) -> io::Result<()> {
    let requests = device.try_clone()?;
    // Ends with this process: it waits for a request.
    std::thread::Builder::new().name("kvfs-refusals".into()).spawn(move || refuse(&requests))?;
    while !ended() {
        // What the daemon has taken is given out once more. Linux before 6.9 cannot: then those who wait for that wait on.
        _ = resend(device);
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn refuse(mut device: &File) {
    let mut request = vec![0; BUFFER];
    loop {
        match device.read(&mut request) {
            Ok(_) => _ = refusal(&request).map(|answer| device.write(&answer)),
            // Who asked has given up.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Interrupted) => {}
            // The mount has ended.
            Err(_) => return,
        }
    }
}

/// A `fuse_out_header` with an error, if the request has an answer.
fn refusal(request: &[u8]) -> Option<[u8; HEADER]> {
    let opcode = u32::from_ne_bytes(request.get(4..8)?.try_into().ok()?);
    let mut answer = [0; HEADER];
    answer[..4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
    answer[4..8].copy_from_slice(&(-libc::ECONNABORTED).to_ne_bytes());
    answer[8..].copy_from_slice(request.get(8..16)?);
    (!UNANSWERED.contains(&opcode)).then_some(answer)
}
