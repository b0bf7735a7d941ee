//! Engines that hang, are killed, have spares, and are replaced while they serve.
//!
//! Invariant: waits are bounded; no test depends on how fast a machine is.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hotspare_testkit::{Event, Server, ServerOptions, is_running, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, binary, chat, metric, serve_mini, streamed_text, with};

const CHAT: &str = "/v1/chat/completions";

/// Short enough for a test, long enough for a loaded machine.
const HANG: [&str; 2] = ["--engine-hang-floor-ms", "1500"];

/// An engine of the status.
fn engine(server: &Server, name: &str) -> Option<Value> {
    let status = server.status();
    let engines = status["engines"].as_array().cloned().unwrap_or_default();
    engines.into_iter().find(|engine| engine["name"] == name)
}

fn pid(server: &Server, name: &str) -> Option<u32> {
    let pid = engine(server, name)?["pid"].as_u64()?;
    u32::try_from(pid).ok()
}

fn main_pid(server: &Server) -> u32 {
    pid(server, "main").expect("an engine runs")
}

fn wait_ready(server: &Server) {
    wait_until("the server is ready", PATIENCE, || {
        server.client().get("/ready").status == 200
    });
}

fn losses(server: &Server, cause: &str) -> String {
    let text = server.client().get("/metrics").text();
    let line = text
        .lines()
        .find(|line| line.starts_with("hotspare:engine_losses_total") && line.contains(cause));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.expect("the metric is there").to_owned()
}

fn endless() -> Value {
    with(
        chat("Tell me a story."),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 1900}),
    )
}

/// Whether a stream ended with an error or a finish, and `[DONE]`.
fn ended_in_order(events: &[Event]) -> bool {
    let says_how = events.iter().any(|event| match event {
        Event::Json(event) => {
            event["error"].is_object() || event["choices"][0]["finish_reason"].is_string()
        }
        _ => false,
    });
    says_how && events.last() == Some(&Event::Done)
}

#[test]
fn a_stopped_engine_is_found_out_replaced_and_ended() {
    let server = serve_mini(&[&HANG[..], &["--engine-stop-timeout-ms", "20000"]].concat());
    let stopped = main_pid(&server);
    let mut stream = server.client().stream(CHAT, &endless());
    assert!(stream.next().is_some() && stream.next().is_some());
    send_signal(stopped, Signal::STOP);
    let events: Vec<Event> = stream.collect();
    assert!(ended_in_order(&events), "{:?}", events.last());
    wait_until("another engine serves", PATIENCE, || {
        pid(&server, "main").is_some_and(|pid| pid != stopped)
    });
    wait_ready(&server);
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
    assert_eq!(losses(&server, "own"), "1");
    assert_eq!(losses(&server, "outside"), "0");
    // It has lost its place and its socket: when it wakes it sees the end of that, and ends.
    assert!(is_running(stopped), "nothing has killed it yet");
    let main = main_pid(&server);
    send_signal(stopped, Signal::CONT);
    wait_until("the late engine ends", PATIENCE, || !is_running(stopped));
    assert_eq!(main_pid(&server), main);
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
}

#[test]
fn a_stopped_engine_is_found_out_while_idle_and_killed_where_nobody_wakes_it() {
    let args = [
        "--engine-canary-interval-ms",
        "200",
        "--engine-stop-timeout-ms",
        "300",
    ];
    let server = serve_mini(&[&HANG[..], &args[..]].concat());
    let stopped = main_pid(&server);
    send_signal(stopped, Signal::STOP);
    wait_until("the stopped engine is killed", PATIENCE, || {
        !is_running(stopped)
    });
    wait_until("another engine serves", PATIENCE, || {
        pid(&server, "main").is_some_and(|pid| pid != stopped)
    });
    wait_ready(&server);
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
}

#[test]
fn an_engine_that_hangs_in_a_step_is_replaced() {
    let options = ServerOptions::new("spark-mini", &HANG).env("HOTSPARE_FAULTS", "hang-at-token=5");
    let server = Server::start(binary(), &options);
    let hung = main_pid(&server);
    let events: Vec<Event> = server.client().stream(CHAT, &endless()).collect();
    assert!(ended_in_order(&events), "{:?}", events.last());
    wait_until("the hung engine ends", PATIENCE, || !is_running(hung));
    wait_ready(&server);
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
}

