//! What the tests of this crate share: a tokenizer, model facts, and engines of two kinds.
//!
//! A scripted engine is the real one over a backend without a model; a puppet is a socket whose
//! other end the test holds, for answers that no real engine gives.
//!
//! Invariant: nothing here is in a release build.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use hotspare_batch::{SamplingParams, SequenceEvent, StopParams, TokenId};
use hotspare_engine::{Backend, EngineOptions, ScriptedOptions, spawn_in_process};
use hotspare_link::{
    EngineHello, EngineMessage, FrameReader, FrameWriter, FrontMessage, LinkError, ProtocolRange,
};
use hotspare_protocol::GenerationDefaults;
use hotspare_text::TextModel;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    EngineLauncher, FrontConfig, GenerationJob, KvMirror, LaunchedEngine, ModelInfo, ServedModel,
};

pub(crate) const MAX_MODEL_LEN: u32 = 256;
pub(crate) const VOCAB_SIZE: u32 = 512;
const MAX_FRAME_BYTES: usize = 1 << 20;

/// A tokenizer whose token `i` is `texts[i]`, in ASCII without spaces; id 0 is special.
pub(crate) fn text_model(texts: &[&str]) -> Arc<TextModel> {
    let vocab: serde_json::Map<_, _> = texts
        .iter()
        .enumerate()
        .map(|(id, text)| ((*text).to_owned(), json!(id)))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 0, "content": texts[0], "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        }],
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true,
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let model = TextModel::load(tokenizer.to_string().as_bytes(), None, None);
    Arc::new(model.expect("the tokenizer is well formed"))
}

/// A tokenizer for scripted engines: token `i` is `<i>`.
pub(crate) fn numbered_text_model() -> Arc<TextModel> {
    let texts: Vec<String> = (0..VOCAB_SIZE).map(|id| format!("<{id}>")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    text_model(&texts)
}

pub(crate) fn model_info(text: Option<Arc<TextModel>>) -> ModelInfo {
    ModelInfo {
        served: ServedModel {
            names: vec!["test".to_owned()],
            root: "test".to_owned(),
            created: 1,
            max_model_len: MAX_MODEL_LEN,
            vocab_size: VOCAB_SIZE,
        },
        text,
        defaults: GenerationDefaults::default(),
        config_hash: "config".to_owned(),
    }
}

/// Quick restarts and no log.
pub(crate) fn config() -> FrontConfig {
    FrontConfig {
        assigned_seed: Some(7),
        engine_restart_backoff_min_ms: 1,
        engine_restart_backoff_max_ms: 4,
        engine_stop_timeout_ms: 2_000,
        max_num_engine_failures: 4,
        stats_log_interval_s: 0,
        ..FrontConfig::default()
    }
}

pub(crate) fn job(prompts: &[&[TokenId]], max_tokens: u32) -> GenerationJob {
    GenerationJob {
        prompts: prompts.iter().map(|prompt| prompt.to_vec()).collect(),
        n: 1,
        sampling: SamplingParams::greedy(),
        seed: None,
        stop: StopParams {
            max_tokens,
            ..StopParams::default()
        },
        stop_strings: Vec::new(),
        include_stop_str_in_output: false,
        skip_special_tokens: true,
        priority: 0,
        deadline_ms: None,
        cache_salt: None,
        detokenize: true,
        model: None,
    }
}

/// An event of one token or more, without anything else.
pub(crate) fn event(first_index: u32, token_ids: &[TokenId]) -> SequenceEvent {
    SequenceEvent {
        request_id: hotspare_batch::RequestId(0),
        attempt: 0,
        first_index,
        token_ids: token_ids.into(),
        logprobs: Vec::new(),
        prompt: None,
        finish: None,
    }
}

pub(crate) fn scripted(script: ScriptedOptions) -> EngineOptions {
    EngineOptions {
        backend: Backend::Scripted(script),
        max_model_len: Some(MAX_MODEL_LEN as usize),
        stats_interval_ms: 1,
        ..EngineOptions::default()
    }
}

/// Starts real engines on threads; the options may differ from life to life.
pub(crate) struct ScriptedLauncher<F>(pub(crate) F);

impl<F: Fn(u32) -> EngineOptions + Send + Sync + 'static> EngineLauncher for ScriptedLauncher<F> {
    fn launch(&self, life: u32) -> io::Result<LaunchedEngine> {
        let mut options = (self.0)(life);
        options.life = life.into();
        let kv_mirror = KvMirror::create()?;
        options.kv_mirror_path = Some(kv_mirror.path().into());
        Ok(LaunchedEngine {
            stream: spawn_in_process(options)?,
            process: None,
            kv_mirror: Some(kv_mirror),
        })
    }
}

/// Hands the engine's end of each new socket to the test.
pub(crate) struct PuppetLauncher {
    puppets: Mutex<mpsc::UnboundedSender<Puppet>>,
    has_kv_mirrors: bool,
}

