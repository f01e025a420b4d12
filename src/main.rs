//! The `kvfs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvfs::cli::run()
}
