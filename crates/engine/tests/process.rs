//! The engine as a process: how it starts, and above all how it ends.
//!
//! The program under test is this file: started with `engine OPTIONS` it is an engine, otherwise it
//! runs the checks. So no other crate has to be built for them.
// Test code, but not to clippy: it has a `main` of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hotspare_batch::{Generate, RequestId, SamplingParams, StopParams};
use hotspare_engine::{
    Backend, EXIT_CANNOT_START, EXIT_DEVICE_LOST, EXIT_FRONT_LOST, EXIT_INJECTED, EXIT_PROTOCOL,
    EngineOptions, FAULTS_VARIABLE, LIFE_VARIABLE, ScriptedOptions, run_process,
};
use hotspare_link::{
    EngineMessage, FrameReader, FrameWriter, FrontMessage, LinkError, ProtocolRange,
};

/// A step that no check waits for.
const ENDLESS_STEP_US: u64 = 600_000_000;

/// Far more than an engine needs to end, far less than an endless step.
const PATIENCE: Duration = Duration::from_secs(120);

const MAX_FRAME_BYTES: usize = 1 << 20;

const SIGKILL: i32 = 9;

type Check = fn();

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "engine") {
        let options = serde_json::from_str(&args[2]).expect("the parent wrote them");
        return run_process(options);
    }
    let checks: [(&str, Check); 7] = [
        ("drains_and_ends_with_0", drains_and_ends_with_0),
        ("ends_with_its_front", ends_with_its_front),
        (
            "ends_with_its_front_when_full",
            ends_with_its_front_when_full,
        ),
        ("garbage_ends_it", garbage_ends_it),
        ("device_loss_ends_it", device_loss_ends_it),
        (
            "faults_come_from_the_environment",
            faults_come_from_the_environment,
        ),
        ("cannot_start", cannot_start),
    ];
    let filter = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    for (name, check) in checks {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            check();
            println!("process::{name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// A started engine and the front's end of its socket.
struct Engine {
    child: Child,
    reader: FrameReader<UnixStream>,
    writer: FrameWriter<UnixStream>,
}

impl Engine {
    fn start(options: &EngineOptions, environment: &[(&str, &str)]) -> Self {
        let (front, engine) = UnixStream::pair().unwrap();
        front.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["engine", &serde_json::to_string(options).unwrap()])
            .env_remove(FAULTS_VARIABLE)
            .envs(environment.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(engine)))
            .spawn()
            .unwrap();
        Self {
            child,
            reader: FrameReader::new(front.try_clone().unwrap(), MAX_FRAME_BYTES),
            writer: FrameWriter::new(front, MAX_FRAME_BYTES, 1 << 16),
        }
    }

    fn greet(mut self) -> Self {
        let first = self.receive();
        assert!(matches!(first, Some(EngineMessage::Hello(_))), "{first:?}");
        self.send(&FrontMessage::Hello {
            protocol: ProtocolRange::OURS,
        });
        self
    }

    fn send(&mut self, message: &FrontMessage) {
        self.writer.write(message).unwrap();
    }

    /// As [`Engine::send`], to an engine that may have ended by itself in the meantime.
    fn send_if_alive(&mut self, message: &FrontMessage) {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.writer.write(message) {
            Ok(()) => {}
            Err(LinkError::Io(e)) if matches!(e.kind(), BrokenPipe | ConnectionReset) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self) -> Option<EngineMessage> {
        self.reader.read().unwrap()
    }

    fn await_admitted(&mut self) {
        loop {
            match self.receive() {
                Some(EngineMessage::Admitted { .. }) => return,
                Some(EngineMessage::Stats(_) | EngineMessage::Working { .. }) => {}
                other => panic!("not admitted: {other:?}"),
            }
        }
    }

    /// The tokens that arrive before the stream ends, however it ends.
    fn count_tokens(&mut self) -> usize {
        let mut num_tokens = 0;
        while let Ok(Some(message)) = self.reader.read::<EngineMessage>() {
            if let EngineMessage::Step { events, .. } = message {
                num_tokens += events.iter().map(|e| e.token_ids.len()).sum::<usize>();
            }
        }
        num_tokens
    }

    /// Closes the front's end.
    fn hang_up(self) -> Child {
        self.child
    }
}

/// The status with which a process ends.
fn status(child: Child) -> Option<i32> {
    exit_status(child).code()
}

/// Checks the status of a process that its reading thread ends. On a machine that is very busy the
/// orderly end may take longer than it has before the process kills itself.
fn check_abrupt_end(child: Child, expected: u8, what: &str) {
    let status = exit_status(child);
    let is_killed = status.signal() == Some(SIGKILL);
    assert!(
        is_killed || status.code() == Some(expected.into()),
        "{what}: {status}"
    );
}

fn exit_status(mut child: Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the engine did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn options(scripted: ScriptedOptions) -> EngineOptions {
    EngineOptions {
        backend: Backend::Scripted(scripted),
        max_model_len: Some(256),
        max_num_seqs: 4,
        ..EngineOptions::default()
    }
}

fn slow() -> EngineOptions {
    options(ScriptedOptions {
        step_time_us: ENDLESS_STEP_US,
        ..ScriptedOptions::default()
    })
}

fn generate(id: u64) -> FrontMessage {
    FrontMessage::Generate(Box::new(Generate {
        request_id: RequestId(id),
        attempt: 0,
        ids: vec![5, 6, 7],
        num_delivered: 0,
        sampling: SamplingParams::greedy(),
        stop: StopParams {
            max_tokens: 20,
            ..StopParams::default()
        },
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }))
}

fn drains_and_ends_with_0() {
    let mut engine = Engine::start(&options(ScriptedOptions::default()), &[]).greet();
    engine.send(&generate(1));
    engine.send(&FrontMessage::Drain);
    assert_eq!(engine.count_tokens(), 20);
    assert_eq!(status(engine.child), Some(0));
}

fn ends_with_its_front() {
    for is_busy in [false, true] {
        let mut engine = Engine::start(&slow(), &[]).greet();
        if is_busy {
            engine.send(&generate(1));
            engine.await_admitted();
        }
        check_abrupt_end(
            engine.hang_up(),
            EXIT_FRONT_LOST,
            &format!("busy: {is_busy}"),
        );
    }
    let engine = Engine::start(&slow(), &[]);
    check_abrupt_end(engine.hang_up(), EXIT_FRONT_LOST, "before Hello");
}

/// While a step runs nobody takes from the inbox; when it is full nobody reads the socket either.
fn ends_with_its_front_when_full() {
    let mut small = slow();
    small.max_num_inbox_messages = 2;
    let mut engine = Engine::start(&small, &[]).greet();
    for id in 0..100 {
        engine.send(&generate(id));
    }
    engine.await_admitted();
    check_abrupt_end(engine.hang_up(), EXIT_FRONT_LOST, "full");
}

fn garbage_ends_it() {
    // Even in the middle of a step that does not end.
    for options in [options(ScriptedOptions::default()), slow()] {
        let mut engine = Engine::start(&options, &[]).greet();
        engine.send(&generate(1));
        engine.await_admitted();
        use std::io::Write;
        engine.writer.get_mut().write_all(b"nonsense").unwrap();
        engine.count_tokens();
        check_abrupt_end(engine.child, EXIT_PROTOCOL, "garbage");
    }
}

fn device_loss_ends_it() {
    let scripted = ScriptedOptions {
        device_error_at_step: Some(3),
        ..ScriptedOptions::default()
    };
    let mut engine = Engine::start(&options(scripted), &[]).greet();
    engine.send(&generate(1));
    assert_eq!(engine.count_tokens(), 2);
    assert_eq!(status(engine.child), Some(EXIT_DEVICE_LOST.into()));
}

fn faults_come_from_the_environment() {
    let options = options(ScriptedOptions::default());
    let faults = (FAULTS_VARIABLE, "die-after-token=5,engine=1");
    for (life, num_tokens, expected) in [("0", 20, 0), ("1", 5, EXIT_INJECTED)] {
        let environment = [faults, (LIFE_VARIABLE, life)];
        let mut engine = Engine::start(&options, &environment).greet();
        engine.send(&generate(1));
        // Its five tokens may be through, and it dead, before this is written.
        engine.send_if_alive(&FrontMessage::Drain);
        assert_eq!(engine.count_tokens(), num_tokens, "life {life}");
        assert_eq!(status(engine.child), Some(expected.into()), "life {life}");
    }
}

fn cannot_start() {
    let mut impossible = options(ScriptedOptions::default());
    impossible.kv_cache_memory_bytes = Some(10);
    let mut engine = Engine::start(&impossible, &[]);
    let fatal = engine.receive();
    let Some(EngineMessage::Fatal { message }) = fatal else {
        panic!("{fatal:?}");
    };
    assert!(message.contains("--max-model-len"), "{message}");
    assert_eq!(status(engine.child), Some(EXIT_CANNOT_START.into()));

    let json = serde_json::to_string(&impossible).unwrap();
    let by_hand = Command::new(std::env::current_exe().unwrap())
        .args(["engine", &json])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(by_hand.code(), Some(EXIT_CANNOT_START.into()));
}
