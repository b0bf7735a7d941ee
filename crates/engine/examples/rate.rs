//! Tokens a second through a whole engine over its socket, for several numbers of sequences.
//!
//! `cargo run --release -p hotspare-engine --example rate -- [MODEL]`: without MODEL the scripted
//! backend, so that only scheduling and transport are measured.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use hotspare_batch::{Generate, RequestId, SamplingParams, StopParams};
use hotspare_engine::{Backend, EngineOptions, ScriptedOptions, spawn_in_process};
use hotspare_link::{
    DEFAULT_MAX_FRAME_BYTES, EngineMessage, EngineStats, FrameReader, FrameWriter, FrontMessage,
    ProtocolRange,
};

const NUM_OUTPUT_TOKENS: u32 = 400;

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1);
    println!("mode       streams  tokens/s  us/step  device%  schedule us  transport us");
    for lookahead in [false, true] {
        for num_streams in [1, 4, 16, 64, 256] {
            let mut options = EngineOptions {
                lookahead,
                ..EngineOptions::default()
            };
            match &model {
                Some(model) => options.model.clone_from(model),
                None => options.backend = Backend::Scripted(ScriptedOptions::default()),
            }
            measure(options, num_streams)?;
        }
    }
    Ok(())
}

fn measure(options: EngineOptions, num_streams: u64) -> Result<(), Box<dyn Error>> {
    let mode = if options.lookahead {
        "look-ahead"
    } else {
        "plain"
    };
    let stream = spawn_in_process(options)?;
    let mut writer = FrameWriter::new(stream.try_clone()?, DEFAULT_MAX_FRAME_BYTES, 1 << 20);
    let mut reader = FrameReader::new(stream, DEFAULT_MAX_FRAME_BYTES);
    loop {
        match reader.read::<EngineMessage>()? {
            Some(EngineMessage::Loading { .. }) => {}
            Some(EngineMessage::Hello(_)) => break,
            other => return Err(format!("the engine did not start: {other:?}").into()),
        }
    }
    let protocol = ProtocolRange::OURS;
    writer.write(&FrontMessage::Hello { protocol })?;
    let started = Instant::now();
    for id in 0..num_streams {
        writer.queue(&FrontMessage::Generate(Box::new(generate(id))))?;
    }
    writer.queue(&FrontMessage::Drain)?;
    writer.flush()?;
    let mut stats = EngineStats::default();
    while let Some(message) = reader.read::<EngineMessage>()? {
        if let EngineMessage::Stats(last) = message {
            stats = *last;
        }
    }
    let elapsed = started.elapsed();
    let per_step = |ns: u64| ns as f64 / 1e3 / stats.num_steps as f64;
    println!(
        "{mode:10} {num_streams:7} {:9.0} {:8.1} {:7.0}% {:12.2} {:13.2}",
        stats.num_generated_tokens as f64 / elapsed.as_secs_f64(),
        per_step(elapsed.as_nanos() as u64),
        100.0 * stats.device.total_ns as f64 / elapsed.as_nanos() as f64,
        per_step(stats.schedule_ns),
        per_step(stats.transport_ns),
    );
    Ok(())
}

fn generate(id: u64) -> Generate {
    Generate {
        request_id: RequestId(id),
        attempt: 0,
        ids: (0..20).map(|i| 5 + (id as u32 * 7 + i) % 400).collect(),
        num_delivered: 0,
        sampling: SamplingParams::greedy(),
        stop: StopParams {
            max_tokens: NUM_OUTPUT_TOKENS,
            ..StopParams::default()
        },
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }
}