/// An engine whose strings the test pulls, from a thread that may block.
pub(crate) struct Puppet {
    reader: FrameReader<UnixStream>,
    writer: FrameWriter<UnixStream>,
}

impl PuppetLauncher {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Puppet>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let launcher = Self {
            puppets: Mutex::new(sender),
            has_kv_mirrors: false,
        };
        (Arc::new(launcher), receiver)
    }

    /// Whose engines have somewhere to keep KV blocks.
    pub(crate) fn with_kv_mirrors() -> (Arc<Self>, mpsc::UnboundedReceiver<Puppet>) {
        let (launcher, receiver) = Self::new();
        let puppets = Arc::into_inner(launcher).map(|launcher| launcher.puppets);
        let launcher = Self {
            puppets: puppets.expect("nobody else has it"),
            has_kv_mirrors: true,
        };
        (Arc::new(launcher), receiver)
    }
}

impl EngineLauncher for PuppetLauncher {
    fn launch(&self, _life: u32) -> io::Result<LaunchedEngine> {
        let (ours, theirs) = UnixStream::pair()?;
        let puppet = Puppet {
            reader: FrameReader::new(theirs.try_clone()?, MAX_FRAME_BYTES),
            writer: FrameWriter::new(theirs, MAX_FRAME_BYTES, 1),
        };
        let puppets = self.puppets.lock().expect("no holder panics");
        puppets.send(puppet).map_err(io::Error::other)?;
        let kv_mirror = self.has_kv_mirrors.then(KvMirror::create).transpose()?;
        Ok(LaunchedEngine {
            stream: ours,
            process: None,
            kv_mirror,
        })
    }
}

pub(crate) fn hello() -> EngineHello {
    EngineHello {
        protocol: ProtocolRange::OURS,
        engine_id: 1,
        model_hash: "hash".to_owned(),
        numerics_id: "numerics".to_owned(),
        device: "puppet".to_owned(),
        max_model_len: MAX_MODEL_LEN,
        max_num_seqs: 8,
        vocab_size: VOCAB_SIZE,
        num_blocks: 64,
        block_size: 16,
    }
}

impl Puppet {
    pub(crate) fn send(&mut self, message: &EngineMessage) {
        self.writer.write(message).expect("the front reads");
        self.writer.flush().expect("the front reads");
    }

    /// As [`Self::send`], where the front may have gone.
    pub(crate) fn try_send(&mut self, message: &EngineMessage) -> Result<(), LinkError> {
        self.writer.write(message)?;
        self.writer.flush()
    }

    /// Bytes that are no frame.
    pub(crate) fn send_garbage(&mut self) {
        let written = self.writer.get_mut().write_all(b"GET / HTTP/1.1\r\n\r\n");
        written.expect("the front reads");
    }

    /// The next message, a canary too.
    pub(crate) fn receive_any(&mut self) -> Option<FrontMessage> {
        self.reader.read().expect("the front sends frames")
    }

    /// `None` where the front closed the socket. Canaries are answered on the way.
    pub(crate) fn receive(&mut self) -> Option<FrontMessage> {
        loop {
            match self.reader.read().expect("the front sends frames") {
                Some(FrontMessage::Canary { nonce }) => {
                    self.send(&EngineMessage::CanaryDone { nonce, error: None });
                }
                message => return message,
            }
        }
    }

    /// Takes the canary that proves it, and answers.
    pub(crate) fn prove(&mut self) {
        let message = self.reader.read().expect("the front sends frames");
        let Some(FrontMessage::Canary { nonce }) = message else {
            panic!("a canary was due: {message:?}");
        };
        self.send(&EngineMessage::CanaryDone { nonce, error: None });
    }

    /// Says hello and takes the front's.
    pub(crate) fn greet(&mut self) {
        self.greet_as(&hello());
    }

    /// Is this engine.
    pub(crate) fn greet_as(&mut self, hello: &EngineHello) {
        self.send(&EngineMessage::Hello(Box::new(hello.clone())));
        let answer = self.receive();
        let protocol = ProtocolRange::OURS;
        assert_eq!(answer, Some(FrontMessage::Hello { protocol }));
        self.prove();
    }

    /// Takes the next request and admits it.
    pub(crate) fn admit(&mut self) -> hotspare_batch::Generate {
        let Some(FrontMessage::Generate(request)) = self.receive() else {
            panic!("a request was due");
        };
        self.send(&EngineMessage::Admitted {
            request_id: request.request_id,
            attempt: request.attempt,
        });
        *request
    }

    /// Sends one step of one event.
    pub(crate) fn step(&mut self, step: u64, event: SequenceEvent) {
        let events = vec![event];
        self.send(&EngineMessage::Step { step, events });
    }
}
