//! `hotspare bench`: what an engine does in a second, without HTTP: decoding at several numbers of
//! streams, reading a prompt, starting.
//!
//! It goes through the engine's own loop, scheduler and link, as a front would; the prefix cache is
//! off and every prompt is another.
//!
//! Invariant: a decode measurement counts steps in which every stream drew a token.

use std::time::{Duration, Instant};

use hotspare_batch::{RequestId, TokenId};
use hotspare_engine::EngineOptions;
use serde_json::json;

use super::args::BenchArgs;
use super::engine_client::EngineClient;
use super::report::Report;

/// What an engine without enough memory says first.
const OUT_OF_MEMORY: &str = "not enough memory";

/// Tokens in a step at most, as the server's default.
const MAX_NUM_BATCHED_TOKENS: usize = 2048;

pub(super) fn run(args: &BenchArgs, report: &mut Report) -> Result<(), String> {
    // The first that fits, and the seconds of its start.
    let mut fits: Option<(&str, f64)> = None;
    for model in &args.models {
        match bench_model(args, model, report) {
            Ok(start_s) => {
                fits.get_or_insert((model, start_s));
            }
            // A small card is no mistake: the next model may fit.
            Err(message) if message.starts_with(OUT_OF_MEMORY) => {
                let more = json!({"model": model, "kind": "does-not-fit"});
                report.result(true, model, &format!("does not fit: {message}"), more);
            }
            Err(message) => report.result(false, model, &message, json!({})),
        }
    }
    if !args.skip_products {
        super::bench_products::run(report)?;
    }
    super::bench_profile::run(args, fits, report)
}

/// Returns the seconds of the start.
fn bench_model(args: &BenchArgs, model: &str, report: &mut Report) -> Result<f64, String> {
    let most = args.decode.iter().copied().max().unwrap_or(1);
    let options = EngineOptions {
        model: model.to_owned(),
        device: report.machine.device.clone(),
        load_format: args.load_format.clone(),
        dtype: args.dtype.clone(),
        numerics: args.numerics.clone(),
        max_num_seqs: most.max(1),
        max_num_batched_tokens: MAX_NUM_BATCHED_TOKENS,
        max_model_len: Some(max_len(args, most)),
        enable_prefix_caching: false,
        stream_flush_interval_ms: 0,
        ..EngineOptions::default()
    };
    let timeout = Duration::from_secs(args.start_timeout_s);
    let mut engine = EngineClient::start(options, timeout)?;
    let start_s = engine.start_s;
    let more = json!({"model": model, "kind": "start", "seconds": start_s,
        "numerics_id": engine.hello.numerics_id});
    report.result(
        true,
        &format!("{model} start"),
        &format!("{start_s:.2} s"),
        more,
    );
    for &streams in &args.decode {
        let mut step_ms = Vec::new();
        for repeat in 0..args.repeats.max(1) {
            step_ms.push(decode(&mut engine, args, streams, repeat)?);
        }
        let [best, median] = best_and_median(&mut step_ms);
        let tokens_per_s = streams as f64 * 1e3 / median;
        let note = format!("{tokens_per_s:9.1} tokens/s, {median:.3} ms a step ({best:.3} best)");
        let more = json!({"model": model, "kind": "decode", "streams": streams,
            "context": args.context, "steps": args.steps, "step_ms": median,
            "best_step_ms": best, "tokens_per_s": tokens_per_s});
        report.result(true, &format!("{model} decode {streams}"), &note, more);
    }
    let mut prefill_ms = Vec::new();
    for repeat in 0..args.repeats.max(1) {
        prefill_ms.push(prefill(&mut engine, args.prefill, repeat)?);
    }
    let [best, median] = best_and_median(&mut prefill_ms);
    let tokens = args.prefill;
    let tokens_per_s = tokens as f64 * 1e3 / median;
    let note = format!("{tokens_per_s:9.1} tokens/s, {median:.2} ms ({best:.2} best)");
    let more = json!({"model": model, "kind": "prefill", "tokens": tokens, "ms": median,
        "best_ms": best, "tokens_per_s": tokens_per_s});
    report.result(true, &format!("{model} prefill {tokens}"), &note, more);
    Ok(start_s)
}

/// Steps in which the prompts of `streams` are read, with some to spare.
fn num_warm_up_steps(args: &BenchArgs, streams: usize) -> usize {
    (streams * args.context).div_ceil(MAX_NUM_BATCHED_TOKENS - streams.min(1024)) + 16
}

/// Tokens of the longest sequence.
fn max_len(args: &BenchArgs, most: usize) -> usize {
    let decode = args.context + num_warm_up_steps(args, most) + args.steps + 16;
    decode.max(args.prefill + 1)
}

fn best_and_median(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2]]
}

/// A prompt like no other.
fn prompt(engine: &EngineClient, len: usize, salt: usize) -> Vec<TokenId> {
    let vocab_size = u64::from(engine.hello.vocab_size.max(2));
    let mut state = salt as u64 + 1;
    let ids = (0..len).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % vocab_size) as TokenId
    });
    ids.collect()
}

/// Milliseconds a step of `streams` sequences.
fn decode(
    engine: &mut EngineClient,
    args: &BenchArgs,
    streams: usize,
    repeat: usize,
) -> Result<f64, String> {
    let max_tokens = num_warm_up_steps(args, streams) + args.steps + 8;
    let mut live: Vec<RequestId> = Vec::new();
    for stream in 0..streams {
        let ids = prompt(engine, args.context, stream + streams * (repeat + 1));
        live.push(engine.generate(ids, max_tokens)?);
    }
    let first_id = live.first().map_or(0, |id| id.0);
    let mut has_begun = vec![false; streams];
    let mut window: Option<(Instant, u64)> = None;
    let mut measured = None;
    while !live.is_empty() {
        let (step, events) = engine.step()?;
        for event in &events {
            let at = event.request_id.0.wrapping_sub(first_id) as usize;
            if let Some(begun) = has_begun.get_mut(at) {
                *begun = true;
            }
        }
        let ended: Vec<RequestId> = events
            .iter()
            .filter(|event| event.finish.is_some())
            .map(|event| event.request_id)
            .collect();
        match window {
            None if has_begun.iter().all(|&begun| begun) => window = Some((Instant::now(), step)),
            Some((start, first)) if measured.is_none() && step >= first + args.steps as u64 => {
                let num_steps = (step - first) as f64;
                measured = Some(start.elapsed().as_secs_f64() * 1e3 / num_steps);
                for &request_id in &live {
                    engine.cancel(request_id)?;
                }
            }
            _ => {}
        }
        if measured.is_none() && !ended.is_empty() {
            return Err("a stream ended before the measurement did".to_owned());
        }
        live.retain(|id| !ended.contains(id));
    }
    measured.ok_or_else(|| "nothing was measured".to_owned())
}

/// Milliseconds from asking to the first token of a prompt of `tokens`.
fn prefill(engine: &mut EngineClient, tokens: usize, repeat: usize) -> Result<f64, String> {
    let ids = prompt(engine, tokens, 1_000_003 * (repeat + 1));
    let start = Instant::now();
    engine.generate(ids, 1)?;
    loop {
        let (_, events) = engine.step()?;
        if events.iter().any(|event| event.finish.is_some()) {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_least() {
        assert_eq!(best_and_median(&mut [3.0, 1.0, 2.0]), [1.0, 2.0]);
        assert_eq!(best_and_median(&mut [5.0]), [5.0, 5.0]);
    }
}
