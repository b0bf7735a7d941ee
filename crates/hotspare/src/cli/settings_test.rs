//! Every setting has a flag, a key in the file and a variable, and all three mean the same.
//!
//! A field that is added to a settings struct does not compile here until it is listed, and fails
//! here until an option sets it or a reason is given why none does.

use std::collections::{BTreeMap, BTreeSet};

use hotspare_front::{FrontConfig, ModelOptions};
use hotspare_http::HttpConfig;
use hotspare_pair::PairBounds;

use super::cli_test::{config_file, message, parse_with, path};
use super::{HaSettings, Settings, layers};
use crate::hub::HubOptions;

/// One of these is a value of any option that is not its default. A new kind of value belongs here.
const CANDIDATES: [&str; 26] = [
    "7",
    "1",
    "127.0.0.1:7",
    "wan",
    "manual",
    "standby",
    "peer:7",
    "true",
    "false",
    "77K",
    "777M",
    "cpu",
    "float32",
    "float16",
    "q8_0",
    "json",
    "priority",
    "0.5",
    "fast",
    "prompts",
    "safetensors",
    "vllm",
    "debug",
    "{{ messages }}",
    r#"{"temperature":0.5}"#,
    r#"{"step_time_us":7}"#,
];

/// Settings without an option, and why.
const WITHOUT_OPTION: [(&str, &str); 9] = [
    ("EngineOptions.check_integrity", "costs time; for tests"),
    ("EngineOptions.faults", "HOTSPARE_FAULTS, for drills"),
    ("EngineOptions.kv_mirror_path", "the front makes the file"),
    ("EngineOptions.life", "the front counts it"),
    ("EngineOptions.max_model_len", "taken from ModelOptions"),
    ("EngineOptions.num_kv_blocks_override", "for tests"),
    ("HaSettings.is_front", "a value of --ha-role"),
    (
        "HttpConfig.template_command",
        "this program, set when it serves",
    ),
    ("ModelOptions.root", "set when a model comes from a hub"),
];

macro_rules! fields {
    ($type:ident, $value:expr; $($field:ident),+ $(,)?) => {{
        let $type { $($field),+ } = $value;
        [$((concat!(stringify!($type), ".", stringify!($field)), format!("{:?}", $field))),+]
    }};
}

/// All settings by name.
fn all_fields(settings: &Settings) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |fields: &[(&str, String)]| {
        all.extend(
            fields
                .iter()
                .map(|(name, text)| (name.to_string(), text.clone())),
        );
    };
    add(
        &fields!(Settings, settings; host, port, shutdown_timeout, http, front, model, engine, ha,
            revision, download_dir, hub, log_level, log_format, warnings),
    );
    add(
        &fields!(HubOptions, &settings.hub; hub_read_timeout_ms, hub_connect_timeout_ms,
            hub_max_num_retries, hub_min_retry_progress_bytes, hub_retry_backoff_min_ms,
            hub_retry_backoff_max_ms, hub_lock_timeout_ms, hub_max_index_bytes, hub_max_num_files),
    );
    add(
        &fields!(HttpConfig, &settings.http; api_keys, admin_key, allowed_origins, max_body_bytes,
            max_total_body_bytes, max_whole_answer_bytes, max_discarded_body_bytes,
            max_header_bytes, max_num_headers, max_num_connections, header_timeout_ms,
            body_timeout_ms, write_timeout_ms, shutdown_timeout_ms, shutdown_grace_ms,
            sse_keep_alive_interval_ms, replay_keep_alive_interval_ms, max_inline_body_bytes,
            max_num_text_threads,
            max_short_body_bytes, max_num_long_text_threads, max_num_tokenize_threads,
            max_text_queue_bytes, max_unsplit_text_bytes, max_stop_string_bytes, max_logprobs,
            max_num_choices, trust_request_chat_template, max_request_template_output_bytes,
            max_request_template_fuel, max_request_template_memory_bytes,
            request_template_timeout_s, template_command, max_num_logged_fields,
            enable_prompt_tokens_details, enable_force_include_usage),
    );
    add(
        &fields!(FrontConfig, &settings.front; node, assigned_seed, max_num_sequences_per_job,
            max_num_unsent_requests, max_frame_bytes, max_write_batch_bytes,
            queue_full_retry_after_s, not_ready_retry_after_s, engine_start_timeout_s,
            engine_stop_timeout_ms, engine_exit_wait_ms, engine_hang_floor_ms,
            engine_hang_ceiling_ms, engine_hang_factor, engine_canary_interval_ms,
            num_spare_engines, spare_start_delay_ms, has_kv_mirror, kv_mirror_retention_ms,
            spare_shadow, spare_shadow_interval_ms,
            spare_shadow_min_lag_tokens, spare_shadow_max_num_tokens, spare_shadow_max_round_ms,
            spare_shadow_max_load_percent, peer_shadow, max_num_unreaped_engines,
            engine_retire_grace_ms, engine_retire_timeout_s, engine_restart_backoff_min_ms,
            engine_restart_backoff_max_ms, engine_stable_after_ms, max_num_engine_failures,
            journal_max_request_bytes,
            journal_max_bytes, max_num_concurrent_replays,
            max_num_concurrent_replay_tokens, max_num_replay_attempts,
            replay_timeout_ms, replay_retry_interval_ms, max_num_solo_losses,
            max_num_excused_losses,
            max_num_held_requests, convicted_ttl_ms, max_num_convicted_requests,
            takeover_hold_ms, max_num_takeover_holds, peer_dead_after_ms, peer_drain_ms,
            peer_greeting_timeout_ms, peer_retry_min_ms, peer_retry_max_ms, peer_write_timeout_ms,
            max_num_relay_messages, max_num_peer_streams, stats_log_interval_s, log_requests),
    );
    add(
        &fields!(ModelOptions, &settings.model; model, root, load_format, dummy_seed,
            served_model_names, max_model_len, chat_template, skip_tokenizer_init,
            generation_config, override_generation_config),
    );
    all.extend(pair_fields(&settings.ha));
    let engine = serde_json::to_value(&settings.engine).expect("options are JSON");
    for (name, value) in engine.as_object().expect("an object") {
        all.insert(format!("EngineOptions.{name}"), value.to_string());
    }
    all
}

