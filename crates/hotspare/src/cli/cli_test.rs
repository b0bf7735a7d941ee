//! Precedence, spellings and refusals, with the environment as an argument.

use hotspare_engine::HAS_CUDA;
use std::ffi::OsString;
use std::io::Write;

use clap::CommandFactory;

use super::*;

pub(super) fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, CliError> {
    let args: Vec<String> = ["hotspare", "serve"]
        .iter()
        .chain(args)
        .map(|a| a.to_string())
        .collect();
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match parse(&args, &Environment::new(env))? {
        Command::Serve(settings) => Ok(*settings),
        _ => panic!("`serve` was asked for"),
    }
}

pub(super) fn message(result: Result<Settings, CliError>) -> String {
    match result {
        Ok(settings) => panic!("it was accepted: {settings:?}"),
        Err(error) => error.to_string(),
    }
}

pub(super) fn config_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it can be written");
    file
}

pub(super) fn path(file: &tempfile::NamedTempFile) -> String {
    file.path().display().to_string()
}

#[test]
fn defaults_need_no_argument() {
    let settings = parse_with(&[], &[]).unwrap();
    assert_eq!(settings.host, "127.0.0.1");
    assert_eq!(settings.port, 8000);
    assert_eq!(settings.model.model, "spark");
    assert_eq!(settings.engine.max_num_waiting, 1024);
    assert_eq!(settings.shutdown_timeout.as_secs(), 30);
    assert!(settings.engine.enable_prefix_caching);
    assert!(settings.http.api_keys.is_empty());
    assert_eq!(settings.front.assigned_seed, None);
    assert!(settings.warnings.is_empty());
}

#[test]
fn an_argument_wins_over_the_environment_and_that_over_the_file() {
    let file = config_file(
        "port = 1\nhost = '0.0.0.1'\nmax_num_seqs = 1\nseed = 1\nmodel = 'from-file'\n",
    );
    let env = [
        ("HOTSPARE_PORT", "2"),
        ("HOTSPARE_HOST", "0.0.0.2"),
        ("HOTSPARE_MAX_NUM_SEQS", "2"),
    ];
    let settings = parse_with(&["--config", &path(&file), "--port", "3"], &env).unwrap();
    assert_eq!(settings.port, 3);
    assert_eq!(settings.host, "0.0.0.2");
    assert_eq!(settings.engine.max_num_seqs, 2);
    assert_eq!(settings.front.assigned_seed, Some(1));
    assert_eq!(settings.model.model, "from-file");
    assert_eq!(settings.engine.model, "from-file");
    assert_eq!(settings.engine.block_size, 16);

    let settings = parse_with(&["spark-mini", "--config", &path(&file)], &env).unwrap();
    assert_eq!(settings.model.model, "spark-mini");
    assert_eq!(settings.port, 2);
}

#[test]
fn the_file_can_be_named_in_the_environment() {
    let file = config_file("port = 77\n");
    let settings = parse_with(&[], &[("HOTSPARE_CONFIG", &path(&file))]).unwrap();
    assert_eq!(settings.port, 77);
    let error = message(parse_with(&["--config", "/nowhere/x.toml"], &[]));
    assert!(error.contains("/nowhere/x.toml"), "{error}");
}

#[test]
fn the_file_takes_switches_lists_and_tables() {
    let file = config_file(
        "enable-prefix-caching = false\nskip-tokenizer-init = true\n\
         served-model-name = ['a', 'b']\napi_key = 'k1'\n\
         max-model-len = '2k'\n[override-generation-config]\ntemperature = 0.5\n",
    );
    let settings = parse_with(&["--config", &path(&file)], &[]).unwrap();
    assert!(!settings.engine.enable_prefix_caching);
    assert!(settings.model.skip_tokenizer_init);
    assert_eq!(settings.model.served_model_names, ["a", "b"]);
    assert_eq!(settings.http.api_keys, ["k1"]);
    assert_eq!(settings.model.max_model_len, Some(2000));
    let over = &settings.model.override_generation_config;
    assert_eq!(over["temperature"], 0.5);
}

