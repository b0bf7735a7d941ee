//! The command line: help, versions, mistakes, configuration files and environment.
//!
//! Invariant: a mistake is named, on stderr, with a non-zero status, and without a panic.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use hotspare_testkit::{Client, Server, ServerOptions, send_signal, wait_until};
use rustix::process::Signal;

use crate::support::{PATIENCE, binary, chat};

fn run(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .output()
        .expect("the binary runs")
}

#[test]
fn help_and_version_are_there() {
    let help = run(&["serve", "--help"]);
    assert!(help.status.success());
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in [
        "--host",
        "--port",
        "--max-model-len",
        "--api-key",
        "--config",
        "--device",
    ] {
        assert!(text.contains(option), "{option} in {text}");
    }
    let version = run(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_are_named() {
    for (args, named) in [
        (&["serve", "--no-such-flag"][..], "--no-such-flag"),
        (&["serve", "--port", "many"], "--port"),
        (&["serve", "spark-mini", "--device", "cuda:0"], "cuda"),
        (
            &["serve", "spark-mini", "--max-model-len", "1000000"],
            "max_model_len",
        ),
        (
            &["serve", "spark-mini", "--config", "/nonexistent.toml"],
            "/nonexistent.toml",
        ),
        (&["frobnicate"], "frobnicate"),
        (&["serve", "spark-mini", "--log-level", "loud"], "`loud`"),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[test]
fn what_has_no_effect_is_accepted_with_a_warning() {
    let args = ["--attention-backend", "FLASH_ATTN", "--enforce-eager"];
    let options = ServerOptions::new("spark-mini", &args).env("HOTSPARE_API_KYE", "sesame");
    let server = Server::start(binary(), &options);
    let log = server.log_lines().join("\n");
    assert!(log.contains("HOTSPARE_API_KYE"), "{log}");
    assert!(!log.contains("sesame"), "{log}");
    assert!(log.contains("attention-backend"), "{log}");
    assert!(log.contains("enforce-eager"), "{log}");
}

#[test]
fn file_environment_and_arguments_are_ranked() {
    let path = std::env::temp_dir().join(format!("hotspare-it-{}.toml", std::process::id()));
    std::fs::write(
        &path,
        "max-model-len = 512\nserved-model-name = [\"from-file\"]\n",
    )
    .unwrap();
    let config = path.to_str().unwrap().to_owned();
    let served = |args: &[&str], envs: &[(&str, &str)]| {
        let mut options = ServerOptions::new("spark-mini", args);
        for (name, value) in envs {
            options = options.env(name, value);
        }
        let server = Server::start(binary(), &options);
        let model = server.client().get("/v1/models").json()["data"][0].clone();
        (
            model["id"].as_str().unwrap().to_owned(),
            model["max_model_len"].as_u64().unwrap(),
        )
    };
    let file_only = served(&["--config", &config], &[]);
    assert_eq!(file_only, ("from-file".to_owned(), 512));
    let environment = [("HOTSPARE_MAX_MODEL_LEN", "256")];
    assert_eq!(
        served(&["--config", &config], &environment).1,
        256,
        "environment beats file"
    );
    let args = ["--config", &config, "--max-model-len", "128"];
    assert_eq!(served(&args, &environment).1, 128, "an argument beats both");
    std::fs::write(&path, "no-such-option = 1\n").unwrap();
    let output = run(&["serve", "spark-mini", "--config", &config]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-option"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_taken_port_is_explained() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = run(&["serve", "spark-mini", "--port", &port]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port));
}

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let mut child = Command::new(binary())
        .args(["serve", "spark-mini", "--port", "0", "--log-level", "debug"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut url = None;
    for line in stderr.lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once("listening on ") {
            url = rest.split_whitespace().next().map(str::to_owned);
            // Dropping the lines closes the pipe: from here on no line can be written.
            break;
        }
    }
    let client = Client::new(url.expect("it listens"));
    wait_until("the server is ready", PATIENCE, || {
        client
            .try_get("/ready")
            .is_ok_and(|reply| reply.status == 200)
    });
    let reply = client.post("/v1/chat/completions", &chat("Hello"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    send_signal(child.id(), Signal::TERM);
    wait_until("it has ended", PATIENCE, || {
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // The same where nothing else can be said either.
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = Command::new(binary())
        .args(["serve", "--config", "/nowhere"])
        .stderr(full)
        .status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn logs_can_be_json() {
    let options = ServerOptions::new("spark-mini", &["--log-format", "json"]);
    let server = Server::start(binary(), &options);
    for line in server.log_lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&line);
        assert!(parsed.is_ok(), "not JSON: {line}");
    }
}