/// Those of a pair.
fn pair_fields(ha: &HaSettings) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |fields: &[(&str, String)]| {
        let named = fields
            .iter()
            .map(|(name, text)| (name.to_string(), text.clone()));
        all.extend(named);
    };
    add(
        &fields!(HaSettings, ha; rank, is_front, peers, listen, key_file, tls_cert, tls_key, tls_ca,
            tls_peer_name, state_dir, peer_http,
            references, min_num_references, reference_interval_ms, reference_timeout_ms,
            agent_listen, hooks, webhooks, machine, bounds),
    );
    add(
        &fields!(PairBounds, &ha.bounds; max_num_queued_inputs, connect_timeout_ms,
            handshake_timeout_ms,
            max_num_handshakes, reconnect_interval_ms, max_num_links, max_frame_bytes,
            max_datagram_bytes, max_num_waiting_streams, engine_stream_timeout_ms, udp,
            replay_window_ms,
            peer_traffic_interval_ms, max_num_commands, max_num_history_entries,
            history_file_max_bytes, max_num_queued_records, audit_file_max_bytes,
            max_num_audit_files, audit_sync_interval_ms, replica_max_bytes,
            replica_batch_bytes, max_num_replica_batches, replica_resend_ms, hook_retry_ms,
            hook_max_retry_ms, max_num_hook_attempts, wall_clock_jump_ms, log_interval_ms,
            farewell_ms),
    );
    let timers = serde_json::to_value(ha.machine.timers).expect("timers are JSON");
    for (name, value) in timers.as_object().expect("an object") {
        all.insert(format!("Timers.{name}"), value.to_string());
    }
    all
}

/// The options that mean something to `Settings`, each with a value that is not its default.
fn options_and_values() -> Vec<(String, &'static str)> {
    let default = format!("{:?}", parse_with(&[], &[]).expect("nothing is an error"));
    let command = layers::serve_command();
    let names = layers::options(&command).map(|(name, _)| name.to_owned());
    names
        .filter(|name| name != "config")
        .map(|name| {
            let changes = |value: &&&str| {
                let settings = parse_with(&[&format!("--{name}={value}")], &[]);
                settings.is_ok_and(|settings| format!("{settings:?}") != default)
            };
            let value = CANDIDATES.iter().find(changes);
            let value = value.unwrap_or_else(|| {
                panic!("--{name} sets nothing, or none of CANDIDATES is a value of it")
            });
            (name, *value)
        })
        .collect()
}

