//! Whether this node still reaches the world: connects to addresses that it should reach.
//!
//! A node that hears nothing of its peer cannot tell a dead peer from being cut off itself. If it
//! reaches none of its references either, it is the one that is cut off, and taking over would help
//! nobody.
//!
//! Invariant: no reference is asked more often than every `interval`, nor for longer than
//! `timeout`.

use std::time::Duration;

use futures::future::join_all;
use hotspare_failover::{Gate, Verdict};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The gate's name.
const NAME: &str = "references";

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct References {
    /// `HOST:PORT` each.
    pub(crate) targets: Vec<String>,
    /// Of which so many have to accept a connection.
    pub(crate) min_num: usize,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl References {
    /// Tells the verdict, first at once, then for ever. Returns only where there are none.
    pub(crate) async fn watch(self, tell: impl Fn(Gate)) {
        while !self.targets.is_empty() {
            tell(self.gate().await);
            sleep(self.interval).await;
        }
    }

    async fn gate(&self) -> Gate {
        let answers = join_all(self.targets.iter().map(|target| async move {
            let connected = timeout(self.timeout, TcpStream::connect(target)).await;
            matches!(connected, Ok(Ok(_)))
        }));
        let answers = answers.await;
        let num_reached = answers.iter().filter(|is_reached| **is_reached).count();
        if num_reached >= self.min_num {
            return Gate::pass(NAME);
        }
        let missing = self.targets.iter().zip(&answers);
        let missing: Vec<&str> = missing
            .filter(|(_, is_reached)| !**is_reached)
            .map(|(target, _)| target.as_str())
            .collect();
        let reason = format!(
            "isolated: {num_reached} of {} references are reached, {} are needed; not {}",
            self.targets.len(),
            self.min_num,
            missing.join(", ")
        );
        Gate::new(NAME, Verdict::Block, &reason)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_gate_blocks_where_too_few_are_reached() {
        let there = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let mut references = References {
            targets: vec![address(&there), address(&gone)],
            min_num: 2,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        };
        assert_eq!(references.gate().await, Gate::pass(NAME));
        let missing = address(&gone);
        drop(gone);
        let gate = references.gate().await;
        assert_eq!(gate.verdict, Verdict::Block);
        assert!(gate.reason.contains("1 of 2") && gate.reason.ends_with(&missing));
        references.min_num = 1;
        assert_eq!(references.gate().await, Gate::pass(NAME));
    }
}
