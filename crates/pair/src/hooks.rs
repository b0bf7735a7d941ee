//! Hooks: programs and web addresses that learn of every change of role.
//!
//! Level-triggered: each hook is called with the newest change until it succeeds, and a change that
//! a newer one has overtaken is not told any more. Required hooks are called before a promotion
//! opens for traffic, too, and hold it up until they succeed.
//!
//! Invariant: a hook never holds up the driver; a call ends after `hook_timeout_ms`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotspare_failover::{BootTime, Epoch, Role};
use serde::Serialize;
use tokio::sync::watch;

use crate::config::PairBounds;
use crate::{hook_exec, webhook};

/// Something to call when the role changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// For logs.
    pub name: String,
    /// What to call.
    pub target: HookTarget,
    /// A promotion waits for it.
    pub required: bool,
}

/// What a hook calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookTarget {
    /// A program; it succeeds with exit status 0.
    Exec {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
    /// A POST with a JSON body; it succeeds with a status of 2xx.
    Webhook {
        /// Where to.
        url: String,
    },
}

/// What a hook is told: environment of a program, body of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookEvent {
    /// `role-changed`, or `promote` for a required hook before traffic is admitted.
    pub event: &'static str,
    /// The role now.
    pub role: Role,
    /// The role before.
    pub prev_role: Role,
    /// The epoch.
    pub epoch: Epoch,
    /// This node.
    pub node: String,
    /// The peer, where it is known.
    pub peer: String,
    /// The operator's reason, or the machine's.
    pub reason: String,
    /// Who asked for it; empty when nobody did.
    pub requested_by: String,
    /// The operation behind it, 32 hexadecimal digits, or empty.
    pub op_id: String,
    /// What is served is less than what was ordered.
    pub degraded: bool,
    /// The content hash of the model.
    pub model_root: String,
    /// When, in milliseconds of this node's boot-time clock.
    pub boot_ms: BootTime,
}

impl HookEvent {
    /// The environment of a program.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 11] {
        [
            ("HA_EVENT", self.event.to_owned()),
            ("HA_ROLE", self.role.to_string()),
            ("HA_PREV_ROLE", self.prev_role.to_string()),
            ("HA_EPOCH", self.epoch.to_string()),
            ("HA_NODE", self.node.clone()),
            ("HA_PEER", self.peer.clone()),
            ("HA_REASON", self.reason.clone()),
            ("HA_REQUESTED_BY", self.requested_by.clone()),
            ("HA_OP_ID", self.op_id.clone()),
            ("HA_DEGRADED", u8::from(self.degraded).to_string()),
            ("HA_MODEL_ROOT", self.model_root.clone()),
        ]
    }
}

impl Hook {
    /// Calls it once.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub(crate) async fn call(&self, event: &HookEvent, timeout_ms: u64) -> Result<(), String> {
        match &self.target {
            HookTarget::Exec { program, args } => {
                hook_exec::run(program, args, event, timeout_ms).await
            }
            HookTarget::Webhook { url } => webhook::post(url, event, timeout_ms).await,
        }
    }
}

/// All hooks of a node, each with a task that follows the newest event.
pub(crate) struct HookRunner {
    hooks: Arc<[Hook]>,
    newest: watch::Sender<Option<Arc<HookEvent>>>,
    timeout_ms: u64,
    failures: Arc<AtomicU64>,
}

impl HookRunner {
    /// Starts the tasks, on the runtime of the caller.
    pub(crate) fn start(hooks: &[Hook], timeout_ms: u64, bounds: PairBounds) -> Self {
        let (newest, _) = watch::channel(None);
        let failures = Arc::new(AtomicU64::new(0));
        for hook in hooks {
            let follow = Follow {
                hook: hook.clone(),
                newest: newest.subscribe(),
                timeout_ms,
                bounds,
                failures: Arc::clone(&failures),
            };
            tokio::spawn(follow.run());
        }
        Self {
            hooks: hooks.into(),
            newest,
            timeout_ms,
            failures,
        }
    }

    /// Tells all hooks, in the background.
    pub(crate) fn tell(&self, event: HookEvent) {
        self.newest.send_replace(Some(Arc::new(event)));
    }

    pub(crate) fn num_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Calls the required hooks, all at once; whether each succeeded.
    pub(crate) fn required(&self, event: HookEvent) -> impl Future<Output = bool> + use<> {
        let (hooks, timeout_ms) = (Arc::clone(&self.hooks), self.timeout_ms);
        let failures = Arc::clone(&self.failures);
        async move {
            let calls = hooks.iter().filter(|hook| hook.required).map(|hook| {
                let event = &event;
                async move { (hook, hook.call(event, timeout_ms).await) }
            });
            let mut all = true;
            for (hook, result) in futures::future::join_all(calls).await {
                if let Err(why) = result {
                    failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(hook = hook.name, why, "a required hook failed");
                    all = false;
                }
            }
            all
        }
    }
}

/// One hook's task.
struct Follow {
    hook: Hook,
    newest: watch::Receiver<Option<Arc<HookEvent>>>,
    timeout_ms: u64,
    bounds: PairBounds,
    failures: Arc<AtomicU64>,
}

impl Follow {
    async fn run(mut self) {
        while self.newest.changed().await.is_ok() {
            let event = self.newest.borrow_and_update().clone();
            let Some(event) = event else { continue };
            if self.tell(&event).await.is_err() {
                return;
            }
        }
    }

    /// Until it succeeds, or there is a newer event, or it failed too often.
    async fn tell(&mut self, event: &HookEvent) -> Result<(), watch::error::RecvError> {
        let mut pause_ms = self.bounds.hook_retry_ms;
        for _ in 0..self.bounds.max_num_hook_attempts {
            let Err(why) = self.hook.call(event, self.timeout_ms).await else {
                return Ok(());
            };
            self.failures.fetch_add(1, Ordering::Relaxed);
            let name = &self.hook.name;
            tracing::warn!(
                hook = name,
                why,
                pause_ms,
                "a hook failed and is called again"
            );
            tokio::select! {
                changed = self.newest.changed() => {
                    self.newest.mark_changed();
                    return changed;
                }
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
            pause_ms = (2 * pause_ms).min(self.bounds.hook_max_retry_ms);
        }
        tracing::error!(
            hook = self.hook.name,
            "a hook failed too often and is left alone"
        );
        Ok(())
    }
}

#[cfg(test)]
#[path = "hooks_test.rs"]
mod tests;
