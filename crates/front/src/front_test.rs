//! The front over real engines with a scripted backend: what streams hold, and who is refused.

use hotspare_batch::{SamplingParams, StopParams, TokenId};
use hotspare_engine::ScriptedOptions;
use hotspare_protocol::{FinishReason, StopReason};

use futures::StreamExt;

use super::*;
use crate::testing::{MAX_MODEL_LEN, ScriptedLauncher, config, job, model_info, scripted};
use crate::testing_streams::{
    collect, engine_falls_idle, labelled, metric, ready, start_scripted, text_of,
};

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
        // The rest would take four seconds, which is what this thread has to cancel it.
        step_time_us: 20_000,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_is_cancelled() {
    let script = ScriptedOptions {
        step_time_us: 20_000,
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let launcher = ScriptedLauncher(|_| hotspare_engine::EngineOptions {
        max_num_seqs: 1,
        max_num_waiting: 2,
        ..scripted(ScriptedOptions {
            // None of them ends by itself while the others are started.
            step_time_us: 50_000,
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
async fn metrics_have_vllms_names() {
    let handle = start_scripted(&ScriptedOptions::default());
    let front = ready(&handle).await;
    let stream = front.generate(job(&[&[5; 40]], 5)).await.unwrap();
    collect(stream).await.unwrap();
    engine_falls_idle(&front).await;
    for name in [
        "vllm:num_requests_running{",
        "vllm:num_requests_waiting{",
        "vllm:num_requests_waiting_by_reason{",
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
        "vllm:request_queue_time_seconds_bucket{",
        "vllm:request_prefill_time_seconds_bucket{",
        "vllm:request_inference_time_seconds_bucket{",
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
    for phase in ["queue", "prefill", "decode", "inference"] {
        let count = format!("vllm:request_{phase}_time_seconds_count");
        assert_eq!(metric(&front, &count), 1.0, "{phase}");
    }
    assert_eq!(metric(&front, "vllm:prompt_tokens_total"), 40.0);
    // A step of forty, and one for each token but the last, which is not computed.
    let steps = |suffix: &str| metric(&front, &format!("vllm:iteration_tokens_total_{suffix}"));
    assert_eq!((steps("sum"), steps("count")), (44.0, 5.0));
    let bucket = |name: &str, le: &str| {
        let name = format!("vllm:{name}_bucket");
        labelled(&front, &name, &format!("le=\"{le}\""))
    };
    assert_eq!(bucket("iteration_tokens_total", "1.0"), 4.0);
    assert_eq!(bucket("iteration_tokens_total", "32.0"), 4.0);
    assert_eq!(bucket("iteration_tokens_total", "64.0"), 5.0);
    assert_eq!(bucket("iteration_tokens_total", "+Inf"), 5.0);
    assert_eq!(bucket("request_num_preemptions", "0.0"), 1.0);
    assert_eq!(metric(&front, "vllm:request_num_preemptions_sum"), 0.0);
    for reason in ["capacity", "deferred"] {
        let waiting = labelled(&front, "vllm:num_requests_waiting_by_reason", reason);
        assert_eq!(waiting, 0.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_share_the_tables_of_their_stop_strings() {
    let handle = start_scripted(&ScriptedOptions::default());
    let job = GenerationJob {
        n: 3,
        stop_strings: vec!["abc".repeat(100), "d".to_owned()],
        ..job(&[&[5], &[6]], 8)
    };
    let front = handle.front();
    let (starts, _) = front.sequences(&job, &front.model()).unwrap();
    assert_eq!(starts.len(), 6);
    let buffers: Vec<_> = starts
        .iter()
        .map(|s| s.choice.stop_buffer().unwrap())
        .collect();
    for buffer in &buffers {
        assert!(buffer.shares_tables_with(buffers[0]));
    }
}
