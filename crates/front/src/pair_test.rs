//! Two fronts over real engines with a scripted backend, and a pair whose roles the test sets.

use std::time::Duration;

use futures::StreamExt;
use hotspare_batch::{SamplingParams, StopParams, TokenId};
use hotspare_failover::{Health, Verdict};
use tokio::time::{sleep, timeout};

use crate::testing::job;
use crate::testing_pair::{Node, pair, quick, script};
use crate::testing_streams::{collect, engine_falls_idle, labelled, metric};
use crate::{Front, FrontConfig, GenerateError, ShadowMode};

const PATIENCE: Duration = Duration::from_secs(20);
const PROMPT: &[TokenId] = &[5, 6, 7];

/// What an engine answers to [`PROMPT`] alone.
fn expected(num_tokens: u32) -> Vec<TokenId> {
    let (sampling, stop) = (SamplingParams::greedy(), StopParams::default());
    script().continuation(PROMPT, 0, &sampling, &stop, num_tokens as usize)
}

async fn answer(node: &Node, num_tokens: u32) -> Result<Vec<TokenId>, GenerateError> {
    let stream = node.front().generate(job(&[PROMPT], num_tokens)).await?;
    let answers = collect(stream).await?;
    Ok(answers[0].token_ids.clone())
}

/// Node a serves in epoch 2, node b stands by; both are connected.
async fn ready_pair(config: &FrontConfig, faults: [&str; 2]) -> [Node; 2] {
    let nodes = pair(config, faults, |a, b| {
        a.serve(2);
        b.stand_by(Some(2));
    });
    for node in &nodes {
        timeout(PATIENCE, node.ready()).await.expect("both connect");
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_hands_requests_to_the_engine_that_serves() {
    let [a, b] = ready_pair(&quick(), [""; 2]).await;
    assert!(b.front().readiness().ready);
    assert_eq!(answer(&b, 12).await, Ok(expected(12)));
    assert_eq!(a.pairing.admitted_in(), [2], "it was admitted there");
    assert_eq!(b.pairing.admitted_in(), [0; 0]);
    let steps = |node: &Node| node.front().status().engines[0].steps;
    assert!(steps(&a) > 12, "it ran there: {} steps", steps(&a));
    assert_eq!(answer(&a, 5).await, Ok(expected(5)));
    engine_falls_idle(a.front()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_here_when_the_peer_is_gone() {
    let [a, b] = ready_pair(&quick(), [""; 2]).await;
    let mut stream = b.front().generate(job(&[PROMPT], 200)).await.unwrap();
    let mut token_ids = Vec::new();
    for _ in 0..5 {
        token_ids.extend(stream.next().await.unwrap().unwrap().token_ids);
    }
    // Its role has not changed yet: a stream that has begun may go on anywhere.
    drop(a);
    while let Some(delta) = stream.next().await {
        token_ids.extend(delta.unwrap().token_ids);
    }
    assert_eq!(token_ids, expected(200));
    let exact = labelled(b.front(), "hotspare:replays_total", "outcome=\"exact\"");
    assert_eq!(exact, 1.0);
    assert!(b.pairing.admitted_in().is_empty());
}

/// Reads along as fast as it can.
fn shadowing() -> FrontConfig {
    FrontConfig {
        spare_shadow_interval_ms: 1,
        spare_shadow_min_lag_tokens: 16,
        spare_shadow_max_round_ms: 60_000,
        ..quick()
    }
}

/// A stream of 200 tokens for 40 of a prompt, and what of it was found read along by the engine of
/// `finder`, on which it ended.
async fn found_of(through: &Node, finder: &Front, at_150: impl FnOnce()) -> f64 {
    let prompt: Vec<TokenId> = (5..45).collect();
    let params = job(&[&prompt], 200);
    let expected = script().continuation(&prompt, 0, &params.sampling, &params.stop, 200);
    let mut stream = through.front().generate(params).await.unwrap();
    let mut token_ids = Vec::new();
    while token_ids.len() < 150 {
        token_ids.extend(stream.next().await.unwrap().unwrap().token_ids);
    }
    at_150();
    while let Some(delta) = stream.next().await {
        token_ids.extend(delta.unwrap().token_ids);
    }
    assert_eq!(token_ids, expected);
    engine_falls_idle(finder).await;
    assert_eq!(
        metric(finder, "vllm:prompt_tokens_total"),
        40.0,
        "counted once"
    );
    metric(finder, "vllm:prefix_cache_hits_total")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_has_read_along_what_it_takes_over() {
    let [a, b] = ready_pair(&shadowing(), [""; 2]).await;
    let finder = b.front().clone();
    let num_found = found_of(&b, &finder, move || drop(a)).await;
    assert!(num_found >= 96.0, "{num_found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_engine_has_read_along_what_it_takes_over() {
    let config = FrontConfig {
        engine_restart_backoff_min_ms: 60_000,
        engine_restart_backoff_max_ms: 60_000,
        ..shadowing()
    };
    let [a, b] = ready_pair(&config, ["die-after-token=170", ""]).await;
    let num_found = found_of(&a, b.front(), || {}).await;
    assert!(num_found >= 96.0, "{num_found}");
    let text = b.front().metrics_text();
    assert!(text.contains("hotspare:num_sequences_for_peer"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_along_where_it_is_off() {
    let config = FrontConfig {
        peer_shadow: ShadowMode::Off,
        ..shadowing()
    };
    let [a, b] = ready_pair(&config, [""; 2]).await;
    let finder = b.front().clone();
    assert_eq!(found_of(&b, &finder, move || drop(a)).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_is_cancelled_on_the_other_node() {
    let [a, b] = ready_pair(&quick(), [""; 2]).await;
    let mut stream = b.front().generate(job(&[PROMPT], 200)).await.unwrap();
    assert!(stream.next().await.is_some_and(|delta| delta.is_ok()));
    drop(stream);
    engine_falls_idle(a.front()).await;
    assert!(
        a.front().status().engines[0].steps < 150,
        "it was cut short"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_an_engine_uses_the_peers() {
    // The engine that takes its place comes too late for this test.
    let config = FrontConfig {
        engine_restart_backoff_min_ms: 60_000,
        engine_restart_backoff_max_ms: 60_000,
        ..quick()
    };
    let [a, b] = ready_pair(&config, ["die-after-token=9", ""]).await;
    assert_eq!(answer(&a, 30).await, Ok(expected(30)), "it goes on there");
    assert_eq!(answer(&a, 8).await, Ok(expected(8)), "it begins there");
    assert_eq!(a.pairing.admitted_in(), [2, 2]);
    assert_eq!(b.pairing.admitted_in(), [0; 0], "the peer admits nothing");
    assert!(a.front().readiness().ready);
    let told = || a.pairing.told.lock().unwrap().clone();
    timeout(PATIENCE, async {
        while told().is_none_or(|(health, _)| health != Health::Fatal) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the pair is told that the engine is gone");
    let (_, gates) = told().unwrap();
    let engine = gates.iter().find(|gate| gate.name == "engine").unwrap();
    assert_eq!(engine.verdict, Verdict::Block);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_held_until_somebody_serves() {
    let [a, b] = ready_pair(&quick(), [""; 2]).await;
    a.pairing.stand_by(None);
    b.pairing.stand_by(None);
    let front = b.front().clone();
    let held = tokio::spawn(async move { front.generate(job(&[PROMPT], 6)).await });
    sleep(Duration::from_millis(200)).await;
    assert!(!held.is_finished(), "nobody serves");
    assert!(!b.front().readiness().ready);
    b.pairing.serve(3);
    let stream = timeout(PATIENCE, held).await.unwrap().unwrap().unwrap();
    assert_eq!(collect(stream).await.unwrap()[0].token_ids, expected(6));
    assert_eq!(b.pairing.admitted_in(), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_no_more_admits_nothing_for_the_peer() {
    let [a, b] = ready_pair(&quick(), [""; 2]).await;
    // The standby has not heard of it yet.
    a.pairing.stand_by(None);
    let front = b.front().clone();
    let asked = tokio::spawn(async move { front.generate(job(&[PROMPT], 6)).await });
    sleep(Duration::from_millis(200)).await;
    assert!(
        !asked.is_finished(),
        "it was rejected there, and is held here"
    );
    assert_eq!(a.pairing.admitted_in(), [0; 0]);
    b.pairing.serve(3);
    let stream = timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap();
    assert_eq!(collect(stream).await.unwrap()[0].token_ids, expected(6));
    assert_eq!(b.pairing.admitted_in(), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn holding_is_bounded_in_time_and_number() {
    let config = FrontConfig {
        takeover_hold_ms: 300,
        max_num_takeover_holds: 1,
        ..quick()
    };
    let [_a, b] = ready_pair(&config, [""; 2]).await;
    b.pairing.stand_by(None);
    let front = b.front().clone();
    let held = tokio::spawn(async move { front.generate(job(&[PROMPT], 6)).await.map(|_| ()) });
    let shared = b.front().shared();
    while shared.num_held.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let refused = answer(&b, 6).await;
    assert!(
        matches!(refused, Err(GenerateError::QueueFull { .. })),
        "{refused:?}"
    );
    let error = timeout(PATIENCE, held).await.unwrap().unwrap().unwrap_err();
    let GenerateError::NotReady { reason, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("held for 300 ms"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_over_is_refused() {
    let nodes = pair(&quick(), [""; 2], |a, b| {
        a.serve(4);
        b.stand_by(Some(3));
    });
    let [a, b] = &nodes;
    crate::testing_streams::ready(&b.handle).await;
    sleep(Duration::from_millis(300)).await;
    assert!(b.front().shared().slot.peer_hello().is_none());
    b.pairing.stand_by(Some(4));
    timeout(PATIENCE, b.ready()).await.expect("it is let in");
    assert_eq!(answer(b, 4).await, Ok(expected(4)));
    assert_eq!(a.pairing.admitted_in(), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cannot_be_reached_again_is_done_without() {
    let [a, b] = ready_pair(&quick(), [""; 2]).await;
    b.pairing.cut();
    // The relay ends with the front that drains.
    a.front().drain();
    let shared = b.front().shared();
    timeout(PATIENCE, async {
        while shared.slot.peer_hello().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the loss is noticed");
    b.pairing.serve(3);
    assert_eq!(answer(&b, 4).await, Ok(expected(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_home_once_there_is_an_engine_again() {
    let config = FrontConfig {
        peer_drain_ms: 100,
        ..quick()
    };
    let [a, _b] = ready_pair(&config, ["die-after-token=9", ""]).await;
    assert_eq!(answer(&a, 250).await, Ok(expected(250)));
    let exact = labelled(a.front(), "hotspare:replays_total", "outcome=\"exact\"");
    assert_eq!(exact, 2.0, "there, and back");
}
