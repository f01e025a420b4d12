//! Rule 4: programs hear of a set that failed where they look, whatever it failed for.

use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use crate::common::proxy::{Fault, Proxy, response};
use crate::common::serve::{KEY, Server};
use crate::common::{Mount, PATIENCE, can_mount, errno, wait_for};

/// Programs that write `$BESIDE/text` to the file `k` where they are.
const WRITERS: [(&str, &str); 9] = [
    ("bash", "echo \"$(cat $BESIDE/text)\" > k"),
    ("bash", "printf '%s\\n' \"$(cat $BESIDE/text)\" > k"),
    ("bash", "{ echo [; echo \"$(cat $BESIDE/text)\"; echo ]; } > k"),
    ("dash", "echo \"$(cat $BESIDE/text)\" > k"),
    ("sh", "cp $BESIDE/text k"),
    ("sh", "tee k < $BESIDE/text > /dev/null"),
    ("sh", "dd if=$BESIDE/text of=k"),
    ("python3", "import os\nwith open('k', 'w') as f: f.write(open(os.environ['BESIDE'] + '/text').read())"),
    ("node", "let fs = require('fs'); fs.writeFileSync('k', fs.readFileSync(process.env.BESIDE + '/text'))"),
];

fn run(mount: &Mount, program: &str, script: &str) -> Option<(bool, String)> {
    let option = if program == "node" { "-e" } else { "-c" };
    let mut command = Command::new(program);
    command
        .args([option, script])
        .current_dir(&mount.dir)
        .env("BESIDE", mount.home.path())
        .env("LC_ALL", "C");
    let out = command.output().ok()?;
    Some((out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

#[test]
fn rule_04_each_program_hears_of_each_failure() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let proxy = Proxy::before(&server.address);
    let args = ["--max-age", "50ms", "--timeout", "1s"];
    let mount = Mount::prefect_cloud(&proxy.address, KEY, &args);
    let answer = |status: &str| Fault::Answer(response(status, "", ""));
    // Python writes six characters for each of these.
    let (text, long) = ("{\"new\":1}\n".to_owned(), format!("\"{}\"\n", "é".repeat(2_000)));
    for (fault, text, told, name) in [
        (Fault::Refuse, &text, "No route to host", "EHOSTUNREACH"),
        (answer("401 Unauthorized"), &text, "Permission denied", "EACCES"),
        (answer("429 Too Many Requests"), &text, "Device or resource busy", "EBUSY"),
        (Fault::LoseAnswer("mutation"), &text, "Connection timed out", "ETIMEDOUT"),
        (Fault::None, &long, "File too large", "EFBIG"),
    ] {
        fs::write(mount.home.path().join("text"), text).unwrap();
        for (program, script) in WRITERS {
            proxy.set(&Fault::None);
            wait_for(PATIENCE, || errno(fs::write(mount.path("k"), "0")) == 0);
            proxy.set(&fault);
            // What was read so far is too old then.
            thread::sleep(Duration::from_millis(60));
            let Some((succeeded, stderr)) = run(&mount, program, script) else { continue };
            let said = stderr.contains(told) || stderr.contains(name);
            // It has one word for all.
            let said = said || program == "dash" && stderr.contains("I/O error");
            assert!(!succeeded && said, "{told}: {program} {script}: {stderr:?}");
        }
    }
    proxy.set(&Fault::None);
}
