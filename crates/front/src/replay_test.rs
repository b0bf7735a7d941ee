//! Streams over engines that die, and what becomes of them at each limit.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hotspare_batch::SequenceEvent;
use hotspare_engine::{EngineOptions, ScriptedOptions};
use hotspare_link::{EngineHello, EngineMessage, FrontMessage};
use hotspare_protocol::FinishReason;

use crate::testing::{
    ScriptedLauncher, config, event, hello, job, model_info, numbered_text_model, scripted,
};
use crate::testing_streams::{
    Answer, collect, engine_falls_idle, labelled, metric, pull, puppet_front, ready, wait_for,
};
use crate::{EngineState, Front, FrontConfig, FrontHandle, GenerateError, GenerationJob};

/// A front whose engines have these faults, in the grammar of `HOTSPARE_FAULTS`.
fn start(config: FrontConfig, faults: &str) -> FrontHandle {
    let faults = faults.to_owned();
    let launcher = ScriptedLauncher(move |_| EngineOptions {
        faults: faults.clone(),
        ..scripted(ScriptedOptions {
            step_time_us: 200,
            ..ScriptedOptions::default()
        })
    });
    let model = model_info(Some(numbered_text_model()));
    Front::start(config, model, Arc::new(launcher))
}

/// Engines may die as often as it takes.
fn patient() -> FrontConfig {
    FrontConfig {
        max_num_engine_failures: 1_000,
        ..config()
    }
}

async fn answers(front: &Front, job: GenerationJob) -> Result<Vec<Answer>, GenerateError> {
    collect(front.generate(job).await?).await
}

