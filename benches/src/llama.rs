//! llama.cpp as a process of its own, through its Python binding (`scripts/run_llama.py`).
//!
//! Which Python has the binding is named by `HOTSPARE_BENCH_LLAMA_PYTHON`: building it takes
//! minutes and belongs to the person who measures.
//!
//! Invariant: the process lives between requests and computes only during one.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// Names the Python that has `llama_cpp`.
pub(crate) const PYTHON_VARIABLE: &str = "HOTSPARE_BENCH_LLAMA_PYTHON";

/// A running llama.cpp.
pub(crate) struct Llama {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Llama {
    /// Starts it with `path` loaded, and `streams` sequences of `context` tokens with room for
    /// `room`; `None`, said loudly, where no Python is named.
    pub(crate) fn load(
        path: &Path,
        threads: usize,
        [streams, context, room]: [usize; 3],
    ) -> Result<Option<Self>, String> {
        let Some(python) = std::env::var_os(PYTHON_VARIABLE) else {
            return Ok(None);
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run_llama.py");
        let mut process = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{PYTHON_VARIABLE}={}: {e}", python.display()))?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("pipes were asked for".to_owned());
        };
        let mut llama = Self {
            process,
            requests,
            answers: BufReader::new(answers),
        };
        llama.ask(
            &json!({"op": "load", "path": path, "threads": threads, "streams": streams,
            "context": context, "room": room}),
        )?;
        Ok(Some(llama))
    }

    /// Seconds for a prompt of `tokens`.
    pub(crate) fn prefill(&mut self, tokens: usize) -> Result<f64, String> {
        self.seconds(&json!({"op": "prefill", "tokens": tokens}))
    }

    /// Seconds for `steps` tokens of each of `streams` sequences.
    pub(crate) fn decode(&mut self, streams: usize, steps: usize) -> Result<f64, String> {
        self.seconds(&json!({"op": "decode", "streams": streams, "steps": steps}))
    }

    fn seconds(&mut self, request: &Value) -> Result<f64, String> {
        let answer = self.ask(request)?;
        let seconds = answer["seconds"].as_f64();
        seconds.ok_or_else(|| format!("llama.cpp answered {answer}"))
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let broken = |e: std::io::Error| format!("llama.cpp's process: {e}");
        writeln!(self.requests, "{request}").map_err(broken)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(broken)?;
        let answer: Value = serde_json::from_str(&line).map_err(|_| {
            format!("llama.cpp's process ended; does {PYTHON_VARIABLE} have llama-cpp-python?")
        })?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // It holds the model's memory until it is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
