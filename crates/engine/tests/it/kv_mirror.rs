//! KV blocks of one engine in the next: what is found is the answer that would have been computed,
//! and what is damaged, foreign or missing costs time only.
//!
//! Invariant: an engine that is gone is no different from one that was killed: nobody closes its
//! file in order.

use std::os::unix::fs::FileExt;
use std::path::Path;

use hotspare_batch::{Generate, SamplingParams};
use hotspare_engine::{Backend, EngineOptions, ScriptedOptions};
use hotspare_link::FrontMessage;
use proptest::prelude::*;
use tempfile::NamedTempFile;

use crate::front::{Answer, Front};
use crate::requests::{cases, expected, prompt, request, scripted};

fn mirrored(options: EngineOptions, file: &NamedTempFile) -> EngineOptions {
    EngineOptions {
        kv_mirror_path: Some(file.path().to_owned()),
        ..options
    }
}

fn adopt(front: &mut Front, path: &Path) {
    let path = path.to_str().unwrap().to_owned();
    front.send(&FrontMessage::AdoptKv { path });
}

/// The same request after `num_delivered` of its tokens came.
fn resumed(whole: &Generate, answer: &Answer, num_delivered: usize) -> Generate {
    let mut resumed = whole.clone();
    resumed.ids.extend(&answer.ids[..num_delivered]);
    resumed.num_delivered = num_delivered as u32;
    resumed.attempt = 1;
    resumed
}

/// Sequences that share half their prompts; greedy, seeded, and salted.
fn wholes() -> Vec<Generate> {
    let whole = |id: u64| {
        let mut whole = request(id, &prompt(id as u32, 50), 60);
        whole.sampling = SamplingParams {
            seed: id,
            temperature: (id % 2) as f32,
            ..SamplingParams::default()
        };
        whole.block_hash_keys = vec![9; (id % 3) as usize];
        whole
    };
    (1..=6).map(whole).collect()
}

/// What is in a block already when a step ends is copied with the next one.
fn run_on(front: &mut Front) {
    front.run(&[request(99, &prompt(77, 20), 3)]);
}

/// Runs `wholes` on an engine that keeps its blocks in `file`, and loses it.
fn lose(options: &EngineOptions, file: &NamedTempFile, wholes: &[Generate]) -> Vec<Answer> {
    let mut first = Front::start(mirrored(options.clone(), file));
    let answers = first.run(wholes);
    run_on(&mut first);
    answers
}

/// Resumes at token 41 of each; returns how many tokens were in the cache.
fn resume(front: &mut Front, wholes: &[Generate], answers: &[Answer]) -> u64 {
    let requests: Vec<_> = (wholes.iter().zip(answers))
        .map(|(whole, answer)| resumed(whole, answer, 41))
        .collect();
    let resumed = front.run(&requests);
    for (resumed, answer) in resumed.iter().zip(answers) {
        assert_eq!(resumed.ids, answer.ids[41..]);
        assert_eq!(resumed.finish, answer.finish);
    }
    front.idle_stats().num_prefix_cache_hits
}

/// Of 91 tokens each, in whole blocks.
const ALL: u64 = 6 * 80;

#[test]
fn the_next_engine_computes_only_what_no_block_was_full_of() {
    for lookahead in [true, false] {
        let scripted_options = ScriptedOptions::default();
        let options = EngineOptions {
            lookahead,
            ..scripted(scripted_options.clone())
        };
        let (file, wholes) = (NamedTempFile::new().unwrap(), wholes());
        let answers = lose(&options, &file, &wholes);
        for (whole, answer) in wholes.iter().zip(&answers) {
            let (ids, _) = expected(&scripted_options, whole, 512);
            assert_eq!(answer.ids, ids);
        }
        // The one after next has it from the next one, which took it in.
        let mut from = file;
        for _ in 0..2 {
            let next = NamedTempFile::new().unwrap();
            let mut front = Front::start(mirrored(options.clone(), &next));
            adopt(&mut front, from.path());
            assert_eq!(resume(&mut front, &wholes, &answers), ALL);
            run_on(&mut front);
            from = next;
        }
        let mut last = Front::start(options.clone());
        adopt(&mut last, from.path());
        last.send(&FrontMessage::ForgetKv);
        let cached = resume(&mut last, &wholes[..1], &answers);
        assert_eq!(cached, 0, "it was told to forget");
    }
}

