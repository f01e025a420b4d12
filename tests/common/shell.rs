//! A shell that a test tells what to do.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A shell whose working directory is in the mount.
pub struct Shell {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Shell {
    pub fn at(directory: &Path) -> Self {
        let mut shell = Command::new("bash");
        shell.env("LC_ALL", "C");
        let shell = shell.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers) }
    }

    /// What the script says, in one line.
    pub fn says(&mut self, script: &str) -> String {
        writeln!(self.orders, "echo $( ( {script} ) 2>&1 )").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Where it is, as the kernel has it, and as it is found by the names on the way.
    pub fn place(&mut self) -> String {
        let (kernels, found) = (self.says("readlink /proc/self/cwd"), self.says("/bin/pwd"));
        assert_eq!(found, kernels);
        assert_eq!(self.says("python3 -c 'import os; print(os.getcwd())'"), kernels);
        kernels
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
