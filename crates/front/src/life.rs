//! One life of an engine: launch, greeting, proof, service, end.
//!
//! The proof is a token of its own before it gets traffic. In service it is watched: a connection
//! that ends, nonsense, and silence while it is waited for all end the life.
//!
//! Invariant: the order of an end is: the connection is closed, so that nothing late is read;
//! another engine takes its place; every sequence is told, with the cause; the supervisor hears of
//! it; the process is waited for, or killed by its own handle.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hotspare_link::{EngineHello, EngineMessage, FrontMessage, LinkError, ProtocolRange};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::EngineClient;
use crate::connection::{Broken, Connection, read_all, write_all};
use crate::liveness::Verdict;
use crate::process::EngineProcess;
use crate::slot::{EngineId, EngineSlot, Order};
use crate::target::{Loss, LossCause};
use crate::{
    EngineLauncher, EngineState, FrontConfig, FrontError, KvMirror, LaunchedEngine, ServedModel,
};

/// What a client of a running stream is told when its engine dies.
const LOST_MESSAGE: &str = "the engine ended while it was answering";

/// How often a retired engine is looked at.
const RETIRED_POLL: Duration = Duration::from_millis(20);

/// How one life ended.
#[derive(Debug)]
pub(crate) enum LifeEnd {
    /// As ordered.
    Stopped,
    /// Before it was proved.
    NotStarted(FrontError),
    /// After it had served for so long. `is_excused` where it was to be found out whether a request
    /// ends engines, and it seems that one does.
    Died {
        served: Duration,
        reason: String,
        is_excused: bool,
    },
}

/// What the supervisor hears of a life.
#[derive(Debug)]
pub(crate) enum LifeEvent {
    /// It is proved.
    Ready,
    /// It serves no more; its process may be there yet.
    Ended(LifeEnd),
    /// Its process is gone.
    Gone,
}

/// See the module.
pub(crate) struct Life {
    pub(crate) id: EngineId,
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) launcher: Arc<dyn EngineLauncher>,
    pub(crate) config: Arc<FrontConfig>,
    pub(crate) served: Arc<ServedModel>,
    /// What the first engine of the model said that it is.
    pub(crate) model_hash: Arc<OnceLock<String>>,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) events: mpsc::Sender<(EngineId, LifeEvent)>,
    /// Where it keeps its KV blocks; its own from the launch on.
    pub(crate) kv_mirror: Option<Arc<KvMirror>>,
}

/// How the conversation with an engine ended; its connection is closed by then.
enum Talk {
    Stopped(Option<Arc<EngineClient>>),
    NotStarted(FrontError),
    Lost(Lost),
}

/// An engine that is lost.
struct Lost {
    client: Arc<EngineClient>,
    served: Duration,
    reason: String,
    is_hung: bool,
    /// What it computed until then is as good as any other engine's.
    is_sound: bool,
}

/// How service ended.
enum ServiceEnd {
    Ordered,
    Lost(Broken),
    Hung(String),
}

impl Life {
    /// Runs to its end.
    pub(crate) async fn run(mut self) {
        let (stream, mut process) = match self.launcher.launch(self.id.0) {
            Ok(LaunchedEngine {
                stream,
                process,
                kv_mirror,
            }) => {
                self.kv_mirror = kv_mirror.map(Arc::new);
                (stream, EngineProcess::new(process))
            }
            Err(error) => {
                let end = LifeEnd::NotStarted(FrontError::Launch(error));
                return self.end(end).await;
            }
        };
        let pid = process.pid();
        self.slot.on_launch(self.id, pid);
        tracing::info!(pid, life = self.id.0, "The engine was started.");
        let talk = match Connection::new(stream, &self.config) {
            Ok(connection) => self.converse(connection).await,
            // The socket is closed with the connection that was not made, so the engine ends.
            Err(error) => Talk::NotStarted(FrontError::Launch(error)),
        };
        let wait = self.config.engine_stop_timeout();
        match talk {
            Talk::Stopped(client) => {
                self.slot
                    .on_disconnect(self.id, "it was asked to end", None);
                if let Some(client) = client {
                    client.close(&loss(LossCause::Outside));
                }
                process.reap(wait).await;
                self.end(LifeEnd::Stopped).await;
            }
            Talk::NotStarted(error) => {
                let exit = process.reap(wait).await;
                let error = match error {
                    FrontError::EngineEndedEarly(_) => FrontError::EngineEndedEarly(exit),
                    other => other,
                };
                self.end(LifeEnd::NotStarted(error)).await;
            }
            Talk::Lost(lost) => self.on_lost(lost, process).await,
        }
    }