#[test]
fn steps_that_take_longer_than_the_floor_convict_nobody() {
    let args = [
        "--engine-hang-floor-ms",
        "100",
        "--engine-hang-factor",
        "50",
    ];
    let options =
        ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", "slow-step-ms=300");
    // The first of them is the canary's, which has the time of a start.
    let server = Server::start(binary(), &options);
    let body = with(chat("Hello"), json!({"max_tokens": 5}));
    assert_eq!(server.client().post(CHAT, &body).status, 200);
    assert_eq!(metric(&server, "hotspare:engine_restarts_total"), 0.0);
}

#[test]
fn who_kills_an_engine_is_told_by_its_end() {
    let server = serve_mini(&[]);
    for (signal, outside, own) in [(Signal::KILL, "1", "0"), (Signal::ABORT, "1", "1")] {
        wait_ready(&server);
        let killed = main_pid(&server);
        send_signal(killed, signal);
        wait_until("the loss is counted", PATIENCE, || {
            losses(&server, "outside") == outside && losses(&server, "own") == own
        });
        wait_until("another engine serves", PATIENCE, || {
            pid(&server, "main").is_some_and(|pid| pid != killed)
        });
    }
}

#[test]
fn a_spare_is_there_at_once_and_a_new_one_comes() {
    let server = serve_mini(&["--spare-engines", "1"]);
    for round in 1..=3 {
        wait_until("a spare is ready", PATIENCE, || {
            engine(&server, "spare-1").is_some_and(|spare| spare["state"] == "ready")
        });
        let (main, spare) = (main_pid(&server), pid(&server, "spare-1").unwrap());
        assert_ne!(main, spare);
        send_signal(main, Signal::KILL);
        wait_until("the spare serves", PATIENCE, || main_pid(&server) == spare);
        assert_eq!(server.client().get("/ready").status, 200);
        assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
        wait_until("one was started in its place", PATIENCE, || {
            metric(&server, "hotspare:engine_restarts_total") == f64::from(round)
        });
    }
}

#[test]
fn a_crash_loop_makes_the_node_unready_and_does_not_end_it() {
    let args = [
        "--max-num-engine-failures",
        "3",
        "--engine-restart-backoff-min-ms",
        "1",
        "--engine-restart-backoff-max-ms",
        "600000",
    ];
    let server = serve_mini(&args);
    for _ in 0..3 {
        wait_ready(&server);
        let killed = main_pid(&server);
        send_signal(killed, Signal::ABORT);
        wait_until("it is noticed", PATIENCE, || {
            pid(&server, "main") != Some(killed)
        });
    }
    wait_until("the node says so", PATIENCE, || {
        server.status()["role"] == "failed"
    });
    let status = server.status();
    assert_eq!(status["engines"][0]["state"], "failed");
    let reason = status["reasons"][0].as_str().unwrap();
    assert!(reason.contains("3 times in a row"), "{reason}");
    assert!(reason.contains("SIGABRT"), "{reason}");
    for path in ["/health", "/ready"] {
        let reply = server.client().get(path);
        assert_eq!(reply.status, 503, "{path}");
        assert!(
            reply.text().contains("3 times in a row"),
            "{}",
            reply.text()
        );
    }
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 503);
    assert_eq!(server.client().get("/live").status, 200);
}

fn reload(server: &Server, args: &[&str]) -> Output {
    Command::new(binary())
        .args(["reload", "--url", server.base_url()])
        .args(args)
        .output()
        .expect("the binary runs")
}

fn served_model(server: &Server) -> String {
    let models = server.client().get("/v1/models").json();
    models["data"][0]["id"].as_str().unwrap().to_owned()
}

/// Streams one after the other until it is over, each checked to be of one model.
fn stream_until(server: &Server, index: usize, load: &Load) {
    let client = server.client();
    let body = with(
        chat("Tell me a story."),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 40, "temperature": 1.0,
            "seed": index}),
    );
    let mut texts: Vec<(String, String)> = Vec::new();
    loop {
        let events = client.stream(CHAT, &body).collect_json();
        let model = events[0]["model"].as_str().unwrap().to_owned();
        for event in &events {
            assert!(event["error"].is_null(), "{event}");
            assert_eq!(event["model"], model.as_str(), "one model throughout");
            assert_eq!(event["system_fingerprint"], events[0]["system_fingerprint"]);
        }
        let last = &events.last().unwrap()["choices"][0];
        assert_eq!(last["finish_reason"], "length");
        // What a stream says is its model's, whichever else was loaded meanwhile.
        let text = streamed_text(&events, 0);
        match texts.iter().find(|(of, _)| *of == model) {
            Some((_, expected)) => assert_eq!(&text, expected),
            None => texts.push((model.clone(), text)),
        }
        load.seen.lock().unwrap().insert(model);
        if load.is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Streams that run beside a test.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    /// Models of the streams that have ended since somebody looked.
    seen: Mutex<BTreeSet<String>>,
}

