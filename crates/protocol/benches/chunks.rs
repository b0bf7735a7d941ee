//! Chunks a second that one core can encode: `cargo bench -p hotspare-protocol --bench chunks`.
#![allow(clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use hotspare_protocol::{AnswerHead, ChatChunks, ChatDelta, ChatRequest, RequestLimits};

fn main() {
    const NUM_CHUNKS: u32 = 2_000_000;
    let chunks = ChatChunks::new(&AnswerHead {
        id: "chatcmpl-0123456789abcdef0123456789abcdef".into(),
        created: 1_700_000_000,
        model: "spark".into(),
        system_fingerprint: None,
    });
    let start = Instant::now();
    let mut num_bytes = 0;
    for index in 0..NUM_CHUNKS {
        let mut out = Vec::with_capacity(256);
        let delta = ChatDelta {
            text: black_box(" grammatical"),
            ..ChatDelta::default()
        };
        chunks.write_delta(index % 4, &delta, None, &mut out);
        num_bytes += black_box(out).len();
    }
    let per_second = f64::from(NUM_CHUNKS) / start.elapsed().as_secs_f64();
    println!(
        "chat chunks encoded: {per_second:.0} a second on one core, {} bytes each",
        num_bytes / NUM_CHUNKS as usize
    );

    const NUM_REQUESTS: u32 = 200_000;
    let body = br#"{"model":"spark","messages":[{"role":"system","content":"You answer."},
        {"role":"user","content":"What is Hotspare?"}],"temperature":0.7,"max_tokens":64,
        "stream":true,"stream_options":{"include_usage":true}}"#;
    let limits = RequestLimits::new(2048, 4096);
    let start = Instant::now();
    for _ in 0..NUM_REQUESTS {
        let request = ChatRequest::parse(black_box(body), &limits);
        assert!(black_box(request).is_ok());
    }
    let per_second = f64::from(NUM_REQUESTS) / start.elapsed().as_secs_f64();
    println!("chat requests parsed: {per_second:.0} a second on one core");
}