    /// Another engine takes its place; the process is left to end, or is killed.
    async fn on_lost(mut self, lost: Lost, mut process: EngineProcess) {
        let Lost { client, reason, .. } = lost;
        let mirror = self.kv_mirror.take().filter(|_| lost.is_sound);
        self.slot.on_disconnect(self.id, &reason, mirror);
        let exit = match lost.is_hung {
            true => None,
            false => process.exit_within(self.config.engine_exit_wait()).await,
        };
        let cause = exit.as_ref().map_or(LossCause::Own, |exit| exit.cause);
        self.slot.on_loss(cause);
        let is_excused = client.close(&loss(cause));
        let reason = match &exit {
            Some(exit) => format!("{reason} ({})", exit.text),
            None => reason,
        };
        let end = LifeEnd::Died {
            served: lost.served,
            reason,
            is_excused,
        };
        self.tell(LifeEvent::Ended(end)).await;
        if exit.is_none() {
            let pid = process.pid();
            let exit = process.reap(self.config.engine_stop_timeout()).await;
            tracing::info!(pid, life = self.id.0, exit, "The lost engine is gone.");
        }
        self.slot.remove(self.id);
        self.tell(LifeEvent::Gone).await;
    }

    /// Says how it ended once nothing of it is left.
    async fn end(&self, end: LifeEnd) {
        self.slot.remove(self.id);
        self.tell(LifeEvent::Ended(end)).await;
        self.tell(LifeEvent::Gone).await;
    }

    async fn tell(&self, event: LifeEvent) {
        // Where the supervisor is gone, so is this task soon.
        let _ = self.events.send((self.id, event)).await;
    }

    /// From the first message to the last; the socket is closed when it returns.
    async fn converse(&mut self, mut connection: Connection) -> Talk {
        let mut orders = self.orders.clone();
        let client = tokio::select! {
            started = timeout(self.config.engine_start_timeout(), self.start(&mut connection)) => {
                match started {
                    Ok(Ok(client)) => Arc::new(client),
                    Ok(Err(error)) => return Talk::NotStarted(error),
                    Err(_) => return Talk::NotStarted(FrontError::EngineStartTimeout(
                        self.config.engine_start_timeout_s,
                    )),
                }
            }
            () = ordered(&mut orders, Order::Retire) => return Talk::Stopped(None),
        };
        self.slot.on_ready(self.id, Arc::clone(&client));
        self.tell(LifeEvent::Ready).await;
        let since = Instant::now();
        let lost = |client, reason, is_hung, is_sound| {
            Talk::Lost(Lost {
                client,
                served: since.elapsed(),
                reason,
                is_hung,
                is_sound,
            })
        };
        match self.serve(connection, &client).await {
            ServiceEnd::Ordered => Talk::Stopped(Some(client)),
            ServiceEnd::Lost(broken) => lost(client, broken.reason, false, broken.is_plain),
            ServiceEnd::Hung(reason) => lost(client, reason, true, true),
        }
    }

    /// Greets the engine and lets it prove itself.
    async fn start(&self, connection: &mut Connection) -> Result<EngineClient, FrontError> {
        let hello = self.greet(connection).await?;
        let client = EngineClient::new(
            hello,
            self.config.max_num_unsent_requests,
            self.config.liveness(),
        );
        let stage = "first token".to_owned();
        let (done, total) = (0, 1);
        self.slot
            .set_state(self.id, EngineState::Loading { stage, done, total });
        let nonce = client.start_canary();
        let asked = connection.send(FrontMessage::Canary { nonce }).await;
        asked.map_err(|_| FrontError::EngineEndedEarly(String::new()))?;
        while client.has_canary() {
            let message = receive(connection).await?;
            if let Some(reason) = client.on_message(message) {
                return Err(FrontError::EngineRefused(reason));
            }
        }
        let hello = client.hello();
        self.model_hash.get_or_init(|| hello.model_hash.clone());
        tracing::info!(
            life = self.id.0,
            model_hash = hello.model_hash,
            numerics_id = hello.numerics_id,
            device = hello.device,
            num_blocks = hello.num_blocks,
            block_size = hello.block_size,
            max_num_seqs = hello.max_num_seqs,
            max_model_len = hello.max_model_len,
            "The engine is ready."
        );
        Ok(client)
    }