fn outcome(front: &Front, name: &str) -> f64 {
    let label = format!("outcome=\"{name}\"");
    labelled(front, "hotspare:replays_total", &label)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_choice_goes_on_wherever_the_engine_dies() {
    let many = |seed| GenerationJob {
        n: 3,
        seed: Some(seed),
        sampling: hotspare_batch::SamplingParams::default(),
        stop_strings: vec!["<7>".to_owned()],
        ..job(&[&[5, 6, 7], &[9]], 20)
    };
    let uncut = start(config(), "");
    let expected = answers(&ready(&uncut).await, many(3)).await.unwrap();
    for kind in [
        "die-before-token",
        "die-after-token",
        "die-in-frame-of-token",
    ] {
        for first in [1, 2, 17, 60] {
            let faults = format!("{kind}={first}; {kind}=9,engine=1; {kind}=1,engine=3");
            let handle = start(patient(), &faults);
            let front = ready(&handle).await;
            let found = answers(&front, many(3)).await.unwrap();
            assert_eq!(found, expected, "{faults}");
            assert!(outcome(&front, "exact") >= 6.0, "{faults}");
            assert_eq!(metric(&front, "hotspare:journal_bytes"), 0.0);
            wait_for(&handle, |state| *state == EngineState::Ready).await;
            engine_falls_idle(&front).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_without_a_token_are_bounded() {
    let config = FrontConfig {
        max_num_replay_attempts: 0,
        ..patient()
    };
    let handle = start(config, "die-after-token=3");
    let front = ready(&handle).await;
    let error = answers(&front, job(&[&[5]], 9)).await.unwrap_err();
    let GenerateError::EngineFailed(message) = &error else {
        panic!("{error:?}");
    };
    assert!(message.contains("1 attempts in a row"), "{message}");
    assert_eq!(outcome(&front, "attempts"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_kills_alone_is_tried_twice() {
    let handle = start(patient(), "die-before-token=1,engine=all");
    let front = ready(&handle).await;
    let error = answers(&front, job(&[&[5]], 5)).await.unwrap_err();
    assert!(matches!(error, GenerateError::Convicted(_)), "{error:?}");
    assert_eq!(outcome(&front, "convicted"), 1.0);
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    assert_eq!(front.status().engines[0].restarts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_wait_is_bounded_and_ends_with_an_error() {
    let config = FrontConfig {
        replay_timeout_ms: 50,
        engine_restart_backoff_min_ms: 60_000,
        engine_restart_backoff_max_ms: 60_000,
        ..patient()
    };
    let handle = start(config, "die-after-token=3");
    let front = ready(&handle).await;
    let mut stream = front.generate(job(&[&[5]], 9)).await.unwrap();
    for _ in 0..3 {
        assert!(stream.next().await.unwrap().is_ok());
    }
    let error = stream.next().await.unwrap().unwrap_err();
    let GenerateError::EngineFailed(message) = error else {
        panic!("{error:?}");
    };
    assert!(message.contains("within 50 ms"), "{message}");
    assert!(stream.next().await.is_none());
    assert_eq!(outcome(&front, "no_target"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_journals_bound_says_so_when_it_ends() {
    let config = FrontConfig {
        journal_max_request_bytes: 100,
        ..patient()
    };
    let handle = start(config, "die-after-token=3");
    let front = ready(&handle).await;
    let error = answers(&front, job(&[&[5]], 9)).await.unwrap_err();
    assert!(
        error.to_string().contains("journal-max-request-bytes"),
        "{error}"
    );
    assert_eq!(outcome(&front, "not_resumable"), 1.0);
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    assert_eq!(
        answers(&front, job(&[&[5]], 9)).await.unwrap().len(),
        1,
        "it runs without"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_journals_bound_that_ends_engines_is_refused_too() {
    // Too long from its beginning, and after some tokens.
    for max_request_bytes in [100, 700] {
        let config = FrontConfig {
            journal_max_request_bytes: max_request_bytes,
            ..patient()
        };
        let handle = start(config, "die-after-token=100,engine=all");
        let front = ready(&handle).await;
        for round in 0..2 {
            wait_for(&handle, |state| *state == EngineState::Ready).await;
            let error = answers(&front, job(&[&[5]], 150)).await.unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("journal-max-request-bytes"),
                "{max_request_bytes}, {round}: {message}"
            );
        }
        wait_for(&handle, |state| *state == EngineState::Ready).await;
        let error = answers(&front, job(&[&[5]], 150)).await.unwrap_err();
        assert!(matches!(error, GenerateError::Convicted(_)), "{error:?}");
        assert_eq!(front.status().engines[0].restarts, 2);
        let other = answers(&front, job(&[&[6]], 9)).await.unwrap();
        assert_eq!(other[0].token_ids.len(), 9, "others run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_a_poisonous_request_is_no_crash_loop() {
    // The first end counts, those in trials do not: three requests end an engine twelve times.
    let config = FrontConfig {
        max_num_engine_failures: 6,
        engine_restart_backoff_min_ms: 1,
        ..config()
    };
    let handle = start(config, "die-on-token-id=77,engine=all");
    let front = ready(&handle).await;
    let tasks: Vec<_> = (0..24u32)
        .map(|i| {
            let prompt = match i % 8 {
                3 => vec![5, 77, i],
                _ => vec![5, 100 + i],
            };
            let front = front.clone();
            tokio::spawn(async move { (i, answers(&front, job(&[&prompt], 60)).await) })
        })
        .collect();
    let (mut convicted, mut finished) = (Vec::new(), 0);
    for task in tasks {
        let (i, outcome) = task.await.unwrap();
        match outcome {
            Ok(answers) => finished += usize::from(answers[0].token_ids.len() == 60),
            Err(GenerateError::Convicted(_)) => convicted.push(i),
            // It came while there was no engine.
            Err(GenerateError::NotReady { .. }) => {}
            Err(error) => panic!("{i}: {error:?}"),
        }
        assert_ne!(front.status().role, "failed");
    }
    assert!(convicted.iter().all(|i| i % 8 == 3), "{convicted:?}");
    assert!(
        !convicted.is_empty() && finished > 0,
        "{convicted:?} {finished}"
    );
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    assert!(front.readiness().ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_passes_in_the_gap_too() {
    let config = FrontConfig {
        engine_restart_backoff_min_ms: 60_000,
        engine_restart_backoff_max_ms: 60_000,
        ..patient()
    };
    let handle = start(config, "die-after-token=3");
    let front = ready(&handle).await;
    let job = GenerationJob {
        deadline_ms: Some(300),
        ..job(&[&[5]], 200)
    };
    let answers = answers(&front, job).await.unwrap();
    assert_eq!(answers[0].finish, Some((FinishReason::Abort, None)));
    assert_eq!(answers[0].token_ids.len(), 3);
    assert_eq!(outcome(&front, "deadline"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_gap_frees_everything() {
    let config = FrontConfig {
        engine_restart_backoff_min_ms: 300,
        engine_restart_backoff_max_ms: 300,
        ..patient()
    };
    let handle = start(config, "die-after-token=3");
    let front = ready(&handle).await;
    let mut stream = front.generate(job(&[&[5], &[6]], 200)).await.unwrap();
    for _ in 0..3 {
        assert!(stream.next().await.unwrap().is_ok());
    }
    let waiting = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    assert!(
        waiting.is_err() && stream.is_replaying(),
        "it is in the gap"
    );
    assert!(metric(&front, "hotspare:journal_bytes") > 0.0);
    drop(stream);
    assert_eq!(metric(&front, "hotspare:journal_bytes"), 0.0);
    assert_eq!(metric(&front, "hotspare:num_sequences_replaying"), 0.0);
    assert_eq!(outcome(&front, "abort"), 2.0);
    assert_eq!(front.server_load(), 0);
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    assert_eq!(answers(&front, job(&[&[5]], 9)).await.unwrap().len(), 1);
    engine_falls_idle(&front).await;
    assert_eq!(front.status().engines[0].running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_numerics_id_continues_and_says_so() {
    for (first_id, numerics_id, expected) in [
        ("numerics", "numerics", "exact"),
        ("numerics", "other", "continued"),
        // Equal ids promise nothing where a library chooses its order of sums.
        ("a-fast-b", "a-fast-b", "continued"),
    ] {
        let (handle, mut puppets) = puppet_front().await;
        let mut puppet = puppets.recv().await.expect("the engine was started");
        let dying = pull(move || {
            puppet.greet_as(&EngineHello {
                numerics_id: first_id.to_owned(),
                ..hello()
            });
            let request_id = puppet.admit().request_id;
            let event = SequenceEvent {
                request_id,
                ..event(0, &[8])
            };
            puppet.step(1, event);
        });
        let front = ready(&handle).await;
        let stream = front.generate(job(&[&[5]], 2)).await.unwrap();
        dying.await;
        let mut puppet = puppets.recv().await.expect("it was started again");
        let serving = pull(move || {
            puppet.send(&EngineMessage::Hello(Box::new(EngineHello {
                numerics_id: numerics_id.to_owned(),
                ..hello()
            })));
            assert!(matches!(puppet.receive(), Some(FrontMessage::Hello { .. })));
            let request_id = puppet.admit().request_id;
            let event = SequenceEvent {
                request_id,
                attempt: 1,
                finish: Some(hotspare_batch::FinishReason::Length),
                ..event(1, &[9])
            };
            puppet.step(1, event);
            puppet
        });
        let (answers, _puppet) = tokio::join!(collect(stream), serving);
        assert_eq!(answers.unwrap()[0].token_ids, [8, 9]);
        assert_eq!(outcome(&front, expected), 1.0, "{numerics_id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_convicted_and_the_innocent_finish() {
    let handle = start(patient(), "die-on-token-id=77,engine=all");
    let front = ready(&handle).await;
    let tasks: Vec<_> = (0..12u32)
        .map(|i| {
            let prompt = if i == 7 {
                vec![5, 77]
            } else {
                vec![5, 100 + i]
            };
            let front = front.clone();
            tokio::spawn(async move { answers(&front, job(&[&prompt], 60)).await })
        })
        .collect();
    let mut convicted = Vec::new();
    for (i, task) in tasks.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(answers) => assert_eq!(answers[0].token_ids.len(), 60),
            Err(GenerateError::Convicted(_)) => convicted.push(i),
            // It came while there was no engine.
            Err(GenerateError::NotReady { .. }) => {}
            Err(error) => panic!("{i}: {error:?}"),
        }
    }
    assert_eq!(convicted, [7]);
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    let restarts = front.status().engines[0].restarts;
    // The simulation of the policy has the close bound. Here streams come to the line one by one.
    assert!((2..=30).contains(&restarts), "{restarts}");
    let again = answers(&front, job(&[&[5, 77]], 60)).await;
    assert!(
        matches!(again, Err(GenerateError::Convicted(_))),
        "{again:?}"
    );
    assert_eq!(
        front.status().engines[0].restarts,
        restarts,
        "it is not tried"
    );
    assert_eq!(
        answers(&front, job(&[&[5, 78]], 60)).await.unwrap().len(),
        1
    );
}
