//! The sandbox's folder, and the watchdog that cleans up after a process that cannot.
//!
//! Dropping a sandbox kills its servers and removes its folder. That is not enough: a process that
//! is killed drops nothing, nor does one whose sandbox lives in a `static`. The kernel's
//! parent-death signal does not fit (it fires when the *thread* that started the child ends, which
//! in a test is soon). So each sandbox has a shell that reads from a pipe only this process
//! can write to. When the pipe ends, for whatever reason, this process is gone or done with it: the
//! shell kills what the folder's pid files name and removes the folder. It sits in a process group
//! of its own and ignores the terminal's signals, so a Ctrl-C does not take it along.

use super::{Error, Result};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The rounds are for a server that was just being started: it writes its pid file first of all.
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

/// Writes its own process ID to a file, then becomes the server, with the same ID.
const LAUNCHER: &str = r#"echo $$ >"$1" && shift && exec "$@""#;

/// The sandbox's temporary folder. Must be dropped after the servers in it.
#[derive(Debug)]
pub(super) struct Home {
    /// `None` once it was removed.
    dir: Option<TempDir>,
    path: PathBuf,
    /// Lives as long as its stdin is open.
    watchdog: Child,
}

impl Home {
    pub(super) fn new() -> Result<Home> {
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
        Ok(Home { dir: Some(dir), path, watchdog })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder `name`, in which a process may put its pid file.
    pub(super) fn room(&self, name: &str) -> Result<PathBuf> {
        let room = self.path.join(name);
        fs::create_dir_all(&room)
            .map_err(Error::io(format!("making the folder {}", room.display())))?;
        Ok(room)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take() {
            // Should this fail, the watchdog tries again.
            let _ = dir.close();
        }
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// The file in `room` by which the watchdog knows its process.
pub(super) fn pid_file(room: &Path) -> PathBuf {
    room.join("pid")
}

/// A command that runs `program` so that the watchdog knows of it from its first moment.
pub(super) fn guarded(room: &Path, program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", LAUNCHER, "sh"]).arg(pid_file(room)).arg(program);
    command.process_group(0);
    command
}
