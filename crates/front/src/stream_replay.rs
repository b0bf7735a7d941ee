//! How a stream goes on when a target is lost.
//!
//! Only failures of a target lead here: not a client's own errors, not its leaving, not a row that
//! failed alone.
//!
//! Invariant: a sequence in a gap either gets its next token, ends by its deadline, or ends the
//! stream with an error that says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_batch::{DrawnTokens, FinishReason as EngineFinish, Generate, SequenceEvent};
use hotspare_journal::Origin;

use crate::GenerateError;
use crate::convictions::ContentHash;
use crate::replay::Replay;
use crate::replay_metrics::ReplayOutcome;
use crate::replay_policy::Verdict;
use crate::replays::ReplayGuard;
use crate::stream::GenerationStream;
use crate::target::{Feed, Loss, LossCause, NotReplayed, Target};

/// Why a sequence needs another attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Its target is gone.
    Lost(Loss),
    /// Its target takes nothing any more.
    Draining,
    /// Its target had no room for a sequence that ran before.
    Full,
}

impl Failure {
    fn message(&self) -> &str {
        match self {
            Self::Lost(loss) => &loss.message,
            Self::Draining => "the engine is draining",
            Self::Full => "the engine has no room",
        }
    }
}

impl GenerationStream {
    /// Whether any sequence waits to be continued on another engine.
    pub fn is_replaying(&self) -> bool {
        self.num_gaps > 0
    }

    /// The attempt of a sequence failed at `at`: another one is started, where that makes sense.
    pub(crate) fn replay(&mut self, index: usize, failure: &Failure, at: Instant) {
        if self.context.is_paired && self.has_not_begun() {
            self.sequences[index].placement.clear();
            self.has_moved = true;
            return;
        }
        let avoid = self.sequences[index].placement.target();
        self.sequences[index].placement.clear();
        self.open_gap(index, at);
        if let Err((outcome, error)) = self.try_replay(index, failure, avoid) {
            self.close_gap(index, outcome, Instant::now());
            self.fail(error);
        }
    }

    fn try_replay(
        &mut self,
        index: usize,
        failure: &Failure,
        avoid: Option<Arc<dyn Target>>,
    ) -> Result<(), (ReplayOutcome, GenerateError)> {
        let id = self.sequences[index].request_id;
        let Some(origin) = self.record.origin().cloned() else {
            let error = self.lost(index, failure.message());
            return Err((ReplayOutcome::NotResumable, error));
        };
        let verdict = match failure {
            Failure::Lost(_) => self.context.replays.verdict(&origin.model_hash, id),
            // Nothing of it ran.
            Failure::Draining | Failure::Full => Verdict::Narrowed,
        };
        if verdict == Verdict::Convicted {
            return Err((ReplayOutcome::Convicted, self.convict(index)));
        }
        if verdict == Verdict::Open {
            self.record.count_failed_attempt(index);
        }
        let num_failed = self.record.num_attempts_since_token(index);
        if num_failed > self.context.max_num_replay_attempts {
            let why = format!(
                "{}; {num_failed} attempts in a row yielded no token",
                failure.message()
            );
            return Err((ReplayOutcome::Attempts, self.lost(index, &why)));
        }
        let now = self.started_at.elapsed();
        let request = self.record.resume(index, now).map_err(|reason| {
            self.accuse(index, &origin, failure);
            let why = format!(
                "{}, and the request cannot be continued on another: {reason}",
                failure.message()
            );
            (ReplayOutcome::NotResumable, self.lost(index, &why))
        })?;
        self.spawn_replay(index, request, origin, failure, avoid);
        Ok(())
    }

    fn spawn_replay(
        &mut self,
        index: usize,
        request: Generate,
        origin: Origin,
        failure: &Failure,
        avoid: Option<Arc<dyn Target>>,
    ) {
        let context = &self.context;
        let replays = &context.replays;
        let guard = ReplayGuard::announce(
            Arc::clone(replays),
            origin.model_hash.clone(),
            request.request_id,
        );
        let feed = Feed::new(index as u32, self.sender.clone())
            .resumable(Arc::clone(replays), Arc::clone(&self.has_overflowed));
        let sequence = &mut self.sequences[index];
        sequence.attempt = request.attempt;
        let waited = sequence.gap.map_or(Duration::ZERO, |since| since.elapsed());
        let is_full = *failure == Failure::Full;
        let (delay, spent) = match is_full {
            true => (context.replay_retry_interval, waited),
            // While it had a target it did not wait for one.
            false => (Duration::ZERO, Duration::ZERO),
        };
        let replay = Replay {
            slot: Arc::clone(&context.slot),
            placement: Arc::clone(&sequence.placement),
            guard: Arc::new(guard),
            request,
            feed,
            origin,
            trail: sequence.trail.clone(),
            metrics: Arc::clone(&context.metrics),
            since: sequence.gap.unwrap_or_else(Instant::now),
            avoid: avoid.filter(|_| !is_full),
            delay,
            patience: context.replay_timeout.saturating_sub(spent),
            retry_interval: context.replay_retry_interval,
        };
        sequence.replay = Some(tokio::spawn(replay.run()).abort_handle());
    }

