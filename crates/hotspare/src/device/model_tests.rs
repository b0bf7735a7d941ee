//! Tiny models of all families on the device, against what transformers computed of them.
//!
//! Invariant: greedy ids equal the golden ones in every case whose golden margin is large enough,
//! and each family has such a case.

use std::path::Path;
use std::time::Duration;

use hotspare_batch::TokenId;
use hotspare_engine::EngineOptions;
use serde_json::{Value, json};

use super::args::ModelTestsArgs;
use super::engine_client::EngineClient;
use super::report::Report;

const TIMEOUT: Duration = Duration::from_secs(120);
/// Families in the folder.
const MIN_NUM_FAMILIES: usize = 10;

pub(super) fn run(args: &ModelTestsArgs, report: &mut Report) -> Result<(), String> {
    let device = report.machine.device.clone();
    let default_margin = if device == "cpu" { 0.002 } else { 0.01 };
    let min_margin = args.min_margin.unwrap_or(default_margin);
    let folder = args.assets.join("tiny");
    let entries = std::fs::read_dir(&folder);
    let entries = entries.map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut families: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    families.retain(|path| path.join("golden.json").exists());
    families.sort();
    for family in &families {
        let name = family.file_name().unwrap_or_default().to_string_lossy();
        if !name.contains(&args.only) {
            continue;
        }
        match test(&device, family, min_margin) {
            Ok((num_compared, num_cases)) => {
                let note = format!("{num_compared} of {num_cases} cases have the margin, equal");
                let more = json!({"compared": num_compared, "cases": num_cases});
                report.result(num_compared > 0, &name, &note, more);
            }
            Err(message) => report.result(false, &name, &message, json!({})),
        }
    }
    match families.len() >= MIN_NUM_FAMILIES {
        true => on_the_card(args, report),
        false => Err(format!(
            "{} has {} families; {MIN_NUM_FAMILIES} were expected",
            folder.display(),
            families.len()
        )),
    }
}

#[cfg(not(feature = "cuda"))]
fn on_the_card(_args: &ModelTestsArgs, _report: &mut Report) -> Result<(), String> {
    Ok(())
}

/// What tests run on the emulator too: logits in every type, quantized files, sampling beside the
/// CPU's, graphs beside single launches.
#[cfg(feature = "cuda")]
fn on_the_card(args: &ModelTestsArgs, report: &mut Report) -> Result<(), String> {
    use hotspare_backend_cuda::LaunchError;
    use hotspare_backend_cuda::card::{Card, FaultCell};
    use hotspare_backend_cuda::model_checks::run_all;

    let Some((driver, ordinal)) = report.machine.driver else {
        return Ok(());
    };
    let open = || {
        let card = Card::open(driver, ordinal, FaultCell::default());
        card.map_err(|error| LaunchError::Misuse(error.to_string()))
    };
    let done = run_all(
        open,
        &args.assets,
        &args.only,
        &mut |name, result| match result {
            Ok(compared) => report.result(true, name, &format!("{compared:?}"), json!({})),
            Err(error) => report.result(false, name, &error.to_string(), json!({})),
        },
    );
    done.map_err(|error| error.to_string())
}

/// How many cases were compared, of how many.
fn test(device: &str, family: &Path, min_margin: f64) -> Result<(usize, usize), String> {
    let golden = std::fs::read_to_string(family.join("golden.json"));
    let golden: Value = serde_json::from_str(&golden.map_err(|error| error.to_string())?)
        .map_err(|error| format!("golden.json: {error}"))?;
    let cases = golden["cases"].as_array().ok_or("golden.json: no cases")?;
    let options = EngineOptions {
        model: family.display().to_string(),
        device: device.to_owned(),
        dtype: "float32".to_owned(),
        max_num_seqs: 8,
        max_num_batched_tokens: 64,
        ..EngineOptions::default()
    };
    let mut engine = EngineClient::start(options, TIMEOUT)?;
    let mut expected = Vec::new();
    // All at once, so that the batch is ragged and mixed.
    for case in cases {
        let ids = ids_of(&case["greedy_ids"])?;
        engine.generate(ids_of(&case["prompt_ids"])?, ids.len())?;
        expected.push(ids);
    }
    let mut found = vec![Vec::new(); cases.len()];
    let mut num_ended = 0;
    while num_ended < cases.len() {
        for event in engine.step()?.1 {
            found[event.request_id.0 as usize].extend(event.token_ids);
            num_ended += usize::from(event.finish.is_some());
        }
    }
    let mut num_compared = 0;
    for (i, case) in cases.iter().enumerate() {
        if case["min_margin"].as_f64().unwrap_or(0.0) < min_margin {
            continue;
        }
        num_compared += 1;
        if found[i] != expected[i] {
            return Err(format!("case {i}: {:?}, not {:?}", found[i], expected[i]));
        }
    }
    Ok((num_compared, cases.len()))
}

fn ids_of(value: &Value) -> Result<Vec<TokenId>, String> {
    let ids = serde_json::from_value(value.clone());
    ids.map_err(|error| format!("golden.json: {error}"))
}
