//! `hotspare demo`: a pair on this machine, a stream, a fault, and the stream goes on.
//!
//! Two real nodes of this same program on loopback; the fault is real, too. What happened is read
//! from the nodes and from the stream, and printed.
//!
//! Invariant: status 0 only where the stream has the text of an uncut one. All processes end with
//! the demo, and its files go, also where a signal ends it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::{DemoArgs, DemoScenario};
use crate::demo_end::Ending;
use crate::demo_nodes::{Demo, Node};
use crate::fail;

/// Tokens that are seen before the fault.
const NUM_TOKENS_BEFORE: usize = 40;

/// Tokens of the story.
const NUM_TOKENS: usize = 160;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a scenario.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    let ending = match Ending::watch() {
        Ok(ending) => ending,
        Err(error) => return fail(&format!("signals: {error}")),
    };
    match (play(args, &ending), ending.received()) {
        (Ok(()), _) => ExitCode::SUCCESS,
        (Err(_), Some(received)) => {
            fail(&format!("{received}: the demo and its nodes have ended"));
            ExitCode::from(u8::try_from(received.exit_status).unwrap_or(1))
        }
        (Err(message), None) => {
            fail(&message);
            ExitCode::FAILURE
        }
    }
}

/// Prints a line for people; who closed the pipe has seen enough.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn play(args: &DemoArgs, ending: &Ending) -> Result<(), String> {
    let is_cut = args.scenario == DemoScenario::Partition;
    say("Starting two nodes on this machine: a serves, b stands by …");
    let mut demo = Demo::start(&args.model, is_cut, ending)?;
    wait(ending, "a serves and b stands by", || {
        demo.a.role() == "primary" && demo.b.role() == "standby"
    })?;
    wait(ending, "b can use a's engine", || {
        demo.b.status()["peer_engine"] == true
    })?;
    for node in [&demo.a, &demo.b] {
        say(&format!("  {}: {} at {}", node.name, node.role(), node.url));
    }
    let through = match args.scenario {
        DemoScenario::Engine => "a",
        _ => "b",
    };
    say(&format!("\nA client asks node {through} for a story:\n"));
    let url = demo.node(through).url.clone();
    let mut story = Story::ask(&url)?;
    story.read(NUM_TOKENS_BEFORE)?;
    let what = strike(args.scenario, &mut demo)?;
    let struck = Instant::now();
    say(&format!("\n\n>>> {what}\n"));
    story.read(usize::MAX)?;
    let gap = story.longest_gap_since(struck);
    say("\n");
    tell(args.scenario, &mut demo)?;
    let survivor = match args.scenario {
        DemoScenario::Switchover | DemoScenario::Engine => demo.node(through).url.clone(),
        _ => demo.b.url.clone(),
    };
    say("The same story, asked for again without a fault:");
    let mut again = Story::ask(&survivor)?;
    again.is_quiet = true;
    again.read(usize::MAX)?;
    let is_same = again.text == story.text && !story.text.is_empty();
    say(&format!(
        "  {} characters, {}. The longest silence after the fault was {} ms.",
        story.text.chars().count(),
        match is_same {
            true => "the same text, character for character",
            false => "ANOTHER TEXT",
        },
        gap.as_millis()
    ));
    match is_same {
        true => Ok(()),
        false => Err("the stream that went on differs from an uncut one".to_owned()),
    }
}

/// Does it; says what was done.
fn strike(scenario: DemoScenario, demo: &mut Demo) -> Result<String, String> {
    match scenario {
        DemoScenario::Node => {
            let engine = demo.a.engine_pid()?;
            let front = demo.a.kill_front();
            demo.a.kill_pid(engine);
            Ok(format!("kill -9 {front} {engine}: all of node a is gone"))
        }
        DemoScenario::Front => {
            let front = demo.a.kill_front();
            Ok(format!(
                "kill -9 {front}: node a's front is gone, its engine ends with it"
            ))
        }
        DemoScenario::Engine => {
            let engine = demo.a.engine_pid()?;
            demo.a.kill_pid(engine);
            Ok(format!(
                "kill -9 {engine}: node a's engine is gone, its front is not"
            ))
        }
        DemoScenario::Partition => {
            demo.cut(true);
            Ok("the network between the nodes is cut: nothing passes any more".to_owned())
        }
        DemoScenario::Switchover => {
            let url = format!("{}/ha/switchover", demo.a.url);
            let answer = post(
                &url,
                &json!({"reason": "demo", "requested_by": "hotspare demo"}),
            )?;
            Ok(format!("hotspare ha switchover: {}", answer["outcome"]))
        }
    }
}

