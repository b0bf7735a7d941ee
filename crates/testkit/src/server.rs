//! A real `hotspare serve` process, on a port of its own.
//!
//! Invariant: the process is killed by its pid when the value is dropped, and its log is printed
//! when the test fails.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Client, wait_until};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The model, as on the command line; the default one where `None`.
    pub model: Option<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Further environment.
    pub envs: Vec<(String, String)>,
}

impl ServerOptions {
    /// A server of `model` with further arguments.
    pub fn new(model: &str, args: &[&str]) -> Self {
        Self {
            model: Some(model.to_owned()),
            args: args.iter().map(|&a| a.to_owned()).collect(),
            envs: Vec::new(),
        }
    }

    /// The same, with one more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server.
pub struct Server {
    child: Child,
    base_url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts `binary` and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not become ready within a minute; prints its log.
    pub fn start(binary: &Path, options: &ServerOptions) -> Self {
        let server = Self::start_unready(binary, options);
        let client = server.client();
        wait_until("the server is ready", START_TIMEOUT, || {
            client
                .try_get("/ready")
                .is_ok_and(|reply| reply.status == 200)
        });
        server
    }

    /// Starts `binary` and waits until its port is bound.
    ///
    /// # Panics
    /// Where it ends first, or takes longer than a minute.
    pub fn start_unready(binary: &Path, options: &ServerOptions) -> Self {
        let mut child = Command::new(binary)
            .arg("serve")
            .args(&options.model)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(&options.args)
            .envs(options.envs.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
        let stderr = child.stderr.take().expect("stderr was piped just now");
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().expect("no holder panics").push(line);
            }
        });
        let mut server = Self {
            child,
            base_url: String::new(),
            log,
        };
        let start = Instant::now();
        while server.base_url.is_empty() {
            let ended = server.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(
                start.elapsed() < START_TIMEOUT,
                "the server did not bind a port"
            );
            std::thread::sleep(Duration::from_millis(5));
            server.base_url = server.bound_url().unwrap_or_default();
        }
        server
    }

    fn bound_url(&self) -> Option<String> {
        self.log_lines().iter().find_map(|line| {
            let (_, rest) = line.split_once("listening on http://")?;
            let address: String = rest
                .chars()
                .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
                .collect();
            Some(format!("http://{address}"))
        })
    }

    /// `http://ADDRESS:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        Client::new(self.base_url.clone())
    }

    /// The process id of the front.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().expect("no holder panics").clone()
    }

    /// `/ha/status`.
    pub fn status(&self) -> Value {
        self.client().get("/ha/status").json()
    }

    /// The main engine's entry in `/ha/status`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn main_engine(&self) -> Value {
        let status = self.status();
        let engines = status["engines"].as_array().cloned().unwrap_or_default();
        engines
            .into_iter()
            .find(|engine| engine["name"] == "main")
            .unwrap_or_else(|| panic!("a main engine in {status}"))
    }

    /// Sends a signal to the front.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// How the process ended, if it has.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits for the process to end.
    ///
    /// # Panics
    /// When `timeout` has passed.
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_exit() {
                return status;
            }
            assert!(
                start.elapsed() < timeout,
                "the server did not end within {timeout:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log_lines().join("\n"));
        }
    }
}

/// Sends `signal` to the process `pid`, which the test started, directly or through a server.
///
/// # Panics
/// Where there is no such process.
pub fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid is positive");
    kill_process(pid, signal).unwrap_or_else(|e| panic!("signal to {pid:?}: {e}"));
}

/// Whether the process `pid` exists and is not a zombie.
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}
