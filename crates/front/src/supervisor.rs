//! Keeps one engine running: start, handshake, serve, notice its end, wait, start again.
//!
//! An engine that cannot start at all ends the server with its message; one that served before is
//! started again with exponential backoff, until it failed too often in a row.
//!
//! Invariant: at most one process at a time, killed only by its own handle; before the next start
//! the last one was waited for, and every sequence it had was told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_link::{EngineHello, EngineMessage, FrontMessage, LinkError, ProtocolRange};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::client::EngineClient;
use crate::slot::{EngineSlot, Order};
use crate::target::{Loss, LossCause};
use crate::wire::{Receiver, Sender};
use crate::{EngineLauncher, EngineState, FrontConfig, FrontError, LaunchedEngine, ServedModel};

/// What a client of a running stream is told when its engine dies.
const LOST_MESSAGE: &str = "the engine ended while it was answering";

/// How one life of an engine ended.
enum LifeEnd {
    /// As ordered.
    Stopped,
    /// Before it was ready.
    NotStarted(FrontError),
    /// After it had served for so long.
    Died { served: Duration, reason: String },
}

/// See the module.
pub(crate) struct Supervisor {
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) launcher: Arc<dyn EngineLauncher>,
    pub(crate) config: FrontConfig,
    pub(crate) served: Arc<ServedModel>,
}

impl Supervisor {
    /// Runs until it is ordered to drain, which is `Ok`, or until it gives up.
    pub(crate) async fn run(self) -> Result<(), FrontError> {
        let result = self.keep_running().await;
        self.slot.set_state(match &result {
            Ok(()) => EngineState::Stopped,
            Err(error) => EngineState::Failed {
                reason: error.to_string(),
            },
        });
        result
    }

    async fn keep_running(&self) -> Result<(), FrontError> {
        let mut orders = self.slot.orders();
        let mut has_served = false;
        let mut num_failures = 0;
        for life in 0.. {
            let reason = match self.live(life, &mut orders).await {
                LifeEnd::Stopped => return Ok(()),
                LifeEnd::NotStarted(error) if !has_served => return Err(error),
                LifeEnd::NotStarted(error) => error.to_string(),
                LifeEnd::Died { served, reason } => {
                    has_served = true;
                    if served >= self.config.engine_stable_after() {
                        num_failures = 0;
                    }
                    reason
                }
            };
            num_failures += 1;
            if num_failures >= self.config.max_num_engine_failures {
                return Err(FrontError::GaveUp {
                    num_failures,
                    last: reason,
                });
            }
            let restart_in = self.config.restart_backoff(num_failures);
            tracing::error!(
                reason,
                restart_in_ms = restart_in.as_millis() as u64,
                "The engine failed; it will be started again."
            );
            self.slot
                .set_state(EngineState::Backoff { reason, restart_in });
            tokio::select! {
                () = tokio::time::sleep(restart_in) => {}
                () = drain_ordered(&mut orders) => return Ok(()),
            }
        }
        Ok(())
    }

    /// One life: launch, handshake, serve, reap.
    async fn live(&self, life: u32, orders: &mut watch::Receiver<Order>) -> LifeEnd {
        let launched = match self.launcher.launch(life) {
            Ok(launched) => launched,
            Err(error) => return LifeEnd::NotStarted(FrontError::Launch(error)),
        };
        let LaunchedEngine {
            stream,
            mut process,
        } = launched;
        let pid = process.as_ref().and_then(Child::id);
        self.slot.on_launch(life, pid);
        tracing::info!(pid, life, "The engine was started.");
        let connection = match Connection::new(stream, &self.config) {
            Ok(connection) => connection,
            Err(error) => {
                // The socket is closed with the connection that was not made, so the engine ends.
                self.reap(process.as_mut()).await;
                self.slot.on_exit();
                return LifeEnd::NotStarted(FrontError::Launch(error));
            }
        };
        let end = self.converse(connection, orders).await;
        let exit = self.reap(process.as_mut()).await;
        self.slot.on_exit();
        match end {
            LifeEnd::NotStarted(FrontError::EngineEndedEarly(_)) => {
                LifeEnd::NotStarted(FrontError::EngineEndedEarly(exit))
            }
            LifeEnd::Died { served, reason } => LifeEnd::Died {
                served,
                reason: format!("{reason} ({exit})"),
            },
            other => other,
        }
    }

