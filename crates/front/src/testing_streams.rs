//! What the tests of whole fronts share: waiting for states, collecting answers, reading metrics.
//!
//! Invariant: nothing here is in a release build.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use hotspare_batch::TokenId;
use hotspare_engine::ScriptedOptions;
use hotspare_link::EngineHello;
use hotspare_protocol::{FinishReason, StopReason};
use tokio::sync::mpsc;

use crate::testing::{
    Puppet, PuppetLauncher, ScriptedLauncher, config, hello, model_info, numbered_text_model,
    scripted,
};
use crate::{ChoiceDelta, EngineState, Front, FrontHandle, GenerateError, GenerationStream};

pub(crate) async fn wait_for(handle: &FrontHandle, wanted: fn(&EngineState) -> bool) {
    let mut states = handle.front().engine_states();
    states.wait_for(wanted).await.expect("the front lives");
}

pub(crate) async fn ready(handle: &FrontHandle) -> Front {
    wait_for(handle, |state| *state == EngineState::Ready).await;
    handle.front().clone()
}

/// The next engine, proved. Its life's name tells it from others.
pub(crate) async fn proved(
    puppets: &mut mpsc::UnboundedReceiver<Puppet>,
    engine_id: u64,
) -> Puppet {
    let mut puppet = puppets.recv().await.expect("an engine was started");
    pull(move || {
        puppet.greet_as(&EngineHello {
            engine_id,
            ..hello()
        });
        puppet
    })
    .await
}

/// What a choice consisted of.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) token_ids: Vec<TokenId>,
    pub(crate) finish: Option<(FinishReason, Option<StopReason>)>,
}

pub(crate) fn add(answers: &mut BTreeMap<u32, Answer>, delta: ChoiceDelta) {
    let answer = answers.entry(delta.index).or_default();
    assert!(answer.finish.is_none(), "a finish is the last delta");
    assert!(delta.token_ids.len() <= 1, "a delta is one token");
    answer.text.push_str(&delta.text);
    answer.token_ids.extend(delta.token_ids);
    answer.finish = delta.finish.map(|f| (f.reason, f.stop_reason));
}

pub(crate) async fn collect(stream: GenerationStream) -> Result<Vec<Answer>, GenerateError> {
    let mut answers = BTreeMap::new();
    let mut stream = stream;
    while let Some(delta) = stream.next().await {
        add(&mut answers, delta?);
    }
    assert!(stream.next().await.is_none(), "the end is the end");
    Ok(answers.into_values().collect())
}

pub(crate) fn text_of(token_ids: &[TokenId]) -> String {
    token_ids.iter().map(|id| format!("<{id}>")).collect()
}

pub(crate) fn metric(front: &Front, name: &str) -> f64 {
    labelled(front, name, "")
}

/// The first sample of `name` that has `label`.
pub(crate) fn labelled(front: &Front, name: &str, label: &str) -> f64 {
    let text = front.metrics_text();
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    let line = lines.next().unwrap_or_else(|| panic!("{name} in\n{text}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("a number in {line}"))
}

/// Waits until the engine says, after its last step, that nothing runs.
pub(crate) async fn engine_falls_idle(front: &Front) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let main = front.status().engines.remove(0);
        // The engine's own count of steps comes with its other counts; the front's own is ahead of
        // it while a report is due.
        let num_steps = metric(front, "hotspare:engine_steps_total");
        let is_told = num_steps > 0.0 && num_steps >= main.steps as f64;
        // A cancelled sequence leaves the counts at once, its blocks when the step that uses them
        // ends.
        let has_blocks = metric(front, "vllm:kv_cache_usage_perc") > 0.0;
        if is_told && !has_blocks && main.running + main.waiting == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "still busy: {main:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn puppet_front() -> (FrontHandle, tokio::sync::mpsc::UnboundedReceiver<Puppet>) {
    let (launcher, puppets) = PuppetLauncher::new();
    let handle = Front::start(config(), model_info(None), launcher);
    (handle, puppets)
}

/// Starts blocking work of a puppet beside the runtime; awaiting the result is up to the caller.
pub(crate) fn pull<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> {
    let work = tokio::task::spawn_blocking(work);
    async { work.await.expect("the puppet does not fail") }
}

/// A front over a real engine with this script.
pub(crate) fn start_scripted(script: &ScriptedOptions) -> FrontHandle {
    let script = script.clone();
    let launcher = ScriptedLauncher(move |_| scripted(script.clone()));
    Front::start(
        config(),
        model_info(Some(numbered_text_model())),
        Arc::new(launcher),
    )
}
