//! Log lines, and the lines for the person who started this process.

/// Logs what `level` lets through, an `EnvFilter` directive.
pub fn to_stderr(level: &str) {
    // fuser warns of an unmount by others, which is how a mount usually ends; the verifier tells what an error tells again.
    let filter =
        tracing_subscriber::EnvFilter::new(format!("{level},fuser=error,rustls_platform_verifier=off"));
    // Fails only if a subscriber is set already.
    _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init();
}

/// One line on standard error. What was typed, or came from elsewhere, gets to the terminal as text only.
pub fn tell(line: &str) {
    eprintln!("kvfs: {}", shown(line));
}

/// What was typed, or came from elsewhere, without anything that a terminal obeys: control characters, and those that turn
/// the direction of what follows.
pub fn shown(text: &str) -> String {
    let obeyed = |char: char| {
        let turns =
            matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        char.is_control() || turns
    };
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if obeyed(char) {
            shown.extend(char.escape_debug());
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let text = "a\u{1b}[2Jb\nc\u{9b}d\u{202e}e é 😀 %";
        assert_eq!(shown(text), "a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}e é 😀 %");
    }
}
