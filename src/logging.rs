//! Log lines.

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
