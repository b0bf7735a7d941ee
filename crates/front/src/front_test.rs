//! The front over real engines with a scripted backend, and over puppets.

use std::collections::BTreeMap;

use futures::StreamExt;
use hotspare_batch::{RejectReason, SamplingParams, StopParams};
use hotspare_engine::ScriptedOptions;
use hotspare_link::{EngineMessage, FrontMessage, ProtocolRange};
use hotspare_protocol::{FinishReason, StopReason};

use super::*;
use crate::ChoiceDelta;
use crate::testing::{
    MAX_MODEL_LEN, Puppet, PuppetLauncher, ScriptedLauncher, config, event, hello, job, model_info,
    numbered_text_model, scripted,
};

fn start_scripted(script: &ScriptedOptions) -> FrontHandle {
    let script = script.clone();
    let launcher = ScriptedLauncher(move |_| scripted(script.clone()));
    Front::start(
        config(),
        model_info(Some(numbered_text_model())),
        Arc::new(launcher),
    )
}

async fn wait_for(handle: &FrontHandle, wanted: fn(&EngineState) -> bool) {
    let mut states = handle.front().engine_states();
    states.wait_for(wanted).await.expect("the front lives");
}

async fn ready(handle: &FrontHandle) -> Front {
    wait_for(handle, |state| *state == EngineState::Ready).await;
    handle.front().clone()
}

/// What a choice consisted of.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    token_ids: Vec<TokenId>,
    finish: Option<(FinishReason, Option<StopReason>)>,
}

fn add(answers: &mut BTreeMap<u32, Answer>, delta: ChoiceDelta) {
    let answer = answers.entry(delta.index).or_default();
    assert!(answer.finish.is_none(), "a finish is the last delta");
    assert!(delta.token_ids.len() <= 1, "a delta is one token");
    answer.text.push_str(&delta.text);
    answer.token_ids.extend(delta.token_ids);
    answer.finish = delta.finish.map(|f| (f.reason, f.stop_reason));
}

async fn collect(stream: GenerationStream) -> Result<Vec<Answer>, GenerateError> {
    let mut answers = BTreeMap::new();
    let mut stream = stream;
    while let Some(delta) = stream.next().await {
        add(&mut answers, delta?);
    }
    assert!(stream.next().await.is_none(), "the end is the end");
    Ok(answers.into_values().collect())
}

fn text_of(token_ids: &[TokenId]) -> String {
    token_ids.iter().map(|id| format!("<{id}>")).collect()
}

fn metric(front: &Front, name: &str) -> f64 {
    labelled(front, name, "")
}

