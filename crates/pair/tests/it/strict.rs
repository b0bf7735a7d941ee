//! Mode strict over a lease that both nodes share: never do both admit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotspare_failover::{Epoch, Mode};
use hotspare_pair::{MemoryLease, Pair, PairError, SystemClock};

use crate::nodes::{Node, Places, bounded, settled};

async fn start(places: &Places, index: usize, lease: &MemoryLease) -> Node {
    let config = places.config(index, Mode::Strict);
    Node::start(config, &places.of[index], Some(Box::new(lease.clone()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_decides() {
    let places = Places::new();
    let lease = MemoryLease::new();
    let (a, b) = (
        start(&places, 0, &lease).await,
        start(&places, 1, &lease).await,
    );
    // Under a lease whoever swaps first serves.
    a.wait_role(&["primary", "standby"]).await;
    b.wait_role(&["primary", "standby"]).await;
    let holder = lease.record().holder;
    let (a, b) = if holder == Some(1) { (a, b) } else { (b, a) };
    let (rank, other) = if holder == Some(1) { (1, 2) } else { (2, 1) };
    settled(&a, &b).await;
    // From here on somebody looks all the time whether both admit.
    let both = Arc::new(AtomicBool::new(false));
    let watch = {
        let (both, one, two) = (Arc::clone(&both), a.pair.clone(), b.pair.clone());
        tokio::spawn(async move {
            loop {
                let now = one.now();
                let admits = |pair: &Pair| pair.admission().admits(now);
                both.fetch_or(admits(&one) && admits(&two), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    // The holder does not reach the store any more: the peer's promise keeps it serving.
    lease.set_reachable(rank, false);
    a.wait_role(&["primary-failsafe"]).await;
    lease.set_reachable(rank, true);
    a.wait_role(&["primary"]).await;
    let epoch = a.pair.view().epoch;
    watch.abort();
    let _aborted = watch.await;
    a.crash().await;
    let view = b.wait_role(&["primary-solo"]).await;
    assert!(view.epoch > epoch);
    let record = lease.record();
    assert_eq!((record.holder, record.epoch), (Some(other), view.epoch));
    assert!(!both.load(Ordering::Relaxed), "at no time did both admit");
    bounded("the end", b.pair.terminate()).await;
    assert_eq!(lease.record().holder, None, "it was released");
    assert_ne!(lease.record().epoch, Epoch::NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_without_a_store_does_not_start() {
    let places = Places::new();
    let config = places.config(0, Mode::Strict);
    let result = Pair::start(config, None, Arc::new(SystemClock));
    assert!(matches!(result, Err(PairError::Config(_))));
}