#[test]
fn mistakes_in_the_file_are_named() {
    for (text, expected) in [
        ("prot = 1\n", "unknown option `prot`"),
        ("config = 'x'\n", "unknown option `config`"),
        ("[server]\nport = 1\n", "unknown option `server`"),
        ("port = 'x'\n", "`port`"),
        ("port = [1, 2]\n", "`port` takes one value"),
        ("port = true\n", "`port` is not a switch"),
        ("port = \n", "TOML"),
        ("log-format = 'loud'\n", "`log-format`"),
    ] {
        let file = config_file(text);
        let error = message(parse_with(&["--config", &path(&file)], &[]));
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains(&path(&file)), "{text}: {error}");
    }
}

#[test]
fn mistakes_in_the_environment_are_named() {
    let error = message(parse_with(&[], &[("HOTSPARE_MAX_NUM_SEQS", "many")]));
    assert!(error.starts_with("HOTSPARE_MAX_NUM_SEQS: "), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_port_from_kubernetes_is_no_port_of_ours() {
    let settings = parse_with(&[], &[("HOTSPARE_PORT", "tcp://10.0.0.1:8000")]).unwrap();
    assert_eq!(settings.port, 8000);
    assert!(settings.warnings[0].contains("Kubernetes"));
    // What else it sets for that service is no mistake of anyone's.
    let also = [
        ("HOTSPARE_SERVICE_HOST", "10.0.0.1"),
        ("HOTSPARE_SERVICE_PORT_HTTP", "8000"),
        ("HOTSPARE_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(parse_with(&[], &also).unwrap().warnings.is_empty());
}

#[test]
fn a_variable_that_nobody_reads_is_named_without_its_value() {
    let env = [
        ("HOTSPARE_API_KEYS", "sk-secret"),
        ("HOTSPARE_FAULTS", "slow-step-ms=1"),
        ("HOTSPARE_ENGINE_LIFE", "0"),
        ("HOTSPARE_MAX_NUM_SEQS", "3"),
        ("HOTSPARE_HOST", ""),
        ("VLLM_LOGGING_LEVEL", "DEBUG"),
        ("PATH", "/bin"),
    ];
    let settings = parse_with(&[], &env).unwrap();
    assert_eq!(settings.engine.max_num_seqs, 3);
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    let warning = &settings.warnings[0];
    assert!(warning.contains("HOTSPARE_API_KEYS"), "{warning}");
    assert!(!warning.contains("secret"), "{warning}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStringExt as _;

    let env = [("HOTSPARE_HOST".into(), OsString::from_vec(vec![0xff]))];
    let args = ["hotspare", "serve"].map(str::to_owned);
    let Err(error) = parse(&args, &Environment::new(env)) else {
        panic!("it was accepted");
    };
    assert_eq!(error.to_string(), "HOTSPARE_HOST is not UTF-8");
}

#[test]
fn keys_come_from_everywhere_and_never_show() {
    let from_args = parse_with(&["--api-key", "one", "two"], &[("VLLM_API_KEY", "x")]).unwrap();
    assert_eq!(from_args.http.api_keys, ["one", "two"]);
    let ours_first = [
        ("VLLM_API_KEY", "theirs"),
        ("HOTSPARE_API_KEY", "ours1, ours2"),
    ];
    let from_env = parse_with(&[], &ours_first).unwrap();
    assert_eq!(from_env.http.api_keys, ["ours1", "ours2"]);
    let from_alias = parse_with(&[], &[("VLLM_API_KEY", "theirs")]).unwrap();
    assert_eq!(from_alias.http.api_keys, ["theirs"]);
    let options = serde_json::to_string(&from_alias.engine).unwrap();
    assert!(!options.contains("theirs"), "{options}");
}

#[test]
fn switches_have_every_spelling() {
    for (args, expected) in [
        (&["--no-enable-prefix-caching"][..], false),
        (&["--no_enable_prefix_caching"][..], false),
        (&["--enable-prefix-caching=false"][..], false),
        (&["--enable-prefix-caching"][..], true),
        (
            &["--no-enable-prefix-caching", "--enable_prefix_caching"][..],
            true,
        ),
        (
            &[
                "--enable-prefix-caching",
                "spark-mini",
                "--no-enable-prefix-caching",
            ][..],
            false,
        ),
    ] {
        let settings = parse_with(args, &[]).unwrap();
        assert_eq!(settings.engine.enable_prefix_caching, expected, "{args:?}");
    }
    let env = [
        ("HOTSPARE_ENABLE_PREFIX_CACHING", "0"),
        ("HOTSPARE_ASYNC_SCHEDULING", "off"),
    ];
    let settings = parse_with(&[], &env).unwrap();
    assert!(!settings.engine.enable_prefix_caching);
    assert!(!settings.engine.lookahead);
}

#[test]
fn the_last_of_two_equal_options_wins() {
    let args = [
        "--host", "0.0.0.0", "--port", "1", "--host", "::1", "--port=2",
    ];
    let settings = parse_with(&args, &[]).unwrap();
    assert_eq!((settings.host.as_str(), settings.port), ("::1", 2));
}

#[test]
fn a_vllm_command_line_is_taken_over() {
    let args = [
        "spark",
        "--tensor-parallel-size",
        "1",
        "-tp",
        "1",
        "--gpu_memory_utilization=0.9",
        "--max_model_len",
        "1K",
        "--cudagraph-capture-sizes",
        "1",
        "2",
        "4",
        "--enforce-eager",
        "--no-enable-chunked-prefill",
        "--task",
        "generate",
        "--swap-space",
        "-1",
        "-O3",
        "--port",
        "9",
    ];
    let settings = parse_with(&args, &[]).unwrap();
    assert_eq!(settings.model.model, "spark");
    assert_eq!(settings.model.max_model_len, Some(1024));
    assert_eq!(settings.port, 9);
    assert_eq!(settings.warnings.len(), 8, "{:#?}", settings.warnings);
    assert!(settings.warnings[2].contains("--cudagraph-capture-sizes"));
    assert!((settings.engine.gpu_memory_utilization - 0.9).abs() < 1e-9);
}

/// What a card that is asked for is answered: by the command line of a build without CUDA.
const NO_CUDA: &str = if HAS_CUDA {
    "--device cuda:x"
} else {
    "no CUDA backend"
};

#[test]
fn what_cannot_be_honoured_is_refused() {
    for (args, expected) in [
        (&["--ssl-keyfile", "k"][..], "TLS"),
        (&["--quantization", "awq"][..], "--quantization awq"),
        (&["-q", "fp8"][..], "q8_0, q6_k"),
        (&["--task", "embed"][..], "--task"),
        (
            &["--device", if HAS_CUDA { "cuda:x" } else { "cuda" }][..],
            NO_CUDA,
        ),
        (&["--device", "cuda:x"][..], "--device cuda:x"),
        (&["--gpu-memory-utilization", "1.1"][..], "above 0"),
        (&["--numerics", "loose"][..], "--numerics"),
        (&["--device", "tpu"][..], "--device tpu"),
        (&["--dtype", "int3"][..], "--dtype int3"),
        (
            &["--kv-cache-dtype", "fp8"][..],
            "--kv-cache-dtype fp8: there are",
        ),
        (&["--made-up"][..], "--made-up"),
        (&["--max-num-seqs", "0"][..], "--max-num-seqs"),
        (&["--port", "65536"][..], "--port"),
        (&["--max-model-len", "0"][..], "--max-model-len"),
        (
            &["--override-generation-config", "[]"][..],
            "--override-generation-config",
        ),
        (&["--chat-template", "/nowhere"][..], "--chat-template"),
        (
            &["--scripted-backend", "{\"x\":1}"][..],
            "--scripted-backend",
        ),
        (&["a", "b"][..], "'b'"),
    ] {
        let error = message(parse_with(args, &[]));
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn values_of_their_own_kind() {
    let args = [
        "--max-model-len",
        "-1",
        "--kv-cache-memory-bytes",
        "2M",
        "--allowed-origins",
        "[\"https://a\", \"https://b\"]",
        "--sse-keep-alive-interval",
        "1.5",
        "--scheduling-policy",
        "priority",
        "--shutdown-timeout",
        "0",
        "--chat-template",
        "{{ messages }}",
        "--dtype",
        "bfloat16",
        "--kv-cache-dtype",
        "half",
        "-q",
        "Q4_K",
    ];
    let settings = parse_with(&args, &[]).unwrap();
    assert_eq!(settings.model.max_model_len, None);
    assert_eq!(settings.engine.kv_cache_memory_bytes, Some(2 << 20));
    assert_eq!(settings.http.allowed_origins, ["https://a", "https://b"]);
    assert_eq!(settings.http.sse_keep_alive_interval_ms, 1500);
    assert!(settings.engine.priority_scheduling);
    assert_eq!(settings.http.shutdown_timeout_ms, 0);
    assert_eq!(
        settings.model.chat_template.as_deref(),
        Some("{{ messages }}")
    );
    assert_eq!(settings.engine.dtype, "bfloat16");
    assert_eq!(settings.engine.kv_cache_dtype, "float16");
    assert_eq!(settings.engine.quantization, "q4_k");
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let half = parse_with(&["serve", "--dtype", "half"], &[]).unwrap();
    assert_eq!(half.engine.dtype, "float16");
    assert!(half.warnings.is_empty(), "{:?}", half.warnings);
}

#[test]
fn the_definition_is_sound_and_the_help_complete() {
    Cli::command().debug_assert();
    let mut command = layers::serve_command();
    let help = command.render_long_help().to_string();
    for option in command.get_arguments() {
        assert!(
            option.get_help().is_some(),
            "{} is explained",
            option.get_id()
        );
    }
    for name in ["--max-model-len", "--api-key", "--device", "--config"] {
        assert!(help.contains(name), "{name} in the help");
    }
    assert!(help.contains("Request limits:") && help.contains("Engine link limits:"));
    let short = command.render_help().to_string();
    assert!(!short.contains("--max-text-queue-bytes"), "{short}");
}

#[test]
fn weights_come_from_where_options_say() {
    let args = ["Llama-3.2-1B", "--load-format", "dummy", "--seed", "5"];
    let more = [
        "--revision",
        "v1",
        "--download-dir",
        "/models",
        "--cache-dir",
        "/cache",
    ];
    let settings = parse_with(&[&args[..], &more].concat(), &[]).unwrap();
    assert_eq!(settings.model.load_format.name(), "dummy");
    assert_eq!(settings.engine.load_format, "dummy");
    assert_eq!(
        (settings.model.dummy_seed, settings.engine.dummy_seed),
        (5, 5)
    );
    assert_eq!(settings.revision.as_deref(), Some("v1"));
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    assert_eq!(path(&settings.download_dir).as_deref(), Some("/models"));
    assert_eq!(path(&settings.engine.cache_dir).as_deref(), Some("/cache"));
    let error = message(parse_with(&["--load-format", "pt"], &[]));
    assert!(
        error.contains("--load-format") && error.contains("dummy"),
        "{error}"
    );
    let from_env = parse_with(&[], &[("HOTSPARE_CACHE_DIR", "/c")]).unwrap();
    assert_eq!(path(&from_env.engine.cache_dir).as_deref(), Some("/c"));
}