    /// No target took the next attempt.
    pub(crate) fn on_not_replayed(&mut self, index: usize, reason: NotReplayed) {
        let now = Instant::now();
        match reason {
            NotReplayed::Deadline => {
                self.close_gap(index, ReplayOutcome::Deadline, now);
                let sequence = &self.sequences[index];
                let event = SequenceEvent {
                    request_id: sequence.request_id,
                    attempt: sequence.attempt,
                    first_index: sequence.choice.num_tokens(),
                    token_ids: DrawnTokens::new(),
                    logprobs: Vec::new(),
                    prompt: None,
                    finish: Some(EngineFinish::Deadline),
                };
                // As if an engine had noticed: also a sequence that none has taken in yet.
                self.on_admitted(index);
                self.on_event(index, event, now);
            }
            NotReplayed::TimedOut | NotReplayed::NoEngine => {
                let why = match reason {
                    NotReplayed::NoEngine => "the engine ended, and no other is there".to_owned(),
                    _ => format!(
                        "the engine ended, and no other took the request within {} ms",
                        self.context.replay_timeout.as_millis()
                    ),
                };
                self.close_gap(index, ReplayOutcome::NoTarget, now);
                let error = self.lost(index, &why);
                self.fail(error);
            }
        }
    }

    /// What the client is told: where nothing of the request has run, it may safely try again.
    fn lost(&self, index: usize, why: &str) -> GenerateError {
        match self.sequences[index].is_admitted {
            true => GenerateError::EngineFailed(why.to_owned()),
            false => self.not_ready(why),
        }
    }

    /// Remembers that an engine ended by itself over a request that cannot be tried again.
    fn accuse(&self, index: usize, origin: &Origin, failure: &Failure) {
        let sequence = &self.sequences[index];
        let is_own = matches!(failure, Failure::Lost(loss) if loss.cause == LossCause::Own);
        if let (true, true, Some(content)) = (is_own, sequence.is_admitted, sequence.content) {
            let (hash, id) = (&origin.model_hash, sequence.request_id);
            if self.context.replays.accuse(hash, id, content) {
                tracing::error!(
                    request_id = id.0,
                    "A request that is too long for the journal ended the engine each time; it is \
                     refused from now on."
                );
            }
        }
    }

    /// The request ended engines by itself: it is refused from now on.
    fn convict(&self, index: usize) -> GenerateError {
        let params = self.record.params();
        let content = ContentHash::new(self.record.prompt(index), &params.sampling, &params.stop);
        self.context.replays.convict(content);
        tracing::error!(
            request_id = self.sequences[index].request_id.0,
            num_prompt_tokens = self.record.prompt(index).len(),
            "A request ended the engine while nothing else ran; it is refused from now on."
        );
        let message = "the engine ended each time it worked on this request alone, so the request \
                       is not continued";
        GenerateError::Convicted(message.to_owned())
    }

    fn open_gap(&mut self, index: usize, at: Instant) {
        let sequence = &mut self.sequences[index];
        if sequence.gap.is_none() {
            sequence.gap = Some(at);
            self.num_gaps += 1;
            self.context.metrics.replay.on_gap();
        }
    }

    /// The gap of a sequence ended, if there was one.
    pub(crate) fn close_gap(&mut self, index: usize, outcome: ReplayOutcome, at: Instant) {
        if let Some(since) = self.sequences[index].gap.take() {
            self.num_gaps -= 1;
            let gap = at.saturating_duration_since(since);
            self.context.metrics.replay.on_gap_end(outcome, gap);
        }
    }

    /// A sequence in a gap got its next token or its end.
    pub(crate) fn end_gap(&mut self, index: usize, at: Instant) {
        if self.sequences[index].gap.is_some() {
            let outcome = match self.sequences[index].placement.is_exact() {
                true => ReplayOutcome::Exact,
                false => ReplayOutcome::Continued,
            };
            if outcome == ReplayOutcome::Continued {
                tracing::warn!(
                    request_id = self.sequences[index].request_id.0,
                    "A stream continues on an engine that computes other bits."
                );
            }
            self.close_gap(index, outcome, at);
        }
    }
}
