//! What a spare is given to read, when, and what it costs a stream that is taken over.

use futures::StreamExt;
use hotspare_batch::SequenceEvent;
use hotspare_engine::{EngineOptions, ScriptedOptions};
use hotspare_link::{EngineMessage, FrontMessage};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::testing::{
    Puppet, PuppetLauncher, ScriptedLauncher, config, event, job, model_info, scripted,
};
use crate::testing_streams::{collect, metric, proved, pull, ready};
use crate::{Front, FrontHandle, GenerationStream};

fn shadowing() -> FrontConfig {
    FrontConfig {
        num_spare_engines: 1,
        spare_shadow: ShadowMode::Full,
        spare_shadow_interval_ms: 1,
        spare_shadow_min_lag_tokens: 16,
        spare_shadow_max_num_tokens: 64,
        spare_shadow_max_round_ms: 60_000,
        spare_shadow_max_load_percent: 100,
        ..config()
    }
}

fn start(config: FrontConfig) -> (FrontHandle, UnboundedReceiver<Puppet>) {
    let (launcher, puppets) = PuppetLauncher::new();
    (Front::start(config, model_info(None), launcher), puppets)
}

fn prompt(first: u32) -> Vec<u32> {
    (first..first + 40).collect()
}

/// Tokens `0..num` of a sequence, one a step.
fn tokens(puppet: &mut Puppet, request: &Generate, num: u32) {
    for index in 0..num {
        let event = SequenceEvent {
            request_id: request.request_id,
            attempt: request.attempt,
            ..event(index, &[8])
        };
        puppet.step(index.into(), event);
    }
}

fn generate(puppet: &mut Puppet) -> Generate {
    match puppet.receive() {
        Some(FrontMessage::Generate(request)) => *request,
        other => panic!("something to read was due: {other:?}"),
    }
}

fn answer(puppet: &mut Puppet, request: &Generate, finish: FinishReason) {
    let (request_id, attempt) = (request.request_id, request.attempt);
    puppet.send(&EngineMessage::Admitted {
        request_id,
        attempt,
    });
    let event = SequenceEvent {
        request_id,
        finish: Some(finish),
        ..event(0, &[])
    };
    puppet.step(1, event);
}

