//! The scheduler's step: `schedule` and `commit` of decode steps at many running sequences.
//!
//! Invariant: the device's part is a table look-up outside the measured time.

use std::time::{Duration, Instant};

use hotspare_batch::{
    Batch, DrawnTokens, Generate, RequestId, RowOutput, SamplingParams, StepOutput, StopParams,
};
use hotspare_scheduler::{Scheduler, SchedulerConfig, SchedulingPolicy};

const NUM_STEPS: usize = 2_000;
const PROMPT_TOKENS: usize = 200;
const BLOCK_SIZE: usize = 16;

/// Prints microseconds a step.
pub(crate) fn run() {
    println!("\n## Scheduler: schedule + commit of one decode step\n");
    println!("| running sequences | mean us | p50 us | p99 us |");
    println!("|---:|---:|---:|---:|");
    for num_running in [1, 16, 64, 256] {
        let mut times = decode_steps(num_running);
        times.sort();
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap_or(1);
        let [mean, p50, p99] = [mean, times[times.len() / 2], times[times.len() * 99 / 100]]
            .map(|time| time.as_secs_f64() * 1e6);
        println!("| {num_running} | {mean:.1} | {p50:.1} | {p99:.1} |");
    }
}

fn config(num_running: usize) -> SchedulerConfig {
    let max_model_len = PROMPT_TOKENS + NUM_STEPS + 64;
    SchedulerConfig {
        max_num_seqs: num_running,
        max_num_batched_tokens: 8192,
        max_model_len,
        block_size: BLOCK_SIZE,
        num_blocks: num_running * max_model_len.div_ceil(BLOCK_SIZE) + 1,
        num_eager_blocks: usize::MAX,
        max_num_waiting: num_running,
        reports_cached_blocks: false,
        enable_prefix_caching: true,
        long_prefill_token_threshold: 0,
        sliding_window: None,
        policy: SchedulingPolicy::Fcfs,
        max_num_in_flight: 1,
    }
}

fn request(index: usize) -> Generate {
    let first = u32::try_from(index).unwrap_or(0) * 7;
    Generate {
        request_id: RequestId(index as u64),
        attempt: 0,
        ids: (first..).take(PROMPT_TOKENS).collect(),
        num_delivered: 0,
        sampling: SamplingParams::greedy(),
        stop: StopParams {
            max_tokens: u32::MAX / 2,
            ..StopParams::default()
        },
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }
}

/// What a device would answer: one token a sampling row.
fn answer(batch: &Batch) -> StepOutput {
    let rows = batch.rows.iter().map(|row| RowOutput {
        slot: row.slot,
        token_ids: if row.samples {
            [row.num_computed_tokens % 997].into_iter().collect()
        } else {
            DrawnTokens::new()
        },
        ..RowOutput::default()
    });
    StepOutput {
        step: batch.step,
        rows: rows.collect(),
        ..StepOutput::default()
    }
}

fn decode_steps(num_running: usize) -> Vec<Duration> {
    let mut scheduler =
        Scheduler::new(config(num_running)).unwrap_or_else(|e| panic!("a valid config: {e}"));
    for index in 0..num_running {
        scheduler
            .add(request(index), 0)
            .unwrap_or_else(|e| panic!("admission: {e}"));
    }
    let mut events = Vec::new();
    let mut times = Vec::with_capacity(NUM_STEPS);
    for step in 0..NUM_STEPS as u64 {
        let start = Instant::now();
        let Some(batch) = scheduler.schedule(step) else {
            break;
        };
        let scheduled = start.elapsed();
        let is_decode = batch.rows.len() == num_running && batch.num_tokens() == num_running;
        let output = answer(&batch);
        let start = Instant::now();
        if let Err(error) = scheduler.commit(output, step) {
            panic!("commit: {error}");
        }
        events.clear();
        scheduler.drain_events(&mut events);
        if is_decode {
            times.push(scheduled + start.elapsed());
        }
    }
    times
}
