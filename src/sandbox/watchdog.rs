//! The sandbox's folder, and the watchdog that cleans up if this process cannot.
//!
//! Dropping a sandbox kills its servers and removes its folder. That is not enough: a killed
//! process drops nothing, nor does one whose sandbox is in a `static`. The kernel's parent-death
//! signal does not help: it is sent when the *thread* that started the child ends, which in a test
//! is soon. So each sandbox has a shell that reads from a pipe to which only this process can
//! write. The end of the pipe means that this process has ended or no longer needs the sandbox: the
//! shell kills the processes that the folder's pid files name and removes the folder. The shell is
//! in a process group of its own and ignores the terminal's signals, so that Ctrl-C does not end
//! it.

use super::{Error, Result};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The watchdog. Three rounds, for a server that is just being started: its pid file comes first.
const SCRIPT: &str = r#"
PATH=/usr/bin:/bin
trap '' INT TERM HUP
while read -r _; do :; done
for round in 1 2 3; do
    [ -d "$1" ] || exit 0
    for file in "$1"/*/pid; do
        [ -f "$file" ] && kill -KILL "$(cat "$file")"
    done
    sleep 0.1
done
rm -rf "$1"
"#;

/// Writes its own process ID to a file, then executes the server, which keeps the ID.
const LAUNCHER: &str = r#"echo $$ >"$1" && shift && exec "$@""#;

/// The sandbox's temporary folder. Must be dropped after the servers in it.
#[derive(Debug)]
pub(super) struct SandboxDir {
    /// `None` once it has been removed.
    dir: Option<TempDir>,
    path: PathBuf,
    /// Runs as long as its standard input is open.
    watchdog: Child,
}

impl SandboxDir {
    pub(super) fn new() -> Result<SandboxDir> {
        let dir = tempfile::Builder::new()
            .prefix("slotway-sandbox-")
            .tempdir()
            .map_err(Error::io("making a temporary folder"))?;
        let path = dir.path().to_path_buf();
        let watchdog = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "slotway-sandbox-watchdog"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("starting the watchdog"))?;
        Ok(SandboxDir { dir: Some(dir), path, watchdog })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder `name`, where a process can put its pid file.
    pub(super) fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path.join(name);
        fs::create_dir_all(&dir)
            .map_err(Error::io(format!("making the folder {}", dir.display())))?;
        Ok(dir)
    }
}

impl Drop for SandboxDir {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take() {
            // Should this fail, the watchdog tries again.
            let _ = dir.close();
        }
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// The pid file in `dir`, by which the watchdog knows the process.
pub(super) fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pid")
}

/// A command that runs `program`, which the watchdog knows from its first moment.
pub(super) fn guarded(dir: &Path, program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", LAUNCHER, "sh"]).arg(pid_file(dir)).arg(program);
    command.process_group(0);
    command
}