    async fn greet(&self, connection: &mut Connection) -> Result<EngineHello, FrontError> {
        let hello = loop {
            match receive(connection).await? {
                EngineMessage::Loading { stage, done, total } => {
                    self.slot
                        .set_state(self.id, EngineState::Loading { stage, done, total });
                }
                EngineMessage::Hello(hello) => break *hello,
                EngineMessage::Fatal { message } => return Err(FrontError::EngineRefused(message)),
                other => {
                    let text = format!("it sent {other:?} before its hello");
                    return Err(FrontError::EngineMismatch(text));
                }
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
        let sent = connection
            .send(FrontMessage::Hello { protocol: ours })
            .await;
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
        // Prompts are made with the tokenizer that was read when the model was; another one's ids
        // would be nonsense to it.
        match self.model_hash.get() {
            Some(expected) if *expected != hello.model_hash => {
                Err(FrontError::EngineMismatch(format!(
                    "its model's files have changed since this server read them (model hash {}, \
                     not {expected}); `hotspare reload` serves the new ones",
                    hello.model_hash
                )))
            }
            _ => Ok(()),
        }
    }

    /// Reads, writes and watches until the connection ends, or until it is time to end it.
    async fn serve(&mut self, connection: Connection, client: &EngineClient) -> ServiceEnd {
        let Connection {
            mut receiver,
            mut sender,
        } = connection;
        let reading = read_all(&mut receiver, client);
        let writing = write_all(&mut sender, client);
        tokio::pin!(reading);
        tokio::pin!(writing);
        tokio::select! {
            broken = &mut reading => return ServiceEnd::Lost(broken),
            reason = &mut writing => {
                // What the engine sent before it stopped reading is still to be had.
                let rest = timeout(self.config.engine_stop_timeout(), &mut reading);
                let is_plain = true;
                return ServiceEnd::Lost(rest.await.unwrap_or(Broken { reason, is_plain }));
            }
            reason = hang(client, &self.config) => return ServiceEnd::Hung(reason),
            () = time_to_end(&mut self.orders, client, &self.config) => {}
        }
        self.slot.set_state(self.id, EngineState::Draining);
        client.send_control(FrontMessage::Drain);
        let drained = timeout(self.config.engine_stop_timeout(), async {
            tokio::select! {
                _ = &mut reading => {}
                _ = &mut writing => {}
            }
        });
        if drained.await.is_err() {
            tracing::warn!(life = self.id.0, "The engine did not drain in time.");
        }
        ServiceEnd::Ordered
    }
}

fn loss(cause: LossCause) -> Loss {
    Loss {
        message: LOST_MESSAGE.to_owned(),
        cause,
    }
}

/// The next message of an engine that does not serve yet. The exit status is filled in once the
/// process was waited for.
async fn receive(connection: &mut Connection) -> Result<EngineMessage, FrontError> {
    match connection.receiver.receive().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(LinkError::Io(_)) => Err(FrontError::EngineEndedEarly(String::new())),
        Err(error) => Err(FrontError::EngineMismatch(error.to_string())),
    }
}

/// Returns once `least` or more is ordered.
pub(crate) async fn ordered(orders: &mut watch::Receiver<Order>, least: Order) {
    if orders.wait_for(|order| *order >= least).await.is_err() {
        // The sender lives as long as the supervisor; without it no order can come.
        std::future::pending::<()>().await;
    }
}

/// Returns once the engine is to end: at once where all end, else when nothing of it has run for a
/// while, so that a request which was on its way to it is not refused.
async fn time_to_end(
    orders: &mut watch::Receiver<Order>,
    client: &EngineClient,
    config: &FrontConfig,
) {
    ordered(orders, Order::Retire).await;
    let started = Instant::now();
    let mut idle_since = started;
    loop {
        tokio::select! {
            () = ordered(orders, Order::Drain) => return,
            () = sleep(RETIRED_POLL) => {}
        }
        if client.num_sequences() > 0 {
            idle_since = Instant::now();
        }
        let is_over = started.elapsed() >= config.engine_retire_timeout();
        if is_over || idle_since.elapsed() >= config.engine_retire_grace() {
            return;
        }
    }
}

/// Watches an engine; returns why it is given up.
pub(crate) async fn hang(client: &EngineClient, config: &FrontConfig) -> String {
    let every = config.watch_interval();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        // Where this process itself did not run, what the engine sent may lie unread.
        let is_late = now.saturating_duration_since(last) >= config.max_tick();
        last = now;
        match client.check_liveness(now, is_late) {
            Verdict::Fine => {}
            Verdict::Ask(nonce) => client.send_control(FrontMessage::Canary { nonce }),
            Verdict::Hung { silent, allowed } => {
                return format!(
                    "it made no step for {} ms while work was pending, and {} ms were allowed",
                    silent.as_millis(),
                    allowed.as_millis()
                );
            }
        }
    }
}
