//! The embedded model through the real server: streams, many clients, a client that goes away, an
//! engine that is killed, the memory budget.
//!
//! Invariant: a stream has the same text whoever shares the batch, and whether or not its engine
//! was killed under it.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::args::ServerTestsArgs;
use super::report::Report;
use super::server_process::{ServerProcess, stream};

/// Tests one thing of a running server; gives what it saw, or what is wrong.
type Test = fn(&ServerProcess, &ServerTestsArgs) -> Result<String, String>;

/// Of the tokens of the stream whose engine is killed, it has had one in so many by then.
const TOKENS_PER_CHUNK_BEFORE: usize = 15;
const WAIT: Duration = Duration::from_secs(20);
/// Less than any card has left for a cache.
const TINY_SHARE: &str = "0.0001";

pub(super) fn run(args: &ServerTestsArgs, report: &mut Report) -> Result<(), String> {
    let device = report.machine.device.clone();
    let server = ServerProcess::start(&[&args.model, "--device", &device])?;
    let ran_on = server.engine("device")?;
    let is_there = ran_on.as_str() == Some(device.as_str());
    report.result(is_there, "starts", &format!("on {ran_on}"), json!({}));
    let tests: [(&str, Test); 4] = [
        ("one stream", one_stream),
        ("many clients", many_clients),
        ("a client goes away", a_client_goes_away),
        ("the engine is killed", the_engine_is_killed),
    ];
    for (name, test) in tests {
        match test(&server, args) {
            Ok(note) => report.result(true, name, &note, json!({})),
            Err(message) => report.result(false, name, &message, json!({})),
        }
    }
    drop(server);
    if device != "cpu" {
        memory_budget(&device, args, report);
    }
    Ok(())
}

fn prompt(client: usize) -> String {
    format!("Once there were {client} friends")
}

fn one_stream(server: &ServerProcess, args: &ServerTestsArgs) -> Result<String, String> {
    let start = Instant::now();
    let text = stream(server.url(), &prompt(0), args.tokens, |_| true)?;
    let again = stream(server.url(), &prompt(0), args.tokens, |_| true)?;
    match text == again {
        true => Ok(format!(
            "twice the same text, {:.2} s",
            start.elapsed().as_secs_f64()
        )),
        false => Err(format!("{text:?}, then {again:?}")),
    }
}

/// All at once, then some of them alone: the texts are equal.
fn many_clients(server: &ServerProcess, args: &ServerTestsArgs) -> Result<String, String> {
    let url = server.url();
    let start = Instant::now();
    let together: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let clients = (0..args.clients)
            .map(|client| scope.spawn(move || stream(url, &prompt(client), args.tokens, |_| true)));
        let clients: Vec<_> = clients.collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined
            .map(|text| text.unwrap_or_else(|_| Err("a client panicked".to_owned())))
            .collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    for (client, text) in together.iter().enumerate() {
        let text = text.as_ref().map_err(|e| format!("client {client}: {e}"))?;
        if client % 8 == 0 {
            let alone = stream(url, &prompt(client), args.tokens, |_| true)?;
            if *text != alone {
                return Err(format!(
                    "client {client}: {text:?} together, {alone:?} alone"
                ));
            }
        }
    }
    let rate = (args.clients * args.tokens) as f64 / seconds;
    Ok(format!(
        "{} at once: {rate:.0} tokens/s, same texts as alone",
        args.clients
    ))
}

/// What it asked for is not computed to the end.
fn a_client_goes_away(server: &ServerProcess, args: &ServerTestsArgs) -> Result<String, String> {
    stream(server.url(), &prompt(1), 2 * args.long_tokens, |chunks| {
        chunks < 3
    })?;
    let end = Instant::now() + WAIT;
    while server.engine("running")?.as_u64() != Some(0) {
        if Instant::now() > end {
            return Err("its sequence still runs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok("nothing runs any more".to_owned())
}

/// The stream that ran goes on, and has the text of one that was left alone.
fn the_engine_is_killed(server: &ServerProcess, args: &ServerTestsArgs) -> Result<String, String> {
    let whole = stream(server.url(), &prompt(2), args.long_tokens, |_| true)?;
    let pid = server
        .engine("pid")?
        .as_i64()
        .ok_or("the engine has no pid")?;
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or("no pid")?;
    let mut killed = None;
    let cut = stream(server.url(), &prompt(2), args.long_tokens, |chunks| {
        if chunks == args.long_tokens / TOKENS_PER_CHUNK_BEFORE {
            killed = Some(kill_process(pid, Signal::KILL));
        }
        true
    })?;
    match killed {
        Some(Ok(())) if cut == whole => {}
        Some(Ok(())) => return Err("the text is another than that of an uncut stream".to_owned()),
        other => return Err(format!("the kill: {other:?}")),
    }
    let end = Instant::now() + WAIT;
    while server.get("/ready").is_err() {
        if Instant::now() > end {
            return Err("the server is not ready again".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok("the stream went on with the same text; ready again".to_owned())
}

/// Half of the card serves; what holds no cache is refused with the flag that helps.
fn memory_budget(device: &str, args: &ServerTestsArgs, report: &mut Report) {
    let half = [
        &args.model,
        "--device",
        device,
        "--gpu-memory-utilization",
        "0.5",
    ];
    match ServerProcess::start(&half) {
        Ok(server) => {
            let text = stream(server.url(), &prompt(0), args.tokens, |_| true);
            let note = text
                .as_ref()
                .map_or_else(String::clone, |_| "serves".to_owned());
            report.result(text.is_ok(), "half of the memory", &note, json!({}));
        }
        Err(message) => report.result(false, "half of the memory", &message, json!({})),
    }
    let too_little = [
        &args.model,
        "--device",
        device,
        "--gpu-memory-utilization",
        TINY_SHARE,
    ];
    match ServerProcess::start(&too_little) {
        Ok(_) => report.result(false, "too little memory", "it started", json!({})),
        Err(message) => {
            let names_it = message.contains("--gpu-memory-utilization");
            report.result(names_it, "too little memory", &message, json!({}));
        }
    }
}
