//! Whole models on the emulator.
//!
//! Invariant: every family is run; without the test data or a compiler the suite says so.

#[cfg(emulator)]
mod on_emulator {
    use std::path::{Path, PathBuf};

    use hotspare_backend_cpu::{CpuOps, CpuOptions};
    use hotspare_batch::{Batch, Row};
    use hotspare_model::ops::StepLimits;
    use hotspare_model::weights::WeightDtype;
    use hotspare_model::{LoadOptions, ModelRunner, ModelSource};

    use crate::model_checks::{
        FAMILIES, Settings, check_family, check_gguf, check_long_context, check_lookahead,
        check_memory, check_refusals, check_sampling, load_blocks,
    };
    use crate::{Dtype, Emulator, KvBudget};

    /// The folder of test data, or `None` (said loudly) where it is not there.
    #[allow(clippy::print_stderr, reason = "a suite that is skipped says so")]
    fn assets(name: &str) -> Option<PathBuf> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
        let path = root.join(name);
        if path.exists() {
            return Some(path);
        }
        eprintln!("SKIPPED models under the emulator: ../shared/assets not found");
        assert!(
            std::env::var_os("CI").is_none(),
            "test data is missing in CI"
        );
        None
    }

    /// Runs a family; `min_equal` of the greedy ids must be the golden ones.
    #[allow(clippy::print_stdout, reason = "how close a family came, for people")]
    fn family(name: &str, dtype: Dtype, min_equal: f32) {
        assert!(FAMILIES.contains(&name));
        let Some(path) = assets(&format!("tiny/{name}")) else {
            return;
        };
        let max_new = if dtype == Dtype::F32 { 8 } else { 2 };
        let report = check_family(Emulator::new(7), &path, Settings::new(dtype), max_new);
        let report = report.unwrap_or_else(|error| panic!("{name} in {dtype:?}: {error}"));
        println!("{name} in {dtype:?}: {report:?}");
        let share = report.num_compared as f32 / report.num_ids as f32;
        assert!(share >= min_equal, "{name}: {report:?}");
        assert!(report.num_held > 14, "{name}: {report:?}");
    }

    macro_rules! families {
        ($($test:ident: $name:literal, $dtype:ident, $min_equal:literal;)*) => {
            $(#[test]
            fn $test() {
                family($name, Dtype::$dtype, $min_equal);
            })*
        };
    }

    families! {
        tiny_llama: "llama", F32, 0.8;
        tiny_llama3_rope: "llama3-rope", F32, 0.8;
        tiny_mistral: "mistral", F32, 0.8;
        tiny_mixtral: "mixtral", F32, 0.8;
        tiny_qwen2: "qwen2", F32, 0.8;
        tiny_qwen3: "qwen3", F32, 0.8;
        tiny_qwen3_moe: "qwen3-moe", F32, 0.8;
        tiny_phi3: "phi3", F32, 0.8;
        tiny_gemma2: "gemma2", F32, 0.8;
        tiny_gemma3: "gemma3", F32, 0.8;
        tiny_llama_bf16: "llama", Bf16, 0.25;
        tiny_gemma2_f16: "gemma2", F16, 0.5;
        tiny_qwen3_moe_bf16: "qwen3-moe", Bf16, 0.25;
    }

    fn gguf(model: &str, file: &str, quant: &str, dtype: Dtype) {
        let Some(folder) = assets("gguf") else {
            return;
        };
        let settings = Settings::new(dtype);
        let names = [model, file, quant];
        let report = check_gguf(Emulator::new(3), &folder, names, settings, 2);
        let report = report.unwrap_or_else(|error| panic!("{model} {file}: {error}"));
        assert!(
            2 * report.num_compared >= report.num_ids,
            "{model} {file}: {report:?}"
        );
    }

    #[test]
    fn gguf_q8_0() {
        gguf("llama-tiny", "q8_0", "Q8_0", Dtype::F16);
    }

    #[test]
    fn gguf_q4_k_and_q6_k() {
        gguf("llama-tiny", "q4_k_m", "Q4_K_M", Dtype::F16);
    }

    /// Why logits of f32 activations may differ by so much: rounding the cache alone moves them,
    /// and the routes of one family, on the CPU too.
    #[test]
    fn a_cache_of_halves_moves_logits_on_the_cpu() {
        let error = |name: &str| {
            let path = assets(&format!("tiny/{name}"))?;
            let logits = [WeightDtype::F32, WeightDtype::F16].map(|kv| cpu_logits(&path, kv));
            let [exact, halves] = &logits;
            let largest = exact.iter().fold(0f32, |max, x| max.max(x.abs()));
            let pairs = exact.iter().zip(halves);
            Some(pairs.fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest)
        };
        let (Some(routes), Some(window)) = (error("qwen3-moe"), error("mistral")) else {
            return;
        };
        assert!(routes > 3e-3 && routes < 1.5e-2, "{routes}");
        assert!(window > 1e-3 && window < 3e-3, "{window}");
    }

    /// The CPU's logits of the last position of the longest golden prompt.
    fn cpu_logits(path: &Path, kv_dtype: WeightDtype) -> Vec<f32> {
        let golden = std::fs::read(path.join("golden.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
        let prompt = golden["cases"][3]["prompt_ids"].as_array().unwrap();
        let prompt: Vec<u32> = prompt
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect();
        let files = ModelSource::resolve(path.to_str().unwrap())
            .unwrap()
            .open()
            .unwrap();
        let limits = StepLimits {
            max_num_batched_tokens: 128,
            max_num_seqs: 1,
            max_model_len: 128,
        };
        let options = LoadOptions {
            limits: limits.clone(),
            num_blocks: 8,
            block_size: 16,
            kv_dtype,
            quantization: None,
        };
        let ops = CpuOps::new(CpuOptions {
            num_threads: 1,
            limits,
            bf16_activations: false,
        });
        let mut runner = ModelRunner::load(ops.unwrap(), &files, &options, &mut |_| {}).unwrap();
        let batch = Batch {
            rows: vec![Row {
                slot: 0,
                num_computed_tokens: 0,
                tokens: 0..prompt.len() as u32,
                blocks: 0..8,
                samples: true,
                wants_prompt_logprobs: false,
                next_prompt_token: None,
            }],
            token_ids: prompt,
            block_tables: (0..8).collect(),
            ..Batch::default()
        };
        let mut logits = Vec::new();
        runner.run_with_logits(&batch, &mut logits).unwrap();
        logits
    }

    #[test]
    fn tokens_are_the_cpu_samplers() {
        let Some(path) = assets("tiny/llama") else {
            return;
        };
        // Fewer slots than the prompts have tokens: logits are computed part by part.
        let settings = Settings {
            max_num_seqs: 4,
            ..Settings::new(Dtype::F32)
        };
        let num_held = check_sampling(Emulator::new(1), &path, settings, 5);
        let num_held = num_held.unwrap_or_else(|error| panic!("{error}"));
        assert!(num_held >= 4 * 6 + 5, "{num_held}");
    }

    #[test]
    fn a_long_context_has_the_same_bits_in_any_pieces() {
        let Some(path) = assets("tiny/gemma2") else {
            return;
        };
        // Layers with a window of 24 and without one.
        let checked = check_long_context(Emulator::new(4), &path, Settings::new(Dtype::Bf16));
        checked.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn a_request_that_is_refused_harms_no_other() {
        let Some(path) = assets("tiny/llama") else {
            return;
        };
        let checked = check_refusals(Emulator::new(6), &path, Settings::new(Dtype::F32));
        checked.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn lookahead_and_graphs_change_no_token() {
        let Some(path) = assets("tiny/qwen2") else {
            return;
        };
        let settings = Settings::new(Dtype::F16);
        let mut num_replays = 0;
        let devices = [1, 2, 3].map(Emulator::new);
        let ended = |device: &Emulator| num_replays = device.num_replays();
        let checked = check_lookahead(devices, &path, settings, 6, ended);
        checked.unwrap_or_else(|error| panic!("{error}"));
        // Every decode step: graphs are captured at load.
        assert_eq!(num_replays, 5);
    }

    #[test]
    fn too_little_memory_says_what_helps() {
        let Some(path) = assets("tiny/llama") else {
            return;
        };
        let settings = Settings {
            kv_budget: KvBudget::Utilization(0.9),
            ..Settings::new(Dtype::F32)
        };
        let check = |memory_bytes| {
            let device = Emulator::with_memory(0, memory_bytes);
            check_memory(device, &path, settings).unwrap()
        };
        let error = check(1 << 18);
        assert!(
            error.contains("a weight") && error.contains("262144"),
            "{error}"
        );
        let used = {
            let (_, memory) =
                load_blocks(Emulator::new(0), &path, Settings::new(Dtype::F32)).unwrap();
            memory.total_bytes - memory.free_bytes
        };
        // Everything but the cache fits: 96 blocks of 16 tokens are 3 * 2 * 2 * 16 * 16 * 2 bytes
        // each.
        let others = used - 96 * 16 * 384;
        let error = check((others + 8 * 16 * 384) * 10 / 9);
        assert!(error.contains("--gpu-memory-utilization"), "{error}");
        assert!(error.contains("--max-model-len"), "{error}");
        let memory_bytes = (others + 40 * 16 * 384 + 1000) * 10 / 9 + 16;
        let device = Emulator::with_memory(0, memory_bytes);
        let (num_blocks, memory) = load_blocks(device, &path, settings).unwrap();
        assert_eq!(num_blocks, 40);
        assert!(memory.free_bytes * 10 >= memory_bytes, "{memory:?}");
    }
}
