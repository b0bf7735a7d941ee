//! The engine's life: as a process of its own, or on threads of a test.
//!
//! Invariant: both run the same code; they differ in what happens when the front is lost.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::{io, net, thread};

use hotspare_batch::Executor;
use hotspare_link::{EngineHello, EngineMessage, FrontMessage, ProtocolRange};
use hotspare_scheduler::{Scheduler, SchedulerConfig, SchedulingPolicy};

use crate::backend::{Loaded, load};
use crate::engine_loop::{EngineLoop, max_num_in_flight};
use crate::faults::{FAULTS_VARIABLE, LIFE_VARIABLE};
use crate::inbox::{Closed, Inbox};
use crate::kv_mirror::{Identity, KvKeeper};
use crate::outbox::Outbox;
use crate::reader::OnLoss;
use crate::{EngineError, EngineOptions, Faults, reader};

/// In a process: [`EngineOptions::kv_mirror_path`].
pub const KV_MIRROR_VARIABLE: &str = "HOTSPARE_KV_MIRROR";

/// Runs an engine as this process: `hotspare engine`. Standard input is the socket to the front.
///
/// The process ends with status 0 after a drain, with [`EngineError::exit_status`] otherwise, and
/// well within a second when the front is gone.
pub fn run_process(mut options: EngineOptions) -> ExitCode {
    let result = process_socket().and_then(|stream| {
        if let Ok(faults) = std::env::var(FAULTS_VARIABLE) {
            options.faults = faults;
        }
        if let Ok(life) = std::env::var(LIFE_VARIABLE) {
            let parsed = life.parse();
            options.life =
                parsed.map_err(|_| EngineError::Options(format!("{LIFE_VARIABLE}={life}")))?;
        }
        if let Some(path) = std::env::var_os(KV_MIRROR_VARIABLE) {
            options.kv_mirror_path = Some(path.into());
        }
        run(&options, stream, OnLoss::Exit)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.exit_status()),
    }
}

/// Runs an engine on threads of this process and returns the front's end of its socket. Where a
/// process would end, the threads end and the socket closes.
///
/// # Errors
/// No socket or no thread can be had.
pub fn spawn_in_process(options: EngineOptions) -> io::Result<UnixStream> {
    spawn_to_be_joined(options).map(|(front, _)| front)
}

/// As [`spawn_in_process`]; the thread has ended once all that the engine held is given back, the
/// memory of a card above all.
///
/// # Errors
/// No socket or no thread can be had.
pub fn spawn_to_be_joined(
    options: EngineOptions,
) -> io::Result<(UnixStream, thread::JoinHandle<()>)> {
    let (front, engine) = UnixStream::pair()?;
    let builder = thread::Builder::new().name("engine".to_owned());
    let thread = builder.spawn(move || {
        // The front hears of the reason by `Fatal`, and of the end by the socket's.
        drop(run(&options, engine, OnLoss::CloseInbox));
    })?;
    Ok((front, thread))
}

/// Standard input as a socket.
fn process_socket() -> Result<UnixStream, EngineError> {
    let not_a_socket = |reason| EngineError::NotASocket { reason };
    let fd = io::stdin().as_fd().try_clone_to_owned();
    let stream = UnixStream::from(fd.map_err(not_a_socket)?);
    let checked = stream
        .local_addr()
        .and_then(|_| stream.set_nonblocking(false));
    match checked {
        Ok(()) => Ok(stream),
        Err(reason) => {
            let error = not_a_socket(reason);
            tracing::error!("{error}");
            Err(error)
        }
    }
}

/// Serves one front over `stream` until it drains the engine or something ends it.
fn run(options: &EngineOptions, stream: UnixStream, on_loss: OnLoss) -> Result<(), EngineError> {
    let inbox = Arc::new(Inbox::new(
        options.max_num_inbox_messages,
        options.max_inbox_bytes,
    ));
    let _closer = CloseOnDrop {
        stream: stream.try_clone().map_err(|_| EngineError::FrontLost)?,
        inbox: Arc::clone(&inbox),
    };
    let reading = stream.try_clone().map_err(|_| EngineError::FrontLost)?;
    reader::spawn(
        reading,
        options.max_frame_bytes,
        Arc::clone(&inbox),
        on_loss,
    )
    .map_err(EngineError::Thread)?;
    let faults = Faults::parse(&options.faults, options.life);
    let mut outbox = Outbox::new(stream, options, faults.clone().unwrap_or_default());
    let result = faults
        .map_err(EngineError::from)
        .and_then(|faults| load_and_serve(options, &faults, &inbox, &mut outbox));
    // From here on the end is our own: the front closes the socket as soon as it hears of a
    // failure, and our reader would take that for the front's end and its status.
    inbox.close(Closed::Ended);
    if let Err(error) = &result {
        end(error, &mut outbox);
    }
    result
}