    /// From the first message to the last; the socket is closed when it returns.
    async fn converse(
        &self,
        mut connection: Connection,
        orders: &mut watch::Receiver<Order>,
    ) -> LifeEnd {
        let handshake = timeout(
            self.config.engine_start_timeout(),
            self.handshake(&mut connection),
        );
        let hello = tokio::select! {
            result = handshake => match result {
                Ok(Ok(hello)) => hello,
                Ok(Err(error)) => return LifeEnd::NotStarted(error),
                Err(_) => return LifeEnd::NotStarted(FrontError::EngineStartTimeout(
                    self.config.engine_start_timeout_s,
                )),
            },
            () = drain_ordered(orders) => return LifeEnd::Stopped,
        };
        tracing::info!(
            model_hash = hello.model_hash,
            numerics_id = hello.numerics_id,
            device = hello.device,
            num_blocks = hello.num_blocks,
            block_size = hello.block_size,
            max_num_seqs = hello.max_num_seqs,
            max_model_len = hello.max_model_len,
            "The engine is ready."
        );
        let client = Arc::new(EngineClient::new(
            hello,
            self.config.max_num_unsent_requests,
        ));
        self.slot.on_ready(Arc::clone(&client));
        let since = Instant::now();
        let (was_drained, reason) = self.serve(connection, &client, orders).await;
        if !was_drained {
            // The wait is known once the process was waited for.
            let (reason, restart_in) = (reason.clone(), Duration::ZERO);
            self.slot
                .set_state(EngineState::Backoff { reason, restart_in });
        }
        self.slot.on_disconnect();
        client.close(&Loss {
            message: LOST_MESSAGE.to_owned(),
            cause: match was_drained {
                true => LossCause::Outside,
                false => LossCause::Own,
            },
        });
        match was_drained {
            true => LifeEnd::Stopped,
            false => LifeEnd::Died {
                served: since.elapsed(),
                reason,
            },
        }
    }

    async fn handshake(&self, connection: &mut Connection) -> Result<EngineHello, FrontError> {
        let hello = loop {
            match connection.receiver.receive().await {
                Ok(Some(EngineMessage::Loading { stage, done, total })) => {
                    self.slot
                        .set_state(EngineState::Loading { stage, done, total });
                }
                Ok(Some(EngineMessage::Hello(hello))) => break *hello,
                Ok(Some(EngineMessage::Fatal { message })) => {
                    return Err(FrontError::EngineRefused(message));
                }
                Ok(Some(other)) => {
                    let text = format!("it sent {other:?} before its hello");
                    return Err(FrontError::EngineMismatch(text));
                }
                // The exit status is filled in once the process was waited for.
                Ok(None) | Err(LinkError::Io(_)) => {
                    return Err(FrontError::EngineEndedEarly(String::new()));
                }
                Err(error) => return Err(FrontError::EngineMismatch(error.to_string())),
            }
        };
        let ours = ProtocolRange::OURS;
        if ours.negotiate(hello.protocol).is_none() {
            return Err(FrontError::Protocol {
                front: ours,
                engine: hello.protocol,
            });
        }
        self.check_fits(&hello)?;
        let mut answer = VecDeque::from([FrontMessage::Hello { protocol: ours }]);
        let sent = connection.sender.send(&mut answer, |_, _| {}).await;
        sent.map_err(|_| FrontError::EngineEndedEarly(String::new()))?;
        Ok(hello)
    }

