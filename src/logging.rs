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
    let mut shown = String::with_capacity(line.len());
    for char in line.chars() {
        if char.is_control() {
            shown.extend(char.escape_debug());
        } else {
            shown.push(char);
        }
    }
    eprintln!("kvfs: {shown}");
}
