//! The process of an engine: how it ends, and who ended it.
//!
//! Invariant: signals go to a process that was not waited for, so to no other one; a process that
//! does not end by itself is killed.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::timeout;

use crate::target::LossCause;

/// A process that may have ended; none for an engine on threads of this one.
pub(crate) struct EngineProcess {
    child: Option<Child>,
    /// A signal of ours was sent: its end tells nothing of its own any more.
    is_signalled: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// For people.
    pub(crate) text: String,
    /// Who may be to blame.
    pub(crate) cause: LossCause,
}

impl EngineProcess {
    pub(crate) fn new(child: Option<Child>) -> Self {
        Self {
            child,
            is_signalled: false,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its end, if that comes within `wait`.
    pub(crate) async fn exit_within(&mut self, wait: Duration) -> Option<Exit> {
        let child = self.child.as_mut()?;
        let status = timeout(wait, child.wait()).await.ok()?;
        Some(self.exit(status))
    }

    /// Waits `wait` for it, and then kills it. It ends by itself when its socket is closed, unless
    /// something in it is stuck; other signals it does not heed.
    pub(crate) async fn reap(&mut self, wait: Duration) -> String {
        if self.child.is_none() {
            return "it ran in this process".to_owned();
        }
        if let Some(exit) = self.exit_within(wait).await {
            return exit.text;
        }
        tracing::warn!(
            pid = self.pid(),
            "The engine process does not end; killing it."
        );
        self.is_signalled = true;
        let Some(child) = self.child.as_mut() else {
            return String::new();
        };
        // A stopped process can be killed too; one in the kernel ends when it comes back.
        let status = match child.start_kill() {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        };
        self.exit(status).text
    }

    fn exit(&self, status: std::io::Result<ExitStatus>) -> Exit {
        match status {
            Ok(status) => Exit {
                text: status.to_string(),
                cause: match self.is_signalled {
                    true => LossCause::Own,
                    false => cause_of(status),
                },
            },
            Err(error) => Exit {
                text: format!("its exit status is unknown: {error}"),
                cause: LossCause::Own,
            },
        }
    }
}

/// SIGKILL and SIGTERM come from outside: an operator, a drill, the kernel when memory is short.
/// Every other end is the engine's own.
fn cause_of(status: ExitStatus) -> LossCause {
    const FROM_OUTSIDE: [i32; 2] = [Signal::KILL.as_raw(), Signal::TERM.as_raw()];
    match status.signal() {
        Some(signal) if FROM_OUTSIDE.contains(&signal) => LossCause::Outside,
        _ => LossCause::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> EngineProcess {
        let child = tokio::process::Command::new("/bin/sh")
            .args(["-c", script])
            .kill_on_drop(true)
            .spawn();
        EngineProcess::new(Some(child.expect("there is a shell")))
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_ended_it_is_told_by_the_status() {
        for (script, text, cause) in [
            ("kill -KILL $$", "SIGKILL", LossCause::Outside),
            ("kill -TERM $$", "SIGTERM", LossCause::Outside),
            ("kill -SEGV $$", "SIGSEGV", LossCause::Own),
            ("exit 4", "exit status: 4", LossCause::Own),
            ("exit 0", "exit status: 0", LossCause::Own),
        ] {
            let exit = shell(script).exit_within(PATIENCE).await.expect(script);
            assert!(exit.text.contains(text), "{script}: {}", exit.text);
            assert_eq!(exit.cause, cause, "{script}");
        }
    }

    #[tokio::test]
    async fn what_does_not_end_is_killed() {
        let mut asleep = shell("exec sleep 600");
        assert_eq!(asleep.exit_within(Duration::from_millis(1)).await, None);
        let text = asleep.reap(Duration::from_millis(1)).await;
        assert!(text.contains("SIGKILL"), "{text}");
        // A stopped process, too.
        let mut stopped = shell("kill -STOP $$");
        let stat = format!("/proc/{}/stat", stopped.pid().expect("it runs"));
        let is_stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        while !is_stopped() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let text = stopped.reap(Duration::from_millis(1)).await;
        assert!(text.contains("SIGKILL"), "{text}");
        let text = EngineProcess::new(None).reap(PATIENCE).await;
        assert_eq!(text, "it ran in this process");
    }
}