/// The first sample of `name` that has `label`.
fn labelled(front: &Front, name: &str, label: &str) -> f64 {
    let text = front.metrics_text();
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    let line = lines.next().unwrap_or_else(|| panic!("{name} in\n{text}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("a number in {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_what_the_engine_draws() {
    let script = ScriptedOptions::default();
    let handle = start_scripted(&script);
    let front = ready(&handle).await;
    let stream = front.generate(job(&[&[5, 6, 7], &[9]], 12)).await.unwrap();
    assert_eq!(front.server_load(), 1);
    let answers = collect(stream).await.unwrap();
    let (sampling, stop) = (SamplingParams::greedy(), StopParams::default());
    for (answer, prompt) in answers.iter().zip([&[5, 6, 7][..], &[9]]) {
        let expected = script.continuation(prompt, 0, &sampling, &stop, 12);
        assert_eq!(answer.token_ids, expected);
        assert_eq!(answer.text, text_of(&expected));
        assert_eq!(answer.finish, Some((FinishReason::Length, None)));
    }
    assert_eq!(answers.len(), 2);
    assert_eq!(front.server_load(), 0);
    let success = ("vllm:request_success_total", "finished_reason=\"length\"");
    assert_eq!(labelled(&front, success.0, success.1), 2.0);
    assert_eq!(metric(&front, "vllm:generation_tokens_total"), 24.0);
    assert_eq!(
        metric(&front, "vllm:time_to_first_token_seconds_count"),
        2.0
    );
    assert_eq!(metric(&front, "vllm:request_prompt_tokens_sum"), 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn n_choices_differ_and_a_seed_repeats_them() {
    let handle = start_scripted(&ScriptedOptions::default());
    let front = ready(&handle).await;
    let sampled = |prompts: &[&[TokenId]], seed| GenerationJob {
        n: 3,
        seed,
        sampling: SamplingParams::default(),
        ..job(prompts, 8)
    };
    let run = async |job| collect(front.generate(job).await.unwrap()).await.unwrap();
    let seeded = run(sampled(&[&[5], &[5]], Some(1))).await;
    assert_eq!(seeded.len(), 6);
    assert_ne!(seeded[0], seeded[1]);
    assert_ne!(seeded[1], seeded[2]);
    assert_eq!(seeded[..3], seeded[3..], "a seed fixes a prompt's choices");
    assert_eq!(run(sampled(&[&[5]], Some(1))).await, seeded[..3]);

    let first = run(sampled(&[&[5], &[5]], None)).await;
    assert_ne!(first[..3], first[3..], "equal prompts of a list differ");
    let second = run(sampled(&[&[5], &[5]], None)).await;
    assert_ne!(first, second, "each request is given a seed of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_ends_the_sequence_in_the_engine_too() {
    let script = ScriptedOptions {
        step_time_us: 500,
        ..ScriptedOptions::default()
    };
    let handle = start_scripted(&script);
    let front = ready(&handle).await;
    let (sampling, stop) = (SamplingParams::greedy(), StopParams::default());
    let drawn = script.continuation(&[5], 0, &sampling, &stop, 4);
    // From inside the third token into the fourth.
    let stop_string = text_of(&drawn[2..])[2..7].to_owned();
    let job = GenerationJob {
        stop_strings: vec![stop_string.clone()],
        ..job(&[&[5]], 200)
    };
    let stream = front.generate(job).await.unwrap();
    let answers = collect(stream).await.unwrap();
    assert_eq!(
        answers[0].text,
        text_of(&drawn)[..text_of(&drawn[..2]).len() + 2]
    );
    let reason = StopReason::Text(stop_string);
    assert_eq!(answers[0].finish, Some((FinishReason::Stop, Some(reason))));
    engine_falls_idle(&front).await;
    assert!(metric(&front, "vllm:generation_tokens_total") < 100.0);
}

/// Waits until the engine says that nothing runs, which must be soon.
async fn engine_falls_idle(front: &Front) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let main = front.status().engines.remove(0);
        // The engine's own count of steps comes with its counts of sequences.
        let is_told = metric(front, "hotspare:engine_steps_total") > 0.0;
        if is_told && main.running + main.waiting == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "still busy: {main:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_is_cancelled() {
    let script = ScriptedOptions {
        step_time_us: 2_000,
        ..ScriptedOptions::default()
    };
    let handle = start_scripted(&script);
    let front = ready(&handle).await;
    let mut stream = front.generate(job(&[&[5], &[6]], 200)).await.unwrap();
    assert!(stream.next().await.is_some_and(|delta| delta.is_ok()));
    drop(stream);
    assert_eq!(front.server_load(), 0);
    engine_falls_idle(&front).await;
    let aborted = ("vllm:request_success_total", "finished_reason=\"abort\"");
    assert_eq!(labelled(&front, aborted.0, aborted.1), 2.0);
    assert!(metric(&front, "vllm:generation_tokens_total") < 200.0);
    assert_eq!(metric(&front, "vllm:kv_cache_usage_perc"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let launcher = ScriptedLauncher(|_| hotspare_engine::EngineOptions {
        max_num_seqs: 1,
        max_num_waiting: 2,
        ..scripted(ScriptedOptions {
            step_time_us: 2_000,
            ..ScriptedOptions::default()
        })
    });
    let handle = Front::start(config(), model_info(None), Arc::new(launcher));
    let front = ready(&handle).await;
    let mut streams = Vec::new();
    let error = loop {
        match front.generate(job(&[&[5]], 200)).await {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
        assert!(streams.len() <= 3, "one runs and two wait");
    };
    let expected = GenerateError::QueueFull {
        max_num_waiting: 2,
        retry_after_s: 1,
    };
    assert_eq!(error, expected);
    let rejected = ("vllm:admission_rejections_total", "reason=\"queue_full\"");
    assert_eq!(labelled(&front, rejected.0, rejected.1), 1.0);

    // A job of which a part does not fit leaves nothing behind.
    drop(streams);
    engine_falls_idle(&front).await;
    let many: Vec<&[TokenId]> = vec![&[5]; 8];
    let error = front.generate(job(&many, 200)).await.err();
    assert_eq!(error, Some(expected));
    engine_falls_idle(&front).await;
    let stream = front.generate(job(&[&[5]], 3)).await.unwrap();
    assert_eq!(collect(stream).await.unwrap()[0].token_ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_ends_its_streams_and_is_started_again() {
    let launcher = ScriptedLauncher(|life| {
        scripted(ScriptedOptions {
            device_error_at_step: (life < 2).then_some(5),
            ..ScriptedOptions::default()
        })
    });
    let handle = Front::start(config(), model_info(None), Arc::new(launcher));
    let front = ready(&handle).await;
    for life in 0..2 {
        let restarted = front.status().engines[0].restarts;
        assert_eq!(restarted, life);
        let result = match front.generate(job(&[&[5]], 50)).await {
            Ok(stream) => collect(stream).await,
            Err(error) => Err(error),
        };
        let error = result.expect_err("the engine dies at its fifth step");
        assert!(matches!(error, GenerateError::EngineFailed(_)), "{error:?}");
        let mut states = front.engine_states();
        while front.status().engines[0].restarts == life {
            states.changed().await.expect("the front lives");
        }
        wait_for(&handle, |state| *state == EngineState::Ready).await;
    }
    let stream = front.generate(job(&[&[5]], 50)).await.unwrap();
    assert_eq!(collect(stream).await.unwrap()[0].token_ids.len(), 50);
    assert_eq!(metric(&front, "hotspare:engine_restarts_total"), 2.0);
    let errors = ("vllm:request_success_total", "finished_reason=\"error\"");
    assert_eq!(labelled(&front, errors.0, errors.1), 2.0);
    assert!(metric(&front, "vllm:generation_tokens_total") > 50.0);
}

async fn puppet_front() -> (FrontHandle, tokio::sync::mpsc::UnboundedReceiver<Puppet>) {
    let (launcher, puppets) = PuppetLauncher::new();
    let handle = Front::start(config(), model_info(None), launcher);
    (handle, puppets)
}

/// Starts blocking work of a puppet beside the runtime; awaiting the result is up to the caller.
fn pull<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    let work = tokio::task::spawn_blocking(work);
    async { work.await.expect("the puppet does not fail") }
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
async fn an_engine_that_keeps_failing_is_given_up() {
    let (mut handle, mut puppets) = puppet_front().await;
    for _ in 0..config().max_num_engine_failures {
        let mut puppet = puppets.recv().await.expect("the engine was started");
        pull(move || puppet.greet()).await;
    }
    let error = handle.failed().await;
    let FrontError::GaveUp { num_failures, .. } = error else {
        panic!("it was to give up: {error}");
    };
    assert_eq!(num_failures, config().max_num_engine_failures);
    assert!(puppets.try_recv().is_err(), "and no further engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_before_admission_can_be_tried_again_and_one_after_it_cannot() {
    let (handle, mut puppets) = puppet_front().await;
    let mut puppet = puppets.recv().await.expect("the engine was started");
    let puppet = pull(move || {
        puppet.greet();
        puppet
    });
    let mut puppet = puppet.await;
    let front = ready(&handle).await;
    let dying = pull(move || assert!(matches!(puppet.receive(), Some(FrontMessage::Generate(_)))));
    let request = front.generate(job(&[&[5]], 5));
    let (result, ()) = tokio::join!(request, dying);
    assert!(matches!(result.err(), Some(GenerateError::NotReady { .. })));

    let mut puppet = puppets.recv().await.expect("it was started again");
    let serving = pull(move || {
        puppet.greet();
        let request = puppet.admit();
        let event = hotspare_batch::SequenceEvent {
            request_id: request.request_id,
            ..event(0, &[8])
        };
        puppet.step(1, event);
    });
    wait_for(&handle, |state| *state == EngineState::Ready).await;
    let mut stream = front.generate(job(&[&[5]], 5)).await.unwrap();
    let first = stream.next().await.expect("a token").expect("a delta");
    assert_eq!(first.token_ids, [8]);
    serving.await;
    let error = stream
        .next()
        .await
        .expect("an error")
        .expect_err("an error");
    assert!(matches!(error, GenerateError::EngineFailed(_)), "{error:?}");
    assert!(stream.next().await.is_none());
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
async fn jobs_that_make_no_sense_are_refused_here() {
    let handle = start_scripted(&ScriptedOptions::default());
    let front = ready(&handle).await;
    let long = vec![5; MAX_MODEL_LEN as usize];
    let many: Vec<&[TokenId]> = vec![&[5]; config().max_num_sequences_per_job + 1];
    for (job, expected) in [
        (job(&[], 5), "at least one prompt"),
        (job(&[&[]], 5), "0 tokens"),
        (job(&[&long], 5), "256 tokens"),
        (job(&[&[512]], 5), "token id 512"),
        (job(&many, 5), "4097 sequences"),
    ] {
        match front.generate(job).await {
            Err(GenerateError::Impossible(why)) => assert!(why.contains(expected), "{why}"),
            Err(other) => panic!("{expected}: {other}"),
            Ok(_) => panic!("{expected}: it was taken"),
        }
    }
    let stream = front.generate(job(&[&long[..250]], 50)).await.unwrap();
    let answers = collect(stream).await.unwrap();
    assert_eq!(
        answers[0].token_ids.len(),
        6,
        "the context bounds the output"
    );
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
    let error = stream
        .next()
        .await
        .expect("an error")
        .expect_err("an error");
    assert!(matches!(error, GenerateError::EngineFailed(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_vllms_names() {
    let handle = start_scripted(&ScriptedOptions::default());
    let front = ready(&handle).await;
    let stream = front.generate(job(&[&[5; 40]], 5)).await.unwrap();
    collect(stream).await.unwrap();
    engine_falls_idle(&front).await;
    for name in [
        "vllm:num_requests_running{",
        "vllm:num_requests_waiting{",
        "vllm:kv_cache_usage_perc{",
        "vllm:prompt_tokens_total{",
        "vllm:generation_tokens_total{",
        "vllm:num_preemptions_total{",
        "vllm:prefix_cache_queries_total{",
        "vllm:prefix_cache_hits_total{",
        "vllm:request_success_total{",
        "vllm:time_to_first_token_seconds_bucket{",
        "vllm:inter_token_latency_seconds_bucket{",
        "vllm:request_time_per_output_token_seconds_sum{",
        "vllm:e2e_request_latency_seconds_bucket{",
        "vllm:request_decode_time_seconds_bucket{",
        "vllm:request_prompt_tokens_bucket{",
        "vllm:request_generation_tokens_bucket{",
        "vllm:request_max_num_generation_tokens_bucket{",
        "vllm:request_params_n_bucket{",
        "vllm:request_params_max_tokens_bucket{",
        "vllm:cache_config_info{",
    ] {
        metric(&front, name);
    }
    let text = front.metrics_text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    for line in samples {
        assert!(line.contains("model_name=\"test\""), "{line}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(metric(&front, "vllm:prompt_tokens_total"), 40.0);
}
