//! `hotspare inspect`: what it says of models of every kind.
//!
//! Invariant: what it says is what the server does: the same hash, the same refusals.

use std::path::Path;
use std::process::{Command, Output};

use hotspare_testkit::{HubServer, shared_asset};
use serde_json::Value;

use crate::support::{binary, serve_mini};

fn inspect(args: &[&str], envs: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.arg("inspect").args(args).envs(envs.iter().copied());
    command.output().unwrap()
}

fn report(model: &str) -> Value {
    let output = inspect(&[model, "--json"], &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{model}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_embedded_model_is_described_as_it_is_served() {
    let report = report("spark-mini");
    let server = serve_mini(&[]);
    let card = server.client().get("/v1/models").json()["data"][0].clone();
    assert_eq!(report["content_hash"], card["model_hash"]);
    assert_eq!(report["max_context_len"], card["max_model_len"]);
    assert_eq!(report["architecture"], "Llama");
    assert_eq!(report["backends"]["cpu"]["supported"], true);
    assert_eq!(report["backends"]["cuda"]["supported"], false);
    assert_eq!(report["text"]["has_chat_template"], true);
    let weights = &report["weights"];
    assert_eq!(
        weights["num_elements_by_dtype"]["BF16"],
        report["num_parameters"]
    );
    assert_eq!(
        weights["num_bytes"].as_u64().unwrap(),
        2 * report["num_parameters"].as_u64().unwrap()
    );
    let text = inspect(&["spark-mini"], &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains(report["content_hash"].as_str().unwrap()),
        "{text}"
    );
    assert!(text.contains("runs on cpu   yes"), "{text}");
}

#[test]
fn a_shape_says_what_its_model_would_need() {
    let report = report("llama-3.1-8b");
    assert_eq!(report["num_parameters"], 8_030_261_248_u64);
    assert_eq!(report["weights"], Value::Null);
    assert_eq!(report["content_hash"], Value::Null);
    // 32 layers, 8 heads of 128 for keys and values, two bytes each.
    assert_eq!(report["kv_cache"]["num_bytes_per_token"], 131_072);
    let memory = report["memory"].as_array().unwrap();
    let at = |context_len: u64, num_seqs: u64| {
        let row = memory
            .iter()
            .find(|row| row["context_len"] == context_len && row["num_seqs"] == num_seqs);
        row.unwrap()["num_bytes"].as_u64().unwrap()
    };
    let weights = 2 * 8_030_261_248;
    assert_eq!(at(2_048, 1), weights + 2_048 * 131_072);
    assert_eq!(at(131_072, 16), weights + 16 * 131_072 * 131_072);
    let text = inspect(&["Llama-3.1-8B"], &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("8,030,261,248") && text.contains("131.07 kB a token"),
        "{text}"
    );
}

#[test]
fn directories_and_gguf_files_are_described() {
    let Some(tiny) = shared_asset("inspect", "tiny/qwen3") else {
        return;
    };
    let described = report(tiny.to_str().unwrap());
    assert_eq!(described["architecture"], "Qwen3");
    assert_eq!(described["backends"]["cpu"]["supported"], true);
    assert!(
        described["text"]["error"]
            .as_str()
            .unwrap()
            .contains("tokenizer")
    );
    assert_eq!(described["content_hash"].as_str().unwrap().len(), 64);
    let Some(folder) = shared_asset("inspect", "gguf") else {
        return;
    };
    let mut num_files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "gguf")
        {
            let output = inspect(&[path.to_str().unwrap(), "--json"], &[]);
            if !output.status.success() {
                // A family that is not read from GGUF files is named.
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert!(stderr.contains("not supported"), "{stderr}");
                continue;
            }
            let described: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(described["backends"]["cpu"]["supported"], true, "{path:?}");
            assert!(
                described["text"]["num_tokens"].as_u64().unwrap() > 0,
                "{path:?}"
            );
            num_files += 1;
        }
    }
    assert!(num_files > 0);
}

#[test]
fn what_cannot_be_served_is_said_to_be_so() {
    let Some(tiny) = shared_asset("inspect refusals", "tiny/llama") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let copy = |name: &str| std::fs::copy(tiny.join(name), directory.path().join(name)).unwrap();
    copy("config.json");
    let model = directory.path().to_str().unwrap();
    assert_eq!(
        report(model)["weights"],
        Value::Null,
        "a config alone is a shape"
    );
    copy("model.safetensors");
    let path = directory.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["num_hidden_layers"] = 99.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let described = report(model);
    let cpu = &described["backends"]["cpu"];
    assert_eq!(cpu["supported"], false);
    assert!(
        cpu["reason"].as_str().unwrap().contains("model.layers."),
        "{cpu}"
    );
    config["architectures"] = serde_json::json!(["MambaForCausalLM"]);
    std::fs::write(&path, config.to_string()).unwrap();
    for (model, named) in [
        (model, "MambaForCausalLM"),
        ("no-such-model", "no-such-model"),
        ("/nonexistent/model.gguf", "/nonexistent/model.gguf"),
    ] {
        let output = inspect(&[model], &[]);
        assert_eq!(output.status.code(), Some(1), "{model}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            stderr.contains(named) && !stderr.contains("panicked"),
            "{stderr}"
        );
    }
}

#[test]
fn a_model_of_the_hub_is_described_from_the_cache() {
    let Some(stories) = shared_asset("inspect hub", "stories260k") else {
        return;
    };
    let hub = HubServer::start();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let bytes = std::fs::read(stories.join(name)).unwrap();
        hub.add_file("org/stories", name, &bytes);
    }
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub.endpoint();
    let envs = [
        ("HF_ENDPOINT", &*endpoint),
        ("HF_HOME", home.path().to_str().unwrap()),
    ];
    let args = ["org/stories", "--json"];
    let before = inspect(&args, &envs);
    let stderr = String::from_utf8_lossy(&before.stderr).into_owned();
    assert!(stderr.contains("hotspare pull org/stories"), "{stderr}");
    assert_eq!(hub.requests(), [], "nothing is asked");
    let pull = Command::new(binary())
        .args(["pull", "org/stories"])
        .envs(envs)
        .output()
        .unwrap();
    assert!(pull.status.success());
    let after = inspect(&args, &envs);
    let described: Value = serde_json::from_slice(&after.stdout).unwrap();
    assert_eq!(described["commit"], hub.commit());
    assert!(Path::new(described["path"].as_str().unwrap()).starts_with(home.path()));
    let local = report(stories.to_str().unwrap());
    assert_eq!(described["content_hash"], local["content_hash"]);
    assert_eq!(described["num_parameters"], local["num_parameters"]);
}
