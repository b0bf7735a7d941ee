//! Real models through the whole engine: known answers, strange requests, engines that cannot
//! start.

use std::path::Path;

use hotspare_batch::{Generate, SamplingParams, StopParams, TokenId};
use hotspare_engine::EngineOptions;
use hotspare_testkit::shared_asset;
use proptest::prelude::*;

use crate::front::Front;
use crate::models::{NUM_PROMPT_IDS, alone, among, assert_same, models, options, plainest, prompt};
use crate::requests::{cases, request};

/// The test data's small models.
const FAMILIES: [&str; 10] = [
    "gemma2",
    "gemma3",
    "llama",
    "llama3-rope",
    "mistral",
    "mixtral",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3-moe",
];

#[test]
fn greedy_answers_match_the_golden_file() {
    let Some(path) = shared_asset("engine golden", "stories260k/golden.json") else {
        return;
    };
    let golden = std::fs::read(&path).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let ids = |value: &serde_json::Value| -> Vec<TokenId> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as TokenId).collect()
    };
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 4);
    let requests: Vec<_> = (0u64..)
        .zip(cases)
        .map(|(id, case)| {
            let num_tokens = ids(&case["new_ids"]).len() as u32;
            request(id, &ids(&case["prompt_ids"]), num_tokens)
        })
        .collect();
    let answers = Front::start(options(path.parent().unwrap())).run(&requests);
    for (case, answer) in cases.iter().zip(answers) {
        assert_eq!(answer.ids, ids(&case["new_ids"]), "{}", case["prompt"]);
    }
}

/// The requests of a golden file, and the ids that greedy decoding gives.
fn golden_cases(path: &Path) -> Vec<(Generate, Vec<TokenId>)> {
    let golden = std::fs::read(path.join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let ids = |value: &serde_json::Value| -> Vec<TokenId> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as TokenId).collect()
    };
    let case = |(id, case): (u64, &serde_json::Value)| {
        let expected = ids(&case["greedy_ids"]);
        let mut request = request(id, &ids(&case["prompt_ids"]), expected.len() as u32);
        request.sampling.num_logprobs = Some(2);
        (request, expected)
    };
    (0..)
        .zip(golden["cases"].as_array().unwrap())
        .map(case)
        .collect()
}

/// Every family through the whole engine: what the golden file says, with a cold cache, with the
/// prefix computed by an earlier request, in chunks of 3, beside the others and under preemption;
/// the bits are those of the plainest way.
#[test]
fn every_family_s_answers_match_its_golden_file_in_every_condition() {
    const MIN_MARGIN: f32 = 2e-3;
    for family in FAMILIES {
        let Some(path) = shared_asset("engine families", &format!("tiny/{family}")) else {
            return;
        };
        let cases = golden_cases(&path);
        let plain: Vec<_> = cases.iter().map(|(r, _)| alone(&path, r)).collect();
        for ((_, expected), answer) in cases.iter().zip(&plain) {
            let first = answer.ids.iter().zip(expected).position(|(a, b)| a != b);
            if let Some(first) = first {
                let top = &answer.logprobs[first].top;
                assert!(top[0].1 - top[1].1 < MIN_MARGIN, "{family}, id {first}");
            }
        }
        let base = options(&path);
        let in_threes = EngineOptions {
            max_num_batched_tokens: 3,
            ..base.clone()
        };
        let small = EngineOptions {
            num_kv_blocks_override: Some(16),
            ..base.clone()
        };
        for (options, what) in [
            (base, "plenty"),
            (in_threes, "threes"),
            (small, "a small pool"),
        ] {
            let mut front = Front::start(options);
            for round in 0..2 {
                let renamed = |(request, _): &(Generate, _)| {
                    let mut request: Generate = request.clone();
                    request.request_id.0 += 10 * round;
                    request
                };
                let requests: Vec<_> = cases.iter().map(renamed).collect();
                let answers = front.run(&requests);
                for (answer, plain) in answers.iter().zip(&plain) {
                    assert_same(answer, plain, &format!("{family}, {what}, round {round}"));
                }
                let cached = answers
                    .iter()
                    .map(|answer| answer.num_cached_tokens.unwrap());
                // Of 40 and of 100 tokens, unless the pool cannot keep them.
                let is_found = cached.sum::<u32>() == 32 + 96;
                assert!(round == 0 || what == "a small pool" || is_found, "{family}");
            }
            assert_eq!(front.idle_stats().num_used_blocks, 0);
        }
    }
}

