//! A server of this very program, and what a client does with it.
//!
//! Invariant: the server and its engine end with the value; every request has a time limit.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};

const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Giving a large card's memory back takes a while.
const ENGINE_END_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// What the server says once its port is bound.
const LISTENING: &str = "listening on ";

/// A running server.
pub(super) struct ServerProcess {
    child: Child,
    url: String,
    log: Receiver<String>,
}

impl ServerProcess {
    /// Starts `hotspare serve ARGS` on a free port and waits until it is ready.
    pub(super) fn start(args: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["serve", "--port", "0", "--log-level", "info"])
            .args(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (lines, log) = channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if lines.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let mut server = Self {
            child,
            url: String::new(),
            log,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + START_TIMEOUT;
        let mut said = Vec::new();
        while self.url.is_empty() {
            match self.log.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    if let Some((_, url)) = line.split_once(LISTENING) {
                        let url = url.split_whitespace().next().unwrap_or_default();
                        url.clone_into(&mut self.url);
                    }
                    said.push(line);
                }
                Err(_) if self.has_ended() || Instant::now() > end => {
                    return Err(format!("the server did not start: {}", said.join(" / ")));
                }
                Err(_) => {}
            }
        }
        while self.get("/ready").is_err() {
            if self.has_ended() || Instant::now() > end {
                said.extend(self.log.try_iter());
                return Err(format!(
                    "the server did not get ready: {}",
                    said.join(" / ")
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Where it listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The answer to a GET, of status 200.
    pub(super) fn get(&self, path: &str) -> Result<Value, String> {
        let mut response = agent()
            .get(format!("{}{path}", self.url))
            .call()
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string();
        match (status, text) {
            (200, Ok(text)) => Ok(serde_json::from_str(&text).unwrap_or(Value::Null)),
            (status, _) => Err(format!("{path}: status {status}")),
        }
    }

    /// A field of the engine that serves.
    pub(super) fn engine(&self, field: &str) -> Result<Value, String> {
        let status = self.get("/ha/status")?;
        let engines = status["engines"].as_array().cloned().unwrap_or_default();
        let main = engines.iter().find(|engine| engine["name"] == "main");
        Ok(main.map_or(Value::Null, |engine| engine[field].clone()))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let pid = self.engine("pid").ok().and_then(|pid| pid.as_i64());
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its engine ends with it, a little later; the next one is to find the card empty.
        let end = Instant::now() + ENGINE_END_TIMEOUT;
        while pid.is_some_and(|pid| test_kill_process(pid).is_ok()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(REQUEST_TIMEOUT))
        .build();
    config.into()
}

/// Streams a completion; `seen` gets the number of chunks so far and ends the stream with false.
pub(super) fn stream(
    url: &str,
    prompt: &str,
    max_tokens: usize,
    mut seen: impl FnMut(usize) -> bool,
) -> Result<String, String> {
    let body = json!({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0,
        "ignore_eos": true, "stream": true});
    let mut response = agent()
        .post(format!("{url}/v1/completions"))
        .header("content-type", "application/json")
        .send(body.to_string())
        .map_err(|error| error.to_string())?;
    if response.status().as_u16() != 200 {
        let text = response.body_mut().read_to_string().unwrap_or_default();
        return Err(format!("status {}: {text}", response.status()));
    }
    let (mut text, mut num_chunks, mut finish) = (String::new(), 0, None);
    for line in BufReader::new(response.body_mut().as_reader()).lines() {
        let line = line.map_err(|error| format!("after {num_chunks} chunks: {error}"))?;
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        if data == "[DONE]" {
            break;
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        if !chunk["error"].is_null() {
            return Err(format!("after {num_chunks} chunks: {}", chunk["error"]));
        }
        let choice = &chunk["choices"][0];
        text.push_str(choice["text"].as_str().unwrap_or_default());
        finish = choice["finish_reason"]
            .as_str()
            .map(str::to_owned)
            .or(finish);
        num_chunks += 1;
        if !seen(num_chunks) {
            return Ok(text);
        }
    }
    match finish.as_deref() {
        Some("length") => Ok(text),
        other => Err(format!(
            "{num_chunks} chunks, and it finished with {other:?}"
        )),
    }
}
