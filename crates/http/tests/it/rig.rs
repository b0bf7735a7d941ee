//! A server for a test: a tokenizer of one character a token, a scripted engine, a port of its own.
//!
//! Invariant: everything it starts ends with the test.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotspare_engine::{Backend, EngineOptions, ScriptedOptions, spawn_in_process};
use hotspare_front::{
    EngineLauncher, Front, FrontConfig, FrontHandle, LaunchedEngine, ModelInfo, ServedModel,
};
use hotspare_http::{HttpConfig, HttpError, serve};
use hotspare_protocol::GenerationDefaults;
use hotspare_text::TextModel;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::Client;

/// Three special tokens and 95 printable characters.
pub(crate) const VOCAB_SIZE: u32 = 98;

const TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}\
    {% if tools %}[tools]{{ tools[0].function.name }}{% endif %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";

/// What a test varies.
pub(crate) struct RigOptions {
    pub(crate) http: HttpConfig,
    pub(crate) engine: EngineOptions,
    pub(crate) scripted: ScriptedOptions,
    pub(crate) with_text: bool,
    /// Whether engines ever say hello.
    pub(crate) becomes_ready: bool,
    /// Wait before a dead engine is started again.
    pub(crate) restart_backoff_ms: u64,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            http: HttpConfig::default(),
            engine: EngineOptions {
                max_model_len: Some(256),
                max_num_seqs: 16,
                kv_cache_memory_bytes: Some(1 << 20),
                check_integrity: true,
                stats_interval_ms: 10,
                ..EngineOptions::default()
            },
            scripted: ScriptedOptions {
                vocab_size: VOCAB_SIZE,
                ..ScriptedOptions::default()
            },
            with_text: true,
            becomes_ready: true,
            restart_backoff_ms: 60_000,
        }
    }
}

/// Steps that take their time.
pub(crate) fn slow(step_time_us: u64) -> RigOptions {
    RigOptions {
        scripted: ScriptedOptions {
            step_time_us,
            ..RigOptions::default().scripted
        },
        ..RigOptions::default()
    }
}

/// Minutes of work.
pub(crate) fn endless() -> RigOptions {
    let mut options = slow(10_000);
    options.engine.max_model_len = Some(1 << 16);
    options
}

/// A running server.
pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    handle: FrontHandle,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), HttpError>>,
}

struct Threads {
    options: Option<EngineOptions>,
    /// Ends of sockets nobody answers on.
    silent: Mutex<Vec<UnixStream>>,
}

impl EngineLauncher for Threads {
    fn launch(&self, life: u32) -> io::Result<LaunchedEngine> {
        let stream = match &self.options {
            Some(options) => spawn_in_process(EngineOptions {
                life: life.into(),
                ..options.clone()
            })?,
            None => {
                let (ours, theirs) = UnixStream::pair()?;
                self.silent.lock().expect("no holder panics").push(theirs);
                ours
            }
        };
        Ok(LaunchedEngine {
            stream,
            process: None,
            kv_mirror: None,
        })
    }
}

impl Rig {
    /// Starts a server and waits until it is ready, where it becomes so.
    pub(crate) async fn start(options: RigOptions) -> Self {
        let max_model_len = options.engine.max_model_len.unwrap_or(256) as u32;
        let model = ModelInfo {
            served: ServedModel {
                names: vec!["toy".into(), "org/alias".into()],
                root: "scripted".into(),
                created: 7,
                max_model_len,
                vocab_size: VOCAB_SIZE,
            },
            text: options.with_text.then(|| Arc::new(text())),
            defaults: GenerationDefaults {
                eos_token_ids: vec![1],
                ..GenerationDefaults::default()
            },
            config_hash: String::new(),
        };
        let engine = EngineOptions {
            backend: Backend::Scripted(options.scripted),
            ..options.engine
        };
        let launcher = Threads {
            options: options.becomes_ready.then_some(engine),
            silent: Mutex::default(),
        };
        let config = FrontConfig {
            node: "test-node".into(),
            stats_log_interval_s: 0,
            engine_restart_backoff_min_ms: options.restart_backoff_ms,
            engine_restart_backoff_max_ms: options.restart_backoff_ms,
            ..FrontConfig::default()
        };
        let handle = Front::start(config, model, Arc::new(launcher));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(
            listener,
            handle.front().clone(),
            options.http,
            async move {
                // A test that drops its rig stops the server too.
                let _ = stopped.await;
            },
        ));
        let rig = Self {
            addr,
            handle,
            stop: Some(stop),
            server,
        };
        if options.becomes_ready {
            eventually("ready", || rig.front().readiness().ready).await;
        }
        rig
    }

    pub(crate) fn front(&self) -> &Front {
        self.handle.front()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// Tells the server to stop, as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).unwrap();
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(&mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(30), &mut self.server).await;
        ended.expect("the server ends").unwrap().unwrap();
    }
}

/// Waits for a condition; half a minute is for machines that are busy.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// One character a token: id 3 is the space, id 97 the tilde.
fn text() -> TextModel {
    let mut vocab = String::new();
    for (id, token) in ["<s>", "</s>", "<unk>"].iter().enumerate() {
        write!(vocab, "{}:{id},", Value::from(*token)).unwrap();
    }
    for (id, code) in (3..).zip(b' '..=b'~') {
        // The byte-level alphabet writes a space as U+0120.
        let token = match code {
            b' ' => "\u{120}".to_owned(),
            code => char::from(code).to_string(),
        };
        write!(vocab, "{}:{id},", Value::from(token)).unwrap();
    }
    let vocab: Value =
        serde_json::from_str(&format!("{{{}}}", vocab.trim_end_matches(','))).unwrap();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>"), special(2, "<unk>")],
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    TextModel::load(tokenizer.to_string().as_bytes(), None, Some(TEMPLATE)).unwrap()
}
