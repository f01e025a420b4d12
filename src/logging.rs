//! Log lines, and the lines for the person who started this process. What comes from elsewhere gets there as text only.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::sys;

/// Target of the lines that tell of starts and ends; they are logged where warnings are.
pub const LIFE: &str = "kvfs::life";
/// A log file that is larger is started anew.
const LIMIT: u64 = 10 << 20;

/// The file that lines go to; without one it is standard error.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    path: PathBuf,
    file: File,
}

/// `text` with all that a terminal, or a reader of lines, takes for more than text written out: control characters,
/// separators of lines, and what changes the direction of writing.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if is_more_than_text(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// A line of JSON as [`shown`] makes it of other texts. It means the same.
pub fn shown_json(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for char in line.chars() {
        if is_more_than_text(char) {
            // All of them are in the first plane.
            _ = write!(shown, "\\u{:04x}", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    shown
}

fn is_more_than_text(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Logs to standard error what `level` lets through, an `EnvFilter` directive. `about` is what all lines are about.
pub fn to_stderr(level: &str, about: &str) {
    let life = if level == "error" { String::new() } else { format!(",{LIFE}=info") };
    // fuser warns of an unmount by others, which is how a mount usually ends; the verifier tells what an error tells again.
    let filter =
        tracing_subscriber::EnvFilter::new(format!("{level},fuser=error,rustls_platform_verifier=off{life}"));
    let about = if about.is_empty() { String::new() } else { format!("{}: ", shown(about)) };
    // Fails only if a subscriber is set already.
    _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Output)
        .event_format(Line { about })
        .try_init();
}

/// From now on lines go to the file at `path`, as does all that is written to standard error.
pub fn to_file(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    sys::redirect_standard_error(&file)?;
    *LOG.lock() = Some(Log { path: path.to_owned(), file });
    Ok(())
}

/// Opens the log file anew: another program may have moved it away.
pub fn reopen() {
    let Some(path) = LOG.lock().as_ref().map(|log| log.path.clone()) else { return };
    if let Err(error) = to_file(&path) {
        tracing::error!(
            "cannot open {} anew, so the log goes on in the file that was open: {error}",
            path.display()
        );
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        sys::create_private_dir_all(parent)?;
    }
    let file = sys::open_to_append(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// One line on standard error.
pub fn report(line: &str) {
    // Ignored: the reader of standard error may be gone.
    _ = writeln!(io::stderr(), "kvfs: {}", shown(line));
}

struct Output;

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A terminal that is gone, or a full disk, ends no daemon.
        _ = match &mut *LOG.lock() {
            Some(log) => log.write(line),
            None => io::stderr().write_all(line),
        };
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Other daemons may write to the same file; each appends.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.len() > LIMIT {
            self.file.set_len(0)?;
            self.file.write_all(b"(what was here is gone: the log had grown to its limit)\n")?;
        }
        self.file.write_all(line)
    }
}

/// How a line looks: time, level, what it is about, text.
struct Line {
    about: String,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, " {:>5} {}{}", event.metadata().level(), self.about, shown(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_text_is_written_out() {
        assert_eq!(shown("plain, tëxt 漢字 👍"), "plain, tëxt 漢字 👍");
        assert_eq!(shown("a\x1b[31m\nb\r\u{9b}2J\u{7f}"), "a\\u{1b}[31m\\nb\\r\\u{9b}2J\\u{7f}");
        assert_eq!(
            shown("abc\u{202e}fdp\u{2066}\u{2028}\u{200f}"),
            "abc\\u{202e}fdp\\u{2066}\\u{2028}\\u{200f}"
        );
        let json = serde_json::to_string("a\u{202e}\u{9b}\x1b").unwrap();
        let shown = shown_json(&json);
        assert_eq!(shown, "\"a\\u202e\\u009b\\u001b\"");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "a\u{202e}\u{9b}\x1b");
    }
}
