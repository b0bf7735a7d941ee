//! A Qwen3-0.6B shape of random weights in three formats: tokens a second beside llama.cpp, and how
//! near decode comes to the memory's speed.
//!
//! Each file is run by both in turns, in one process each, several rounds; the best of each counts,
//! for other work on the machine only ever slows a run down. The limit is measured in the same
//! rounds, by reading the same bytes. Files come from the directory that `HOTSPARE_BENCH_MODELS`
//! names, and are made by `cargo xtask make-gguf` where they are not there.
//!
//! Invariant: ratios are of numbers from the same run; without llama.cpp there is none, said
//! loudly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use hotspare_model::Quantization;
use hotspare_model::weights::WeightDtype;

use crate::device::{Device, Measured};
use crate::llama::{Llama, PYTHON_VARIABLE};

const FORMATS: [&str; 3] = ["q8_0", "q4_k", "bf16"];
const NUM_ROUNDS: usize = 4;
/// Sequences, tokens that each has read, and room for each.
const SHAPE: [usize; 3] = [16, 128, 512];
const PROMPT_TOKENS: usize = 512;
/// Streams, and steps of a round.
const DECODES: [(usize, usize); 3] = [(1, 24), (4, 16), (16, 12)];
/// The shape, as `make-gguf` takes it.
const MODEL: [&[&str]; 3] = [
    &[
        "--arch",
        "qwen3",
        "--hidden",
        "1024",
        "--layers",
        "28",
        "--intermediate",
        "3072",
    ],
    &[
        "--heads",
        "16",
        "--kv-heads",
        "8",
        "--head-dim",
        "128",
        "--vocab",
        "151936",
        "--tied",
    ],
    &["--theta", "1000000"],
];
/// Names the formats to run, with commas; all where it is not set.
const FORMATS_VARIABLE: &str = "HOTSPARE_BENCH_FORMATS";
/// Names the directory of the files.
const MODELS_VARIABLE: &str = "HOTSPARE_BENCH_MODELS";

/// One line of the table.
struct Case {
    name: String,
    /// Tokens and steps of a round.
    num_tokens: usize,
    num_steps: usize,
    ours: Measured,
    theirs: Option<f64>,
}

