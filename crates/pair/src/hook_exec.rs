//! A hook that is a program.
//!
//! It runs in a process group of its own, with the documented environment, no input, and its
//! messages on the server's standard error.
//!
//! Invariant: when its time is over the whole group is killed, so nothing that it started with it
//! lives on.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::hooks::HookEvent;

/// Kills a process group when it is dropped, unless its leader has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            // It may have ended meanwhile.
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }
}

pub(crate) async fn run(
    program: &Path,
    args: &[String],
    event: &HookEvent,
    timeout_ms: u64,
) -> Result<(), String> {
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .envs(event.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    let mut group = Group(pid);
    let wait = tokio::time::timeout(Duration::from_millis(timeout_ms), child.wait());
    let Ok(status) = wait.await else {
        drop(group);
        // Reaped, so that no zombie is left; it cannot ignore SIGKILL.
        let _status = child.wait().await;
        return Err(format!("still running after {timeout_ms} ms: killed"));
    };
    group.0 = None;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", program.display())),
        Err(error) => Err(error.to_string()),
    }
}
