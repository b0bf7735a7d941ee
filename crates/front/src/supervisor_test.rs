//! Engines that start, die, refuse and end, and what becomes of the streams meanwhile.

use futures::StreamExt;
use hotspare_batch::RejectReason;
use hotspare_engine::ScriptedOptions;

use std::sync::Arc;

use hotspare_link::{EngineMessage, FrontMessage, ProtocolRange};

use crate::testing::{
    MAX_MODEL_LEN, ScriptedLauncher, config, event, hello, job, model_info, scripted,
};
use crate::testing_streams::{
    collect, labelled, metric, pull, puppet_front, ready, start_scripted, wait_for,
};
use crate::{
    EngineState, Front, FrontConfig, FrontHandle, GenerateError, GenerationStream, ProcessLauncher,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_is_started_again_and_its_streams_go_on() {
    let script = |life: u32| ScriptedOptions {
        device_error_at_step: (life < 2).then_some(5),
        ..ScriptedOptions::default()
    };
    let launcher = ScriptedLauncher(move |life| scripted(script(life)));
    let handle = Front::start(config(), model_info(None), Arc::new(launcher));
    let front = ready(&handle).await;
    let stream = front.generate(job(&[&[5]], 50)).await.unwrap();
    let answers = collect(stream).await.unwrap();
    let params = job(&[&[5]], 50);
    let expected = script(2).continuation(&[5], 0, &params.sampling, &params.stop, 50);
    assert_eq!(answers[0].token_ids, expected);
    assert_eq!(front.status().engines[0].restarts, 2);
    assert_eq!(metric(&front, "hotspare:engine_restarts_total"), 2.0);
    let exact = ("hotspare:replays_total", "outcome=\"exact\"");
    assert_eq!(labelled(&front, exact.0, exact.1), 2.0);
    assert_eq!(metric(&front, "hotspare:replay_gap_seconds_count"), 2.0);
    assert_eq!(metric(&front, "hotspare:num_sequences_replaying"), 0.0);
    assert_eq!(metric(&front, "hotspare:journal_bytes"), 0.0);
    assert!(metric(&front, "vllm:generation_tokens_total") >= 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_until_the_engine_is_ready() {
    let (handle, mut puppets) = puppet_front().await;
    let front = handle.front().clone();
    let mut puppet = puppets.recv().await.expect("the engine was started");
    puppet.send(&EngineMessage::Loading {
        stage: "weights".to_owned(),
        done: 1,
        total: 4,
    });
    wait_for(&handle, |state| {
        matches!(state, EngineState::Loading { done: 1, .. })
    })
    .await;
    assert_eq!(front.readiness().reason, "the model is loading");
    assert_eq!(front.status().role, "starting");
    let error = front.generate(job(&[&[5]], 5)).await.err();
    let expected = GenerateError::NotReady {
        reason: "the model is loading".to_owned(),
        retry_after_s: 2,
    };
    assert_eq!(error, Some(expected));

    let puppet = pull(move || {
        puppet.greet();
        puppet
    })
    .await;
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    assert!(front.readiness().ready);
    let status = front.status();
    assert_eq!(
        (status.role, status.engines[0].state),
        ("primary-solo", "ready")
    );
    assert_eq!(status.engines[0].model_hash, "hash");
    drop(puppet);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_start_ends_the_front() {
    let cases: [(EngineMessage, &str); 4] = [
        (
            EngineMessage::Fatal {
                message: "no such model".to_owned(),
            },
            "no such model",
        ),
        (
            EngineMessage::Hello(Box::new(hotspare_link::EngineHello {
                protocol: ProtocolRange { min: 900, max: 901 },
                ..hello()
            })),
            "no protocol version in common",
        ),
        (
            EngineMessage::Hello(Box::new(hotspare_link::EngineHello {
                max_model_len: MAX_MODEL_LEN - 1,
                ..hello()
            })),
            "announces 256",
        ),
        (EngineMessage::Pong { nonce: 1 }, "before its hello"),
    ];
    for (message, expected) in cases {
        let (mut handle, mut puppets) = puppet_front().await;
        let mut puppet = puppets.recv().await.expect("the engine was started");
        puppet.send(&message);
        let error = handle.failed().await.to_string();
        assert!(error.contains(expected), "{message:?}: {error}");
        assert_eq!(handle.front().status().role, "failed");
        assert!(!handle.front().readiness().ready);
    }
    let (mut handle, mut puppets) = puppet_front().await;
    drop(puppets.recv().await);
    let error = handle.failed().await.to_string();
    assert!(error.contains("ended before it was ready"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_keeps_failing_makes_the_node_say_so() {
    let (handle, mut puppets) = puppet_front().await;
    for _ in 0..config().max_num_engine_failures {
        let mut puppet = puppets.recv().await.expect("the engine was started");
        pull(move || puppet.greet()).await;
    }
    wait_for(&handle, |state| matches!(state, EngineState::Failed { .. })).await;
    let front = handle.front().clone();
    let readiness = front.readiness();
    assert!(!readiness.ready);
    assert!(
        readiness.reason.contains("failed 4 times in a row"),
        "{}",
        readiness.reason
    );
    let status = front.status();
    assert_eq!((status.role, status.engines[0].state), ("failed", "failed"));
    assert_eq!(status.reasons, [readiness.reason]);
    // It is tried on, says `failed` while it is, and is ready again once one serves.
    let mut puppet = puppets.recv().await.expect("it is tried on");
    puppet.send(&EngineMessage::Loading {
        stage: "weights".to_owned(),
        done: 1,
        total: 4,
    });
    assert_eq!(front.status().role, "failed");
    let puppet = pull(move || {
        puppet.greet();
        puppet
    })
    .await;
    assert_eq!(ready(&handle).await.status().role, "primary-solo");
    drop(puppet);
    wait_for(&handle, |state| matches!(state, EngineState::Failed { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_before_admission_and_one_after_it_are_made_good() {
    let (handle, mut puppets) = puppet_front().await;
    let mut puppet = puppets.recv().await.expect("the engine was started");
    let puppet = pull(move || {
        puppet.greet();
        puppet
    });
    let mut puppet = puppet.await;
    let front = ready(&handle).await;
    let request = front.generate(job(&[&[5, 6]], 3));
    let serving = async {
        pull(move || assert!(matches!(puppet.receive(), Some(FrontMessage::Generate(_))))).await;
        let mut puppet = puppets.recv().await.expect("it was started again");
        pull(move || {
            puppet.greet();
            let request = puppet.admit();
            assert_eq!((request.attempt, request.num_delivered), (1, 0));
            let event = hotspare_batch::SequenceEvent {
                request_id: request.request_id,
                attempt: 1,
                ..event(0, &[8])
            };
            puppet.step(1, event);
        })
        .await;
        let mut puppet = puppets.recv().await.expect("it was started again");
        pull(move || {
            puppet.greet();
            let request = puppet.admit();
            assert_eq!((request.attempt, request.num_delivered), (2, 1));
            assert_eq!(request.ids, [5, 6, 8]);
            let event = |attempt, first_index, tokens: &[u32]| hotspare_batch::SequenceEvent {
                request_id: request.request_id,
                attempt,
                ..event(first_index, tokens)
            };
            puppet.step(1, event(1, 1, &[99]));
            puppet.step(2, event(2, 1, &[9]));
            let mut last = event(2, 2, &[10]);
            last.finish = Some(hotspare_batch::FinishReason::Length);
            puppet.step(3, last);
            puppet
        })
        .await
    };
    let streaming = async { collect(request.await.unwrap()).await.unwrap() };
    let (answers, _puppet) = tokio::join!(streaming, serving);
    assert_eq!(answers[0].token_ids, [8, 9, 10], "a late token is dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engines_refusal_is_the_jobs() {
    let (handle, mut puppets) = puppet_front().await;
    let mut puppet = puppets.recv().await.expect("the engine was started");
    let refusing = pull(move || {
        puppet.greet();
        let first = puppet.admit();
        let Some(FrontMessage::Generate(second)) = puppet.receive() else {
            panic!("a second sequence was due");
        };
        puppet.send(&EngineMessage::Rejected {
            request_id: second.request_id,
            attempt: 0,
            reason: RejectReason::Impossible("too long".to_owned()),
        });
        let request_id = first.request_id;
        assert_eq!(puppet.receive(), Some(FrontMessage::Cancel { request_id }));
        puppet
    });
    let front = ready(&handle).await;
    let error = front.generate(job(&[&[5], &[6]], 5)).await.err();
    let expected = GenerateError::Impossible("too long".to_owned());
    assert_eq!(error, Some(expected));
    drop(refusing.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_refuses_the_new_and_finishes_the_old() {
    let script = ScriptedOptions {
        step_time_us: 500,
        ..ScriptedOptions::default()
    };
    let handle = start_scripted(&script);
    let front = ready(&handle).await;
    let stream = front.generate(job(&[&[5]], 60)).await.unwrap();
    front.drain();
    assert!(!front.readiness().ready);
    assert_eq!(front.status().role, "draining");
    let error = front.generate(job(&[&[5]], 5)).await.err();
    assert!(
        matches!(error, Some(GenerateError::NotReady { .. })),
        "{error:?}"
    );
    let (answers, ()) = tokio::join!(collect(stream), front.wait_idle());
    assert_eq!(answers.unwrap()[0].token_ids.len(), 60);
    handle.stop().await.expect("the engine ends in order");
    assert_eq!(front.status().engines[0].state, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_with_streams_open_ends_them_with_an_error() {
    let (handle, mut puppets) = puppet_front().await;
    let mut puppet = puppets.recv().await.expect("the engine was started");
    let serving = pull(move || {
        puppet.greet();
        puppet.admit();
        assert_eq!(puppet.receive(), Some(FrontMessage::Drain));
    });
    let front = ready(&handle).await;
    let mut stream = front.generate(job(&[&[5]], 5)).await.unwrap();
    handle.stop().await.expect("it was asked to end");
    serving.await;
    expect_engine_failed(&mut stream).await;
}

/// The stream's next item says that its engine failed.
async fn expect_engine_failed(stream: &mut GenerationStream) {
    let item = stream.next().await.expect("an item");
    let error = item.expect_err("an error");
    assert!(matches!(error, GenerateError::EngineFailed(_)), "{error:?}");
}

/// A front whose engine is this shell script.
fn start_script(script: &str) -> FrontHandle {
    let args = ["-c", script].map(Into::into).to_vec();
    let config = FrontConfig {
        engine_stop_timeout_ms: 100,
        ..config()
    };
    let launcher = ProcessLauncher::new("/bin/sh".into(), args);
    Front::start(config, model_info(None), Arc::new(launcher))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_of_a_process_is_reported() {
    let error = start_script("exit 7").failed().await.to_string();
    assert!(error.contains("exit status: 7"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_end_without_its_socket_is_killed() {
    let mut handle = start_script("exec sleep 600 <&-");
    let error = handle.failed().await.to_string();
    assert!(error.contains("SIGKILL"), "{error}");
    assert_eq!(handle.front().status().engines[0].pid, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stays_silent_is_stopped_on_demand() {
    let handle = start_script("exec sleep 600");
    let front = handle.front().clone();
    let mut states = front.engine_states();
    while front.status().engines[0].pid.is_none() {
        states.changed().await.expect("the front lives");
    }
    assert_eq!(front.status().role, "starting");
    handle.stop().await.expect("it was asked to end");
    assert_eq!(front.status().engines[0].pid, None);
}