/// `key = value` as the file has it.
fn toml_line(name: &str, value: &str) -> String {
    let is_bare = value.parse::<u64>().is_ok() || matches!(value, "true" | "false");
    match is_bare {
        true => format!("{name} = {value}\n"),
        false => format!("{name} = '{value}'\n"),
    }
}

#[test]
fn every_option_is_a_flag_a_key_and_a_variable() {
    let options = options_and_values();
    assert!(options.len() > 60, "{}", options.len());
    for (name, value) in options {
        let by_flag = parse_with(&[&format!("--{name}={value}")], &[]).expect("it was accepted");
        let by_flag = format!("{by_flag:?}");
        let variable = format!("HOTSPARE_{}", name.to_uppercase().replace('-', "_"));
        let by_variable = parse_with(&[], &[(&variable, value)]).expect(&variable);
        assert_eq!(format!("{by_variable:?}"), by_flag, "{variable}={value}");
        for key in [name.clone(), name.replace('-', "_")] {
            let file = config_file(&toml_line(&key, value));
            let by_key = parse_with(&["--config", &path(&file)], &[]).expect(&key);
            assert_eq!(format!("{by_key:?}"), by_flag, "{key} = {value}");
        }
    }
}

#[test]
fn every_setting_has_an_option() {
    let default = all_fields(&parse_with(&[], &[]).expect("nothing is an error"));
    let mut without: BTreeSet<&String> = default.keys().collect();
    for (name, value) in options_and_values() {
        let settings = parse_with(&[&format!("--{name}={value}")], &[]).expect(&name);
        let changed = all_fields(&settings);
        without.retain(|field| changed.get(*field) == default.get(*field));
    }
    let without: Vec<&str> = without.into_iter().map(String::as_str).collect();
    assert_eq!(without, WITHOUT_OPTION.map(|(name, _)| name));
}

#[test]
fn the_defaults_in_the_help_are_those_that_hold() {
    let default = format!("{:?}", parse_with(&[], &[]).expect("nothing is an error"));
    let command = layers::serve_command();
    let mut num_checked = 0;
    for (name, option) in layers::options(&command) {
        let heading = option.get_help_heading().unwrap_or_default();
        if !heading.ends_with(" limits") {
            continue;
        }
        assert!(option.is_hide_short_help_set(), "--{name} is for experts");
        let help = option.get_help().expect("it is explained").to_string();
        let value = help
            .rsplit_once("[default: ")
            .and_then(|(_, rest)| rest.strip_suffix(']'))
            .unwrap_or_else(|| panic!("--{name}: {help}"));
        let settings = parse_with(&[&format!("--{name}={value}")], &[]).expect(name);
        assert_eq!(format!("{settings:?}"), default, "--{name}={value}");
        num_checked += 1;
    }
    assert!(num_checked >= 30, "{num_checked}");
}

#[test]
fn bounds_out_of_range_are_refused_with_the_range() {
    for (args, expected) in [
        (&["--max-header-bytes", "1K"][..], "from 8192 to 16777216"),
        (&["--max-num-text-threads", "0"][..], "from 1 to 1024"),
        (&["--max-num-connections", "0"][..], "from 1 to 1048576"),
        (&["--body-timeout-ms", "0"][..], "from 1 to 86400000"),
        (&["--max-frame-bytes", "2G"][..], "from 65536 to 1073741824"),
        (&["--max-stop-string-bytes", "0"][..], "at least 1"),
        (&["--max-request-template-fuel=-1"][..], "whole number"),
        (&["--max-text-queue-bytes", "3M"][..], "4194304"),
        (&["--num-threads", "100000"][..], "from 1 to 1024"),
        (&["--served-model-name", ""][..], "it is empty"),
        (
            &["--max-total-body-bytes=5M", "--max-body-bytes=6M"][..],
            "--max-total-body-bytes must have room for one body",
        ),
    ] {
        let error = message(parse_with(args, &[]));
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    // The default grows with the body.
    let large = parse_with(&["--max-body-bytes=1G"], &[]).expect("accepted");
    assert_eq!(large.http.max_body_bytes, 1 << 30);
}