/// Shuts the socket down, so that the front and our reader hear of the end even after a panic.
struct CloseOnDrop {
    stream: UnixStream,
    inbox: Arc<Inbox>,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.inbox.close(Closed::Ended);
        // It fails where the front closed it first.
        drop(self.stream.shutdown(net::Shutdown::Both));
    }
}

/// Logs why the engine ends and tells the front, if it is there.
fn end(error: &EngineError, outbox: &mut Outbox) {
    match error {
        EngineError::FrontLost => tracing::info!("the front is gone; the engine ends"),
        EngineError::Injected(_) => tracing::warn!("{error}"),
        _ => {
            tracing::error!("{error}");
            let message = error.to_string();
            // Nobody is left to hear of a failure here.
            drop(outbox.send(&EngineMessage::Fatal { message }));
        }
    }
}

fn load_and_serve(
    options: &EngineOptions,
    faults: &Faults,
    inbox: &Inbox,
    outbox: &mut Outbox,
) -> Result<(), EngineError> {
    let loaded = load(options, faults, outbox)?;
    let info = loaded.executor.info().clone();
    let identity = info.kv_block_bytes.map(|block_bytes| Identity {
        model_hash: loaded.model_hash.clone(),
        numerics_id: loaded.numerics_id.clone(),
        block_size: info.block_size,
        block_bytes,
    });
    let identity = identity.filter(|_| options.enable_prefix_caching);
    let keeper = KvKeeper::new(options, identity, info.num_blocks);
    let scheduler = Scheduler::new(SchedulerConfig {
        max_num_seqs: options.max_num_seqs,
        max_num_batched_tokens: options.max_num_batched_tokens,
        max_model_len: loaded.max_model_len,
        block_size: info.block_size,
        num_blocks: info.num_blocks,
        num_eager_blocks: loaded.num_eager_blocks,
        max_num_waiting: options.max_num_waiting,
        enable_prefix_caching: options.enable_prefix_caching,
        reports_cached_blocks: keeper.wants_reports(),
        long_prefill_token_threshold: options.long_prefill_token_threshold,
        sliding_window: info.sliding_window,
        policy: match options.priority_scheduling {
            true => SchedulingPolicy::Priority,
            false => SchedulingPolicy::Fcfs,
        },
        max_num_in_flight: max_num_in_flight(options, info.max_num_in_flight),
    })?;
    outbox.send(&EngineMessage::Hello(Box::new(hello(options, &loaded))))?;
    await_hello(inbox)?;
    EngineLoop::new(options, scheduler, keeper, loaded.executor, inbox, outbox).run()
}

fn hello(options: &EngineOptions, loaded: &Loaded) -> EngineHello {
    let info = loaded.executor.info();
    EngineHello {
        protocol: ProtocolRange::OURS,
        engine_id: RandomState::new().hash_one(std::process::id()),
        model_hash: loaded.model_hash.clone(),
        numerics_id: loaded.numerics_id.clone(),
        device: loaded.device.clone(),
        max_model_len: loaded.max_model_len as u32,
        max_num_seqs: options.max_num_seqs as u32,
        vocab_size: info.vocab_size as u32,
        num_blocks: info.num_blocks as u32,
        block_size: info.block_size as u32,
    }
}

/// Waits for the front's `Hello`, which comes before anything else.
fn await_hello(inbox: &Inbox) -> Result<(), EngineError> {
    let mut first = Vec::new();
    while first.is_empty() {
        inbox.wait(None);
        inbox.take(1, &mut first)?;
    }
    match first.pop() {
        Some(FrontMessage::Hello { protocol }) => ProtocolRange::OURS
            .agree(protocol)
            .map(drop)
            .map_err(|error| EngineError::Protocol(error.to_string())),
        _ => Err(EngineError::Protocol(
            "its first message is not Hello".to_owned(),
        )),
    }
}