    /// An engine that cannot do what `/v1/models` announces is not used.
    fn check_fits(&self, hello: &EngineHello) -> Result<(), FrontError> {
        if hello.max_model_len < self.served.max_model_len {
            return Err(FrontError::EngineMismatch(format!(
                "it holds sequences of {} tokens, the server announces {}",
                hello.max_model_len, self.served.max_model_len
            )));
        }
        if hello.vocab_size < self.served.vocab_size {
            return Err(FrontError::EngineMismatch(format!(
                "it knows {} token ids, the server announces {}",
                hello.vocab_size, self.served.vocab_size
            )));
        }
        Ok(())
    }

    /// Reads and writes until the connection ends. Returns whether that was ordered, and why it
    /// ended otherwise.
    async fn serve(
        &self,
        connection: Connection,
        client: &EngineClient,
        orders: &mut watch::Receiver<Order>,
    ) -> (bool, String) {
        let Connection {
            mut receiver,
            mut sender,
        } = connection;
        let reading = read_all(&mut receiver, client);
        let writing = write_all(&mut sender, client);
        tokio::pin!(reading);
        tokio::pin!(writing);
        tokio::select! {
            reason = &mut reading => return (false, reason),
            reason = &mut writing => {
                // What the engine sent before it stopped reading is still to be had.
                let rest = timeout(self.config.engine_stop_timeout(), &mut reading);
                return (false, rest.await.unwrap_or(reason));
            }
            () = drain_ordered(orders) => {}
        }
        self.slot.set_state(EngineState::Draining);
        client.send_control(FrontMessage::Drain);
        let drained = timeout(self.config.engine_stop_timeout(), async {
            tokio::select! {
                _ = &mut reading => {}
                _ = &mut writing => {}
            }
        });
        if drained.await.is_err() {
            tracing::warn!("The engine did not drain in time.");
        }
        (true, String::new())
    }

    /// Waits for the process, and kills it where it does not end by itself: its socket is closed.
    /// Returns what became of it.
    async fn reap(&self, process: Option<&mut Child>) -> String {
        let Some(process) = process else {
            return "it ran in this process".to_owned();
        };
        let wait = self.config.engine_stop_timeout();
        let result = match timeout(wait, process.wait()).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!("The engine process does not end; killing it.");
                match process.kill().await {
                    Ok(()) => process.wait().await,
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Ok(status) => status.to_string(),
            Err(error) => format!("its exit status is unknown: {error}"),
        }
    }
}

/// Returns once a drain is ordered.
async fn drain_ordered(orders: &mut watch::Receiver<Order>) {
    if orders
        .wait_for(|order| *order == Order::Drain)
        .await
        .is_err()
    {
        // The slot lives as long as the supervisor; without it no order can come.
        std::future::pending::<()>().await;
    }
}

/// Both directions of an engine's socket.
struct Connection {
    receiver: Receiver<OwnedReadHalf>,
    sender: Sender<OwnedWriteHalf>,
}

impl Connection {
    fn new(
        stream: std::os::unix::net::UnixStream,
        config: &FrontConfig,
    ) -> Result<Self, std::io::Error> {
        stream.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(stream)?.into_split();
        Ok(Self {
            receiver: Receiver::new(reader, config.max_frame_bytes),
            sender: Sender::new(writer, config.max_frame_bytes, config.max_write_batch_bytes),
        })
    }
}

/// Routes messages until the connection ends; returns why it did.
async fn read_all(receiver: &mut Receiver<OwnedReadHalf>, client: &EngineClient) -> String {
    loop {
        match receiver.receive().await {
            Ok(Some(message)) => {
                if let Some(fatal) = client.on_message(message) {
                    return fatal;
                }
            }
            Ok(None) => return "it closed its socket".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

/// Writes what is queued until the connection ends; returns why it did.
async fn write_all(sender: &mut Sender<OwnedWriteHalf>, client: &EngineClient) -> String {
    let mut messages = VecDeque::new();
    loop {
        client.take_mail(&mut messages).await;
        let refused = |message, error: LinkError| client.on_refused(message, &error);
        if let Err(error) = sender.send(&mut messages, refused).await {
            return error.to_string();
        }
    }
}

#[cfg(test)]
#[path = "supervisor_test.rs"]
mod supervisor_test;