/// Prints the table.
pub(crate) fn run() {
    println!("\n## A Qwen3-0.6B shape, random weights, on the device alone\n");
    if std::env::var_os(PYTHON_VARIABLE).is_none() {
        println!(
            "THE COMPARISON WITH LLAMA.CPP IS LEFT OUT: {PYTHON_VARIABLE} does not name a Python \
             that has llama-cpp-python.\n"
        );
    }
    println!(
        "| file | case | tokens/s | llama.cpp | ratio | weights GB/s | share of the limit | linear \
         | attention | sample |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let wanted = std::env::var(FORMATS_VARIABLE).unwrap_or_else(|_| FORMATS.join(","));
    for format in FORMATS
        .into_iter()
        .filter(|&format| wanted.split(',').any(|w| w == format))
    {
        if let Err(reason) = run_format(format) {
            println!("| {format} | FAILED: {reason} |");
        }
    }
    println!(
        "\n{} threads; prompts of {PROMPT_TOKENS} tokens; decode from position {}; KV caches in \
         float16, in the lines that say so in q8_0; hotspare draws each token, llama.cpp's time is \
         without. Best of {NUM_ROUNDS} rounds in turns.",
        num_threads(),
        SHAPE[1]
    );
    if wanted.split(',').any(|format| format == "bf16")
        && let Err(reason) = quantize_at_load()
    {
        println!("FAILED: {reason}");
    }
}

fn num_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn run_format(format: &str) -> Result<(), String> {
    let path = model_path(format)?;
    let threads = num_threads();
    let mut device = Device::load(&path, threads, SHAPE, WeightDtype::F16, None)?;
    let mut eight = Device::load(&path, threads, SHAPE, WeightDtype::Q8_0, None)?;
    let mut llama = Llama::load(&path, threads, SHAPE)?;
    let mut cases = vec![Case::new("prefill".to_owned(), PROMPT_TOKENS, 1)];
    for (streams, steps) in DECODES {
        cases.push(Case::new(
            format!("decode {streams}"),
            streams * steps,
            steps,
        ));
    }
    let last = DECODES[DECODES.len() - 1];
    let mut with_eight = Case::new(
        format!("decode {}, q8_0 KV", last.0),
        last.0 * last.1,
        last.1,
    );
    let mut read_seconds = f64::INFINITY;
    for _ in 0..NUM_ROUNDS {
        read_seconds = read_seconds.min(device.read_weights(threads));
        with_eight.keep_best(eight.decode(last.0, last.1)?);
        for (nth, case) in cases.iter_mut().enumerate() {
            let ours = match nth {
                0 => device.prefill(PROMPT_TOKENS)?,
                _ => device.decode(DECODES[nth - 1].0, DECODES[nth - 1].1)?,
            };
            case.keep_best(ours);
            if let Some(llama) = &mut llama {
                let theirs = match nth {
                    0 => llama.prefill(PROMPT_TOKENS)?,
                    _ => llama.decode(DECODES[nth - 1].0, DECODES[nth - 1].1)?,
                };
                case.theirs = Some(case.theirs.map_or(theirs, |best| best.min(theirs)));
            }
        }
    }
    cases.push(with_eight);
    let num_bytes = device.num_weight_bytes() as f64;
    for case in &cases {
        case.print(format, num_bytes, num_bytes / read_seconds);
    }
    println!(
        "| {format} | read {:.0} MB | | | | {:.1} | | | | |",
        num_bytes / 1e6,
        num_bytes / read_seconds / 1e9
    );
    Ok(())
}

/// Prints how long the dense file takes to load when its weights are quantized meanwhile.
fn quantize_at_load() -> Result<(), String> {
    let path = model_path("bf16")?;
    println!("\n### `--quantization` of the bf16 file at load\n");
    println!("| type | seconds | million weights/s | MB left |\n|---|---:|---:|---:|");
    let kept = [None].into_iter().chain(Quantization::OFFERED.map(Some));
    for dtype in kept {
        let start = Instant::now();
        let device = Device::load(&path, num_threads(), [0, 1, 64], WeightDtype::F16, dtype)?;
        let seconds = start.elapsed().as_secs_f64();
        let dense_bytes = device.num_weight_bytes() as f64;
        // The table counts what the type itself takes; the output matrix may have another.
        let bits = dtype.map_or(16.0, |dtype| {
            8.0 * dtype.block_bytes() as f64 / dtype.block_len() as f64
        });
        println!(
            "| {} | {seconds:.1} | {:.0} | {:.0} |",
            dtype.map_or("none", WeightDtype::name),
            dense_bytes / 2e6 / seconds,
            dense_bytes / 1e6 * bits / 16.0
        );
    }
    Ok(())
}

impl Case {
    fn new(name: String, num_tokens: usize, num_steps: usize) -> Self {
        let ours = Measured {
            seconds: f64::INFINITY,
            ..Measured::default()
        };
        Self {
            name,
            num_tokens,
            num_steps,
            ours,
            theirs: None,
        }
    }

    fn keep_best(&mut self, ours: Measured) {
        if ours.seconds < self.ours.seconds {
            self.ours = ours;
        }
    }

    /// `bytes_per_s` is the speed at which memory gives the weights.
    fn print(&self, format: &str, num_bytes: f64, bytes_per_s: f64) {
        let tokens = self.num_tokens as f64;
        let ours = self.ours.seconds;
        let (theirs, ratio) = match self.theirs {
            Some(theirs) => (
                format!("{:.1}", tokens / theirs),
                format!("{:.2}", theirs / ours),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let read = num_bytes * self.num_steps as f64 / ours;
        let parts = self.ours.parts.map(|part| 100.0 * part / ours);
        println!(
            "| {format} | {} | {:.1} | {theirs} | {ratio} | {:.1} | {:.0} % | {:.0} % | {:.0} % | \
             {:.0} % |",
            self.name,
            tokens / ours,
            read / 1e9,
            100.0 * read / bytes_per_s,
            parts[0],
            parts[1],
            parts[2]
        );
    }
}

/// The file of a format, made if it is not there.
fn model_path(format: &str) -> Result<PathBuf, String> {
    let directory = match std::env::var_os(MODELS_VARIABLE) {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-models"),
    };
    let path = directory.join(format!("qwen3-0.6b-{format}.gguf"));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // As in llama.cpp's files, what makes the logits has six bits at least.
    let output_format = match format {
        "q4_k" => "q6_k",
        format => format,
    };
    let made = Command::new(cargo)
        .args(["xtask", "make-gguf"])
        .args(MODEL.concat())
        .args(["--type", format, "--output-type", output_format])
        .arg(&path)
        .status();
    match made {
        Ok(status) if status.success() => Ok(path),
        _ => Err(format!(
            "`cargo xtask make-gguf` does not make {}",
            path.display()
        )),
    }
}