#[test]
fn blocks_of_another_model_or_a_mere_file_are_of_no_use() {
    let (file, wholes) = (NamedTempFile::new().unwrap(), wholes());
    let options = scripted(ScriptedOptions::default());
    let answers = lose(&options, &file, &wholes[..1]);
    let other = ScriptedOptions {
        finish_after_tokens: Some(400),
        ..ScriptedOptions::default()
    };
    let mut front = Front::start(scripted(other));
    adopt(&mut front, file.path());
    let whole = &wholes[..1];
    let requests = [resumed(&whole[0], &answers[0], 41)];
    assert_eq!(front.run(&requests)[0].num_cached_tokens, Some(0));
    let empty = NamedTempFile::new().unwrap();
    let no_file = Path::new("/nonexistent/file");
    for path in [empty.path(), no_file, Path::new("/proc/self/exe")] {
        let mut front = Front::start(options.clone());
        adopt(&mut front, path);
        assert_eq!(resume(&mut front, whole, &answers), 0, "{path:?}");
    }
    // Nor does an engine mind that it cannot keep its own.
    let nowhere = EngineOptions {
        kv_mirror_path: Some(no_file.to_owned()),
        ..options.clone()
    };
    assert_eq!(Front::start(nowhere).run(&wholes[..1]), answers);
    // Nor that there is no cache to take blocks into.
    let uncached = EngineOptions {
        enable_prefix_caching: false,
        ..options
    };
    let mut front = Front::start(uncached);
    adopt(&mut front, file.path());
    assert_eq!(resume(&mut front, whole, &answers), 0);
}

#[test]
fn the_file_is_bounded_and_so_is_what_is_copied_in_a_step() {
    let (file, wholes) = (NamedTempFile::new().unwrap(), wholes());
    let options = EngineOptions {
        kv_mirror_memory_bytes: 4096 + 12 * (16 * 8 + 48 + 16 * 4 + 64),
        max_kv_save_bytes_per_step: 1,
        max_kv_load_bytes_per_step: 1,
        ..scripted(ScriptedOptions::default())
    };
    let answers = lose(&options, &file, &wholes);
    let len = file.as_file().metadata().unwrap().len();
    assert!(
        len > 4096 && len <= options.kv_mirror_memory_bytes as u64,
        "{len}"
    );
    let mut front = Front::start(options);
    adopt(&mut front, file.path());
    let num_cached = resume(&mut front, &wholes, &answers);
    // They share a block each among themselves.
    assert!(num_cached > 6 * 16 && num_cached < ALL, "{num_cached}");
}

#[test]
fn a_real_model_goes_on_with_the_same_bits() {
    let options = |kv_cache_dtype: &str| EngineOptions {
        model: "spark-mini".to_owned(),
        kv_cache_dtype: kv_cache_dtype.to_owned(),
        max_model_len: Some(256),
        max_num_seqs: 8,
        num_threads: Some(1),
        backend: Backend::Model,
        ..EngineOptions::default()
    };
    for kv_cache_dtype in ["float32", "float16", "q8_0"] {
        let file = NamedTempFile::new().unwrap();
        let mut wholes = wholes();
        for whole in &mut wholes {
            whole.sampling.num_logprobs = Some(3);
        }
        let answers = lose(&options(kv_cache_dtype), &file, &wholes);
        let mut front = Front::start(options(kv_cache_dtype));
        adopt(&mut front, file.path());
        assert_eq!(resume(&mut front, &wholes, &answers), ALL);
        let again = front.run(&[resumed(&wholes[0], &answers[0], 41)]);
        assert_eq!(
            again[0].logprobs,
            answers[0].logprobs[41..],
            "{kv_cache_dtype}"
        );
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// Bytes change, the file is cut anywhere: no answer does.
    #[test]
    fn damage_costs_time_only(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..40),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let (file, wholes) = (NamedTempFile::new().unwrap(), wholes());
        let options = scripted(ScriptedOptions::default());
        let answers = lose(&options, &file, &wholes[..3]);
        let len = file.as_file().metadata().unwrap().len() as usize;
        for (at, mask) in flips {
            // The header is looked at elsewhere.
            let at = 4096 + at.index(len - 4096) as u64;
            let mut byte = [0];
            file.as_file().read_exact_at(&mut byte, at).unwrap();
            file.as_file().write_all_at(&[byte[0] ^ mask], at).unwrap();
        }
        if let Some(cut) = cut {
            file.as_file().set_len(cut.index(len) as u64).unwrap();
        }
        let mut front = Front::start(options);
        adopt(&mut front, file.path());
        resume(&mut front, &wholes[..3], &answers);
    }
}