/// Says how the nodes stand after it.
fn tell(scenario: DemoScenario, demo: &mut Demo) -> Result<(), String> {
    let serves = |node: &Node| node.role().starts_with("primary");
    let ending = &demo.ending.clone();
    match scenario {
        DemoScenario::Node | DemoScenario::Front => {
            wait(ending, "b serves", || serves(&demo.b))?;
        }
        DemoScenario::Engine | DemoScenario::Switchover => {
            wait(ending, "b serves", || serves(&demo.b))?;
            wait(ending, "a stands by", || demo.a.role() == "standby")?;
        }
        DemoScenario::Partition => {
            wait(ending, "b serves", || serves(&demo.b))?;
            say(&format!(
                "While it is cut a is {}, b is {}: each serves its own clients.",
                demo.a.role(),
                demo.b.role()
            ));
            demo.cut(false);
            say(">>> the network is whole again");
            wait(ending, "one of them serves", || {
                serves(&demo.a) != serves(&demo.b)
            })?;
        }
    }
    for node in [&demo.a, &demo.b] {
        let status = node.status();
        match status["role"].as_str() {
            Some(role) => say(&format!(
                "  {}: {role}, epoch {}",
                node.name, status["epoch"]
            )),
            None => say(&format!("  {}: gone", node.name)),
        }
    }
    let history = demo.b.get("/ha/history").unwrap_or_default();
    for entry in history["history"].as_array().into_iter().flatten() {
        if entry["event"] == "role-changed" {
            say(&format!(
                "  b: {} -> {} ({})",
                entry["from"].as_str().unwrap_or("?"),
                entry["to"].as_str().unwrap_or("?"),
                entry["cause"].as_str().unwrap_or("?")
            ));
        }
    }
    Ok(())
}

fn wait(ending: &Ending, what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
    let started = Instant::now();
    while !is_so() {
        ending.check()?;
        if started.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE * 3));
    config.build().into()
}

fn post(url: &str, body: &Value) -> Result<Value, String> {
    let request = agent().post(url).header("content-type", "application/json");
    let mut response = request
        .send(body.to_string())
        .map_err(|e| format!("{url}: {e}"))?;
    let text = response.body_mut().read_to_string();
    let text = text.map_err(|e| format!("{url}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("{url}: {e}"))
}

/// A streamed answer, printed as it comes.
struct Story {
    lines: Box<dyn Iterator<Item = std::io::Result<String>>>,
    text: String,
    num_tokens: usize,
    arrivals: Vec<Instant>,
    is_quiet: bool,
}

impl Story {
    fn ask(url: &str) -> Result<Self, String> {
        let body = json!({
            "prompt": "Once upon a time, ", "max_tokens": NUM_TOKENS, "temperature": 0.8,
            "seed": 7, "ignore_eos": true, "stream": true,
        });
        let url = format!("{url}/v1/completions");
        let request = agent()
            .post(&url)
            .header("content-type", "application/json");
        let response = request
            .send(body.to_string())
            .map_err(|e| format!("{url}: {e}"))?;
        let reader = BufReader::new(response.into_body().into_reader());
        Ok(Self {
            lines: Box::new(reader.lines()),
            text: String::new(),
            num_tokens: 0,
            arrivals: Vec::new(),
            is_quiet: false,
        })
    }

    /// Reads up to so many tokens, or to the end.
    fn read(&mut self, max_num_tokens: usize) -> Result<(), String> {
        while self.num_tokens < max_num_tokens {
            let Some(line) = self.lines.next() else {
                return Err("the stream ended without its [DONE]".to_owned());
            };
            let line = line.map_err(|e| format!("the stream was cut: {e}"))?;
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                return Ok(());
            }
            let event: Value = serde_json::from_str(data).map_err(|e| e.to_string())?;
            if let Some(message) = event["error"]["message"].as_str() {
                return Err(format!("the stream ended with an error: {message}"));
            }
            let text = event["choices"][0]["text"].as_str().unwrap_or_default();
            self.num_tokens += 1;
            self.arrivals.push(Instant::now());
            self.text.push_str(text);
            if !self.is_quiet {
                let mut out = std::io::stdout();
                let _ = write!(out, "{text}").and_then(|()| out.flush());
            }
        }
        Ok(())
    }

    /// The longest time without a token from `struck` on.
    fn longest_gap_since(&self, struck: Instant) -> Duration {
        let mut last = struck;
        let mut longest = Duration::ZERO;
        for &at in self.arrivals.iter().filter(|at| **at > struck) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}