/// A job on `main` that has delivered `num` tokens.
async fn begun(
    front: &Front,
    main: Puppet,
    prompt: &[u32],
    num: u32,
) -> (GenerationStream, Generate, Puppet) {
    let mut main = main;
    let serving = pull(move || {
        let request = main.admit();
        tokens(&mut main, &request, num);
        (request, main)
    });
    let mut stream = front.generate(job(&[prompt], 60)).await.unwrap();
    let (request, main) = serving.await;
    for _ in 0..num {
        stream.next().await.expect("a token").unwrap();
    }
    (stream, request, main)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_reads_whole_blocks_of_what_was_answered_and_is_left_alone_when_it_serves() {
    let (handle, mut puppets) = start(shadowing());
    let main = proved(&mut puppets, 1).await;
    let front = ready(&handle).await;
    let mut spare = proved(&mut puppets, 2).await;
    let (mut stream, request, mut main) = begun(&front, main, &prompt(5), 1).await;
    let (first, mut spare) = pull(move || {
        let first = generate(&mut spare);
        answer(&mut spare, &first, FinishReason::Length);
        (first, spare)
    })
    .await;
    assert!(first.request_id.is_shadow() && first.prefill_only);
    assert_eq!(first.ids, prompt(5)[..32], "whole blocks");
    let mut main = pull(move || {
        for index in 1..9 {
            let event = SequenceEvent {
                request_id: request.request_id,
                ..event(index, &[8])
            };
            main.step(index.into(), event);
        }
        main
    })
    .await;
    for _ in 1..9 {
        stream.next().await.expect("a token").unwrap();
    }
    let (second, spare) = pull(move || (generate(&mut spare), spare)).await;
    let mut known = prompt(5);
    known.extend([8; 8]);
    assert_eq!(
        second.ids, known,
        "but for the last one, which no step survived"
    );
    let unread: Vec<_> = front
        .status()
        .engines
        .iter()
        .map(|e| e.unread_tokens)
        .collect();
    assert_eq!(unread, [None, Some(16)]);
    // It is reading when it has to serve.
    main = pull(move || {
        main.send_garbage();
        main
    })
    .await;
    let reading = tokio::spawn(collect(stream));
    let mut spare = spare;
    let (cancelled, resumed) = pull(move || {
        let cancelled = spare.receive();
        let resumed = spare.admit();
        let event = SequenceEvent {
            request_id: resumed.request_id,
            attempt: resumed.attempt,
            finish: Some(FinishReason::Length),
            ..event(9, &[9])
        };
        spare.step(1, event);
        (cancelled, resumed)
    })
    .await;
    let request_id = second.request_id;
    assert_eq!(cancelled, Some(FrontMessage::Cancel { request_id }));
    assert_eq!((resumed.num_delivered, resumed.ids.len()), (9, 49));
    let answers = reading.await.unwrap().unwrap();
    assert_eq!(answers[0].token_ids, [9], "the others were read before");
    drop(main);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spare_ended_over_is_given_to_no_other() {
    let (handle, mut puppets) = start(shadowing());
    let main = proved(&mut puppets, 1).await;
    let front = ready(&handle).await;
    let mut spare = proved(&mut puppets, 2).await;
    let (poison, _, main) = begun(&front, main, &prompt(5), 1).await;
    let read = pull(move || generate(&mut spare).ids).await;
    assert_eq!(read, prompt(5)[..32], "and with this it ended");
    let mut spare = proved(&mut puppets, 3).await;
    let (other, _, main) = begun(&front, main, &prompt(100), 1).await;
    let (read, spare) = pull(move || (generate(&mut spare).ids, spare)).await;
    assert_eq!(read, prompt(100)[..32], "only this");
    assert_eq!(metric(&front, "hotspare:replay_gap_seconds_count"), 0.0);
    drop((poison, other, main, spare));
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_alone_are_read_where_that_is_asked_for_and_nothing_where_it_is_off() {
    for (mode, expected) in [(ShadowMode::Prompts, Some(32)), (ShadowMode::Off, None)] {
        let (handle, mut puppets) = start(FrontConfig {
            spare_shadow: mode,
            engine_canary_interval_ms: 20,
            ..shadowing()
        });
        let main = proved(&mut puppets, 1).await;
        let front = ready(&handle).await;
        let mut spare = proved(&mut puppets, 2).await;
        let (stream, _, main) = begun(&front, main, &prompt(5), 30).await;
        let found = pull(move || {
            let mut num_read = None;
            // What comes, comes long before the third canary.
            let mut num_canaries = 0;
            while num_canaries < 3 {
                match spare.receive_any() {
                    Some(FrontMessage::Generate(request)) => {
                        num_read = Some(request.ids.len());
                        answer(&mut spare, &request, FinishReason::Length);
                    }
                    Some(FrontMessage::Canary { nonce }) => {
                        num_canaries += 1;
                        spare.send(&EngineMessage::CanaryDone { nonce, error: None });
                    }
                    other => panic!("{other:?}"),
                }
            }
            num_read
        });
        assert_eq!(found.await, expected, "{mode:?}");
        drop((stream, main));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_taken_over_finds_what_was_read() {
    let launcher = ScriptedLauncher(move |_| EngineOptions {
        // The main engine ends by the 150th token, when the spare has long read most of it.
        faults: "die-after-token=150".to_owned(),
        ..scripted(ScriptedOptions {
            step_time_us: 2_000,
            ..ScriptedOptions::default()
        })
    });
    let handle = Front::start(shadowing(), model_info(None), Arc::new(launcher));
    let front = ready(&handle).await;
    let params = job(&[&prompt(5)], 200);
    let expected =
        ScriptedOptions::default().continuation(&prompt(5), 0, &params.sampling, &params.stop, 200);
    let answers = collect(front.generate(params).await.unwrap())
        .await
        .unwrap();
    assert_eq!(answers[0].token_ids, expected);
    // 40 of the prompt at first, then 190 in the replay, of which the spare has read the most.
    crate::testing_streams::engine_falls_idle(&front).await;
    assert_eq!(metric(&front, "vllm:prefix_cache_queries_total"), 230.0);
    let num_found = metric(&front, "vllm:prefix_cache_hits_total");
    assert!(num_found >= 96.0, "{num_found}");
    // The prompt once for each engine that it was given to; what was read along is not counted.
    assert_eq!(metric(&front, "vllm:prompt_tokens_total"), 80.0);
    assert_eq!(metric(&front, "vllm:generation_tokens_total"), 200.0);
}
