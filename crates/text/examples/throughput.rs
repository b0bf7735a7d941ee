//! Tokenizer, detokenizer and chat template throughput on one core: `cargo run --release -p
//! hotspare-text --example throughput`.
//!
//! Invariant: prints figures and asserts nothing; it says so where the real tokenizers are absent.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a benchmark ends at the first failure")]
#![allow(missing_docs, reason = "a benchmark has no API")]

use std::hint::black_box;
use std::time::Instant;

use hotspare_testkit::shared_asset;
use hotspare_text::{ChatInput, ChatTemplate, Detokenizer, LocalTime, StopBuffer, TextModel};
use serde_json::json;

fn seconds(mut f: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn tokenizer(name: &str) {
    let Some(folder) = shared_asset("text/bench", name) else {
        return;
    };
    let bytes = std::fs::read(folder.join("tokenizer.json")).unwrap();
    let start = Instant::now();
    let model = TextModel::load(&bytes, None, None).unwrap();
    let load = start.elapsed().as_secs_f64();
    let sentence = "The quick brown fox — naïve, 東京 — jumps over 12 lazy dogs.\n";
    let text = sentence.repeat(1_000_000 / sentence.len() + 1);
    let mut ids = Vec::new();
    let encode = seconds(|| ids = black_box(model.encode(&text, false).unwrap()));
    let decode = seconds(|| {
        let mut detokenizer = Detokenizer::new(&model, &[], true);
        for &id in &ids {
            black_box(detokenizer.push(id));
        }
    });
    let stops = ["\n\n".to_owned(), "User:".to_owned(), "</s>".to_owned()];
    let with_stops = seconds(|| {
        let mut detokenizer = Detokenizer::new(&model, &[], true);
        let mut buffer = StopBuffer::new(&stops, false);
        for &id in &ids {
            black_box(buffer.push(&detokenizer.push(id)));
        }
    });
    println!(
        "{name:22} load {:4.0} ms | encode {:5.1} MB/s | detokenize {:5.1} M tokens/s, \
         with 3 stop strings {:5.1}",
        load * 1e3,
        text.len() as f64 / encode / 1e6,
        ids.len() as f64 / decode / 1e6,
        ids.len() as f64 / with_stops / 1e6,
    );
}

fn templates() {
    let messages: Vec<_> = (0..20)
        .map(|i| ["user", "assistant"][i % 2])
        .map(|role| json!({"role": role, "content": "Hello there"}))
        .collect();
    let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}";
    let template = ChatTemplate::compile(source).unwrap();
    let input = ChatInput::new(&messages, LocalTime::default());
    let render = seconds(|| {
        for _ in 0..1_000 {
            black_box(template.render(&input, [], &[]).unwrap());
        }
    });
    let looping = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
    let looping = ChatTemplate::compile(looping).unwrap();
    let stopped = seconds(|| assert!(looping.render(&input, [], &[]).is_err()));
    println!(
        "chat template          20 messages {:.0} us | an endless one is ended after {:.0} ms",
        render * 1e3,
        stopped * 1e3
    );
}

fn main() {
    for name in [
        "stories260k",
        "tokenizers/minimind",
        "tokenizers/phi-3-mini",
        "tokenizers/qwen2.5",
    ] {
        tokenizer(name);
    }
    templates();
}
