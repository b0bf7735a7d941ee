//! The coordinator's own part: who waits, how long, and what an old guard may still do.

use std::sync::Arc;
use std::time::Duration;

use hotspare_batch::RequestId;

use super::*;
use crate::testing::{config, event};

const MODEL: &str = "model";
const MINUTE: Duration = Duration::from_secs(60);

fn replays(max_num_held_requests: usize) -> Arc<Replays> {
    Arc::new(Replays::new(&FrontConfig {
        max_num_held_requests,
        ..config()
    }))
}

/// A sequence whose engine ended by itself.
fn suspect(replays: &Arc<Replays>, id: u64) -> ReplayGuard {
    replays.on_loss(MODEL, LossCause::Own, &[(RequestId(id), true)]);
    ReplayGuard::announce(Arc::clone(replays), MODEL.to_owned(), RequestId(id))
}

#[tokio::test]
async fn new_requests_wait_while_a_suspect_is_tried() {
    let replays = replays(1);
    assert_eq!(replays.wait_turn(MODEL, MINUTE).await, Ok(()));
    let guard = suspect(&replays, 1);
    assert_eq!(replays.wait_turn("other", MINUTE).await, Ok(()));
    let brief = Duration::from_millis(1);
    let held = replays.wait_turn(MODEL, brief).await;
    assert_eq!(held, Err(HeldTooLong::TimedOut));

    let waiting = tokio::spawn({
        let replays = Arc::clone(&replays);
        async move { replays.wait_turn(MODEL, MINUTE).await }
    });
    while replays.num_held.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let held = replays.wait_turn(MODEL, MINUTE).await;
    assert_eq!(held, Err(HeldTooLong::TooMany { max_num_held: 1 }));
    guard.wait_turn(0, 10).await;
    assert!(!waiting.is_finished());
    guard.on_event(&event(0, &[]));
    assert!(!waiting.is_finished(), "nothing was yielded");
    guard.on_event(&event(0, &[5]));
    assert_eq!(waiting.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_suspect_that_leaves_holds_nobody() {
    let replays = replays(1);
    let guard = suspect(&replays, 1);
    let waiting = replays.wait_turn(MODEL, MINUTE);
    let leaving = async {
        tokio::task::yield_now().await;
        drop(guard);
    };
    let (turn, ()) = tokio::join!(waiting, leaving);
    assert_eq!(turn, Ok(()));
}

#[tokio::test]
async fn the_guard_of_an_older_attempt_changes_nothing() {
    let replays = replays(1);
    let old = suspect(&replays, 1);
    old.wait_turn(0, 10).await;
    let new = suspect(&replays, 1);
    old.on_event(&event(0, &[5]));
    old.step_back();
    drop(old);
    let brief = Duration::from_millis(1);
    let held = replays.wait_turn(MODEL, brief).await;
    assert_eq!(
        held,
        Err(HeldTooLong::TimedOut),
        "the new attempt is to be tried"
    );
    new.wait_turn(0, 10).await;
    new.on_event(&event(0, &[5]));
    assert_eq!(replays.wait_turn(MODEL, MINUTE).await, Ok(()));
}

#[tokio::test]
async fn what_ended_is_forgotten() {
    let replays = replays(1);
    let id = RequestId(1);
    replays.forget(MODEL, id);
    for _ in 0..2 {
        drop(suspect(&replays, 1));
    }
    assert_eq!(replays.verdict(MODEL, id), Verdict::Convicted);
    replays.forget(MODEL, id);
    assert_eq!(replays.verdict(MODEL, id), Verdict::Open);
}