/// A model whose layers all have a window of 24 tokens holds three blocks of 16 for each sequence
/// that decodes, however long: eight sequences of 120 tokens run in a pool with room for four whole
/// ones, and none has to make way.
#[test]
fn a_windowed_model_gives_back_what_it_no_longer_sees() {
    let Some(path) = shared_asset("engine window", "tiny/mistral") else {
        return;
    };
    let prompt = |id: u64| -> Vec<TokenId> { (0..8).map(|i| 3 + (i * id as u32) % 300).collect() };
    let requests: Vec<_> = (1..9).map(|id| request(id, &prompt(id), 112)).collect();
    let mut front = Front::start(EngineOptions {
        num_kv_blocks_override: Some(32),
        max_model_len: Some(256),
        ..options(&path)
    });
    let answers = front.run(&requests);
    let stats = front.idle_stats();
    assert_eq!((stats.num_preemptions, stats.num_used_blocks), (0, 0));
    for (request, answer) in requests.iter().zip(&answers) {
        assert_eq!(answer.ids, alone(&path, request).ids);
        assert_eq!(answer.ids.len(), 112);
    }
}

#[test]
fn loading_is_reported_and_hello_names_the_content() {
    for model in models("engine hello") {
        let hello = Front::connect(options(&model)).await_hello();
        assert_eq!(hello.model_hash.len(), 64);
        assert!(
            hello.numerics_id.starts_with("cpu"),
            "{}",
            hello.numerics_id
        );
        assert_eq!((hello.device.as_str(), hello.max_model_len), ("cpu", 256));
        assert!(hello.vocab_size >= NUM_PROMPT_IDS);
        let again = Front::connect(plainest(&model)).await_hello();
        assert_eq!(again.model_hash, hello.model_hash);
        assert_eq!(again.numerics_id, hello.numerics_id);
    }
}

/// Any numbers at all, where a front would have let none of the strange ones pass.
fn hostile_request(id: u64) -> impl Strategy<Value = Generate> {
    let number = || prop_oneof![any::<f32>(), Just(0.0f32), 0.0f32..2.0];
    let numbers = (number(), number(), number(), number(), number(), number());
    let counts = (
        any::<u32>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        any::<u32>(),
    );
    let lists = (
        prop::collection::vec(0u32..600, 0..40),
        prop::collection::vec((0u32..520, number()), 0..3),
        prop::collection::vec(0u32..520, 0..3),
    );
    let stop = (
        any::<u32>(),
        prop_oneof![0u32..20, any::<u32>()],
        any::<bool>(),
    );
    (numbers, counts, lists, stop).prop_map(move |(numbers, counts, lists, stop)| {
        let base = request(id, &lists.0, 1);
        Generate {
            num_delivered: counts.3 % 4,
            sampling: SamplingParams {
                temperature: numbers.0,
                top_p: numbers.1,
                min_p: numbers.2,
                repetition_penalty: numbers.3,
                frequency_penalty: numbers.4,
                presence_penalty: numbers.5,
                top_k: counts.0,
                num_logprobs: counts.1,
                num_prompt_logprobs: counts.2,
                logit_bias: lists.1,
                allowed_token_ids: lists.2.clone(),
                seed: counts.0.into(),
                choice: counts.3,
            },
            stop: StopParams {
                min_tokens: stop.0,
                max_tokens: stop.1,
                ignore_eos: stop.2,
                eos_token_ids: lists.2,
                stop_token_ids: vec![u32::MAX, 5],
            },
            deadline_ms: Some(u64::from(stop.0)),
            ..base
        }
    })
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn strange_numbers_harm_nobody_else(
        requests in (1u64..9).prop_flat_map(|n| (0..n).map(hostile_request).collect::<Vec<_>>()),
    ) {
        let Some(model) = shared_asset("engine hostile numbers", "stories260k") else {
            return Ok(());
        };
        let mut subject = request(77, &prompt(5, 30), 20);
        subject.sampling.num_logprobs = Some(20);
        let expected = alone(&model, &subject);
        let (answer, _) = among(options(&model), &requests, &subject);
        assert_same(&answer, &expected, "among strangers");
    }
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let mut front = Front::connect(options(Path::new("/no/such/model")));
    assert!(front.receive_to_end());
    let fatal = front.fatal.expect("it says why");
    assert!(fatal.contains("/no/such/model"), "{fatal}");
}

#[test]
fn options_that_this_build_lacks_are_named() {
    let Some(model) = shared_asset("engine options", "stories260k") else {
        return;
    };
    let base = options(&model);
    let cases = [
        (
            EngineOptions {
                device: "cuda:0".to_owned(),
                ..base.clone()
            },
            "--device cuda:0",
        ),
        (
            EngineOptions {
                load_format: "gguf".to_owned(),
                ..base.clone()
            },
            "--load-format gguf",
        ),
        (
            EngineOptions {
                dtype: "int3".to_owned(),
                ..base.clone()
            },
            "--dtype int3",
        ),
        (
            EngineOptions {
                max_model_len: Some(100_000),
                ..base.clone()
            },
            "max_model_len 100000",
        ),
        (
            EngineOptions {
                kv_cache_memory_bytes: Some(99),
                ..base
            },
            "--kv-cache-memory-bytes",
        ),
    ];
    for (options, expected) in cases {
        let mut front = Front::connect(options);
        assert!(front.receive_to_end());
        let fatal = front.fatal.expect("it says why");
        assert!(fatal.contains(expected), "{fatal}");
    }
}
