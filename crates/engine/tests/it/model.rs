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