/// Ends the streams, also where a step failed.
struct EndOnDrop<'a>(&'a Load);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reload_under_load_loses_no_stream() {
    let server = serve_mini(&["--engine-retire-grace-ms", "200"]);
    let (server, load) = (&server, &Load::default());
    std::thread::scope(|scope| {
        let _end = EndOnDrop(load);
        for index in 0..32 {
            scope.spawn(move || stream_until(server, index, load));
        }
        for model in ["spark", "spark-mini"] {
            let output = reload(server, &[model]);
            assert!(output.status.success(), "{output:?}");
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(told.trim(), format!("{model} is served"));
            assert_eq!(served_model(server), model);
            load.seen.lock().unwrap().clear();
            wait_until("streams are of the new model", PATIENCE * 4, || {
                load.seen.lock().unwrap().contains(model)
            });
        }
    });
    assert_eq!(metric(server, "hotspare:engine_restarts_total"), 0.0);
    wait_until("the old engines are gone", PATIENCE, || {
        server.status()["engines"].as_array().unwrap().len() == 1
    });
    let engine = server.main_engine();
    assert_eq!(engine["model"], "spark-mini");
}

#[test]
fn a_reload_that_fails_says_why_and_changes_nothing() {
    let server = serve_mini(&[]);
    let pid = main_pid(&server);
    let output = reload(&server, &["/nonexistent/model"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("/nonexistent/model"), "{stderr}");
    assert!(stderr.contains("the old model is served"), "{stderr}");
    assert_eq!(
        (main_pid(&server), served_model(&server)),
        (pid, "spark-mini".to_owned())
    );
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
    let client = server.client();
    let bad = client.post("/ha/reload", &json!({"model": 7}));
    assert_eq!(bad.status, 400, "{}", bad.text());
    let page = client.with_header("origin", "https://example.com");
    assert_eq!(page.post("/ha/reload", &json!({})).status, 403);
}

#[test]
fn sighup_loads_the_same_model_afresh() {
    let server = serve_mini(&["--engine-retire-grace-ms", "100"]);
    let old = main_pid(&server);
    let hash = server.main_engine()["model_hash"].clone();
    let mut stream = server.client().stream(CHAT, &endless());
    assert!(stream.next().is_some() && stream.next().is_some());
    server.signal(Signal::HUP);
    wait_until("another engine serves", PATIENCE, || {
        main_pid(&server) != old
    });
    let events = stream.collect_json();
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    assert_eq!(server.main_engine()["model_hash"], hash);
    wait_until("the old engine ends", PATIENCE, || !is_running(old));
    assert_eq!(metric(&server, "hotspare:engine_restarts_total"), 0.0);
}

#[test]
fn a_reload_takes_what_the_configuration_file_says_now() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    write("max-model-len = 512\n");
    let path = file.path().to_str().unwrap();
    let server = serve_mini(&["--engine-retire-grace-ms", "100", "--config", path]);
    let max_model_len = || {
        let models = server.client().get("/v1/models").json();
        models["data"][0]["max_model_len"].as_u64()
    };
    assert_eq!(max_model_len(), Some(512));
    write("max-model-lens = 1\n");
    let output = reload(&server, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("max-model-lens"), "{stderr}");
    assert_eq!(max_model_len(), Some(512), "nothing has changed");
    write("max-model-len = 1024\n");
    let output = reload(&server, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(max_model_len(), Some(1024));
    let long = with(
        chat("Hello"),
        json!({"max_tokens": 700, "ignore_eos": true}),
    );
    let answer = server.client().post(CHAT, &long);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 700);
}

#[test]
fn an_admin_key_is_needed_where_there_is_one() {
    let options = ServerOptions::new("spark-mini", &[]).env("HOTSPARE_ADMIN_KEY", "sesame");
    let server = Server::start(binary(), &options);
    let refused = reload(&server, &[]);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        stderr.contains("401") && !stderr.contains("sesame"),
        "{stderr}"
    );
    let output = reload(&server, &["--admin-key", "sesame"]);
    assert!(output.status.success(), "{output:?}");
}
