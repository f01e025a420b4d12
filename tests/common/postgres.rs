//! PostgreSQL as its package has it, in a directory of its own, for a server that keeps its data there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the programs of the newest PostgreSQL are; `None`, with a line that says why, where there is none.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.retain(|bin| bin.join("postgres").exists());
    versions.sort();
    let newest = versions.pop();
    if newest.is_none() {
        let missing = "PostgreSQL is missing: run scripts/setup";
        assert!(std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "{missing}");
        eprintln!("skipped: {missing}");
    }
    newest
}

/// The settings of a Prefect server for the database below `home`.
pub(crate) fn url(home: &Path) -> String {
    format!("postgresql+asyncpg://prefect@/prefect?host={}", home.join("db").display())
}

/// Starts PostgreSQL with its data below `home`, and `server` beside it; it is ended when `server` ends. It refuses to run
/// as root, and has a user of its own for that.
pub(crate) fn beside(programs: &Path, server: &Command, home: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args([
        "-ec",
        r#"bin=$1 db=$2; shift 2
           chmod 711 "${db%/*}"
           mkdir "$db"
           as=
           if [ "$(id -u)" = 0 ]; then as="runuser -u postgres --"; chown postgres "$db"; fi
           $as "$bin/initdb" -D "$db" -A trust -U prefect --no-sync
           $as "$bin/postgres" -D "$db" -c listen_addresses= -c unix_socket_directories="$db" -c fsync=off & postgres=$!
           trap 'kill $server
                 kill -INT "$(head -1 "$db/postmaster.pid")"
                 for _ in 1 2 3 4 5 6 7; do kill -0 $server || break; sleep 1; done
                 kill -9 $server' EXIT
           trap exit TERM
           server=
           until "$bin/createdb" -h "$db" -U prefect prefect; do kill -0 $postgres; sleep 0.1; done
           "$@" & server=$!
           wait $server"#,
        "sh",
    ]);
    command.arg(programs).arg(home.join("db")).arg(server.get_program()).args(server.get_args());
    command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Runs a statement in the database below `home`.
pub(crate) fn run(programs: &Path, home: &Path, statement: &str) {
    let mut psql = Command::new(programs.join("psql"));
    psql.args(["-qX", "-U", "prefect", "-d", "prefect", "-c", statement]).arg("-h").arg(home.join("db"));
    let out = psql.output().unwrap();
    assert!(out.status.success(), "{out:?}");
}
