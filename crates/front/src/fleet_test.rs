//! Engines that hang, fail their proof, have spares, and are replaced by those of another model.

use std::sync::Mutex;
use std::time::Duration;

use hotspare_batch::{FinishReason, Generate, SequenceEvent};
use hotspare_link::{EngineHello, EngineMessage, FrontMessage};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::testing::{Puppet, PuppetLauncher, config, event, hello, job, model_info};
use crate::testing_streams::{collect, labelled, metric, pull, ready, wait_for};
use crate::{
    EngineLauncher, EngineState, Front, FrontConfig, FrontError, FrontHandle, ModelInfo,
    ModelLoader, ServedModel,
};

use super::*;

fn start(config: FrontConfig) -> (FrontHandle, UnboundedReceiver<Puppet>) {
    let (launcher, puppets) = PuppetLauncher::new();
    (Front::start(config, model_info(None), launcher), puppets)
}

/// The next engine, proved.
async fn proved(puppets: &mut UnboundedReceiver<Puppet>) -> Puppet {
    let mut puppet = puppets.recv().await.expect("an engine was started");
    pull(move || {
        puppet.greet();
        puppet
    })
    .await
}

/// The next token of a sequence.
fn token(request: &Generate, finish: Option<FinishReason>) -> SequenceEvent {
    SequenceEvent {
        request_id: request.request_id,
        attempt: request.attempt,
        finish,
        ..event(request.num_delivered, &[8])
    }
}

/// Serves one job of two tokens, of which none was delivered.
fn serve(puppet: &mut Puppet, mut request: Generate) {
    puppet.step(1, token(&request, None));
    request.num_delivered = 1;
    puppet.step(2, token(&request, Some(FinishReason::Length)));
}

/// Admits and serves the next job.
async fn serve_one(mut puppet: Puppet) -> Puppet {
    pull(move || {
        let request = puppet.admit();
        serve(&mut puppet, request);
        puppet
    })
    .await
}

/// Names and states in the status.
fn engines(front: &Front) -> Vec<(String, &'static str)> {
    let engines = front.status().engines.into_iter();
    engines.map(|engine| (engine.name, engine.state)).collect()
}

/// Waits until the status has these engines.
async fn wait_for_engines(front: &Front, expected: &[(&str, &str)]) {
    let mut states = front.engine_states();
    loop {
        let engines = engines(front);
        let engines: Vec<(&str, &str)> = engines.iter().map(|(n, s)| (n.as_str(), *s)).collect();
        if engines == expected {
            return;
        }
        let changed = tokio::time::timeout(Duration::from_secs(60), states.changed()).await;
        assert!(changed.is_ok(), "{expected:?} in place of {engines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_engine_is_given_up_and_nothing_late_is_read() {
    let (handle, mut puppets) = start(FrontConfig {
        engine_hang_floor_ms: 300,
        ..config()
    });
    let mut puppet = proved(&mut puppets).await;
    let front = ready(&handle).await;
    let silent = pull(move || (puppet.admit(), puppet));
    let stream = front.generate(job(&[&[5]], 2)).await.unwrap();
    let (request, mut silent) = silent.await;
    let next = proved(&mut puppets).await;
    assert_eq!(labelled(&front, "hotspare:engine_losses", "own"), 1.0);
    assert_eq!(labelled(&front, "hotspare:engine_losses", "outside"), 0.0);
    assert_eq!(front.status().engines[0].restarts, 1);
    // It wakes up too late: its socket is closed.
    let is_closed = pull(move || {
        let events = vec![token(&request, Some(FinishReason::Length))];
        let late = EngineMessage::Step { step: 1, events };
        silent.try_send(&late).is_err()
    });
    assert!(is_closed.await, "nobody reads what a lost engine says");
    let (answers, _next) = tokio::join!(collect(stream), serve_one(next));
    assert_eq!(answers.unwrap()[0].token_ids, [8, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_engine_has_to_answer_its_canary() {
    let (handle, mut puppets) = start(FrontConfig {
        engine_hang_floor_ms: 300,
        engine_canary_interval_ms: 50,
        ..config()
    });
    let mut puppet = proved(&mut puppets).await;
    let front = ready(&handle).await;
    let mut puppet = pull(move || {
        for _ in 0..3 {
            puppet.prove();
        }
        puppet
    })
    .await;
    assert_eq!(front.status().engines[0].restarts, 0);
    let asked = pull(move || (puppet.receive_any(), puppet)).await;
    assert!(matches!(asked.0, Some(FrontMessage::Canary { .. })));
    let _puppet = proved(&mut puppets).await;
    ready(&handle).await;
    assert_eq!(front.status().engines[0].restarts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_draw_a_token_gets_no_traffic() {
    let (mut handle, mut puppets) = start(config());
    let mut puppet = puppets.recv().await.expect("an engine was started");
    let failing = pull(move || {
        puppet.send(&EngineMessage::Hello(Box::new(hello())));
        assert!(matches!(
            puppet.receive_any(),
            Some(FrontMessage::Hello { .. })
        ));
        let Some(FrontMessage::Canary { nonce }) = puppet.receive_any() else {
            panic!("a canary was due");
        };
        let error = Some("no usable logits".to_owned());
        puppet.send(&EngineMessage::CanaryDone { nonce, error });
        puppet
    });
    let error = handle.failed().await.to_string();
    assert!(
        error.contains("its canary failed: no usable logits"),
        "{error}"
    );
    assert!(!handle.front().readiness().ready);
    drop(failing.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_never_ready_is_given_up_after_a_while() {
    let (mut handle, mut puppets) = start(FrontConfig {
        engine_start_timeout_s: 0,
        ..config()
    });
    let error = handle.failed().await.to_string();
    assert_eq!(error, "the engine was not ready after 0 s");
    drop(puppets.recv().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_files_have_changed_gets_no_traffic() {
    let (handle, mut puppets) = start(config());
    let first = proved(&mut puppets).await;
    let front = ready(&handle).await;
    drop(first);
    let mut changed = puppets.recv().await.expect("another one was started");
    let is_refused = pull(move || {
        changed.send(&EngineMessage::Hello(Box::new(EngineHello {
            model_hash: "changed".to_owned(),
            ..hello()
        })));
        changed.receive_any().is_none()
    });
    assert!(is_refused.await, "its socket is closed");
    let mut states = front.engine_states();
    let says_so = |front: &Front| {
        let reasons = front.status().reasons.join("\n");
        reasons.contains("files have changed") && reasons.contains("hotspare reload")
    };
    while !says_so(&front) {
        let changed = tokio::time::timeout(Duration::from_secs(60), states.changed()).await;
        assert!(changed.is_ok(), "{:?}", front.status().reasons);
    }
    let _same = proved(&mut puppets).await;
    ready(&handle).await;
    assert_eq!(front.status().engines[0].model_hash, "hash");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_the_engines_own_end() {
    let (handle, mut puppets) = start(config());
    let mut puppet = proved(&mut puppets).await;
    let front = ready(&handle).await;
    let serving = pull(move || {
        puppet.admit();
        puppet.send_garbage();
        puppet
    });
    let stream = front.generate(job(&[&[5]], 2)).await.unwrap();
    let puppet = serving.await;
    let next = proved(&mut puppets).await;
    assert_eq!(labelled(&front, "hotspare:engine_losses", "own"), 1.0);
    let (answers, _next) = tokio::join!(collect(stream), serve_one(next));
    assert_eq!(answers.unwrap()[0].token_ids, [8, 8]);
    drop(puppet);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_takes_the_place_of_the_engine_in_the_same_moment() {
    let (handle, mut puppets) = start(FrontConfig {
        num_spare_engines: 2,
        ..config()
    });
    let front = handle.front().clone();
    let first = puppets.recv().await.expect("an engine was started");
    assert_eq!(engines(&front), [("main".to_owned(), "starting")]);
    assert!(puppets.try_recv().is_err(), "spares come after it");
    let mut first = first;
    let mut first = pull(move || {
        first.greet();
        first
    })
    .await;
    let second = proved(&mut puppets).await;
    let third = proved(&mut puppets).await;
    let all = [
        ("main", "ready"),
        ("spare-1", "ready"),
        ("spare-2", "ready"),
    ];
    wait_for_engines(&front, &all).await;
    assert_eq!(metric(&front, "hotspare:engine_ready_spares"), 2.0);

    let dying = pull(move || drop(first.admit()));
    let stream = front.generate(job(&[&[5]], 2)).await.unwrap();
    dying.await;
    // No engine was started meanwhile: the stream goes on where the spare is.
    let (answers, second) = tokio::join!(collect(stream), serve_one(second));
    assert_eq!(answers.unwrap()[0].token_ids, [8, 8]);
    assert!(front.readiness().ready);
    let fourth = proved(&mut puppets).await;
    wait_for_engines(&front, &all).await;
    assert_eq!(front.status().engines[0].restarts, 1);
    // A spare that dies is replaced, and nobody notices.
    drop(third);
    let fifth = proved(&mut puppets).await;
    wait_for_engines(&front, &all).await;
    assert!(front.readiness().ready);
    drop((second, fourth, fifth));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_that_cannot_start_does_not_end_the_server() {
    let (handle, mut puppets) = start(FrontConfig {
        num_spare_engines: 1,
        ..config()
    });
    let front = handle.front().clone();
    let main = proved(&mut puppets).await;
    for _ in 0..config().max_num_engine_failures + 1 {
        let mut spare = puppets.recv().await.expect("it is tried again");
        let message = "no memory".to_owned();
        pull(move || spare.send(&EngineMessage::Fatal { message })).await;
    }
    assert!(front.readiness().ready);
    let status = front.status();
    assert_eq!(status.role, "primary-solo");
    let reason = status.reasons.first().expect("the operator is told");
    assert!(
        reason.contains("0 of 1 spare engines are ready"),
        "{reason}"
    );
    assert!(reason.contains("no memory"), "{reason}");
    drop(main);
}

/// A loader of models that are called as they are asked for.
struct Loader {
    launcher: Arc<PuppetLauncher>,
    loaded: Mutex<Vec<Option<String>>>,
}

impl ModelLoader for Loader {
    fn load(
        &self,
        model: Option<&str>,
    ) -> Result<(ModelInfo, Arc<dyn EngineLauncher>), FrontError> {
        let model = model.map(str::to_owned);
        self.loaded
            .lock()
            .expect("no holder panics")
            .push(model.clone());
        if model.as_deref() == Some("missing") {
            return Err(FrontError::Option("no such model".to_owned()));
        }
        let info = model_info(None);
        let served = ServedModel {
            names: vec![model.unwrap_or_else(|| "test".to_owned())],
            ..info.served
        };
        Ok((
            ModelInfo { served, ..info },
            Arc::clone(&self.launcher) as _,
        ))
    }
}

fn start_with_loader() -> (FrontHandle, UnboundedReceiver<Puppet>) {
    let (launcher, puppets) = PuppetLauncher::new();
    let config = FrontConfig {
        engine_retire_grace_ms: 50,
        ..config()
    };
    let handle = Front::start(config, model_info(None), Arc::clone(&launcher) as _);
    let loaded = Mutex::default();
    handle
        .front()
        .set_loader(Arc::new(Loader { launcher, loaded }));
    (handle, puppets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_loses_nothing_and_the_old_engine_ends_when_it_is_done() {
    let (handle, mut puppets) = start_with_loader();
    let mut old = proved(&mut puppets).await;
    let front = ready(&handle).await;
    let old_model = front.model();
    let admitting = pull(move || (old.admit(), old));
    let stream = front.generate(job(&[&[5]], 2)).await.unwrap();
    let (request, mut old) = admitting.await;

    let reloading = tokio::spawn({
        let front = front.clone();
        async move { front.reload(Some("other".to_owned())).await }
    });
    let mut new = puppets.recv().await.expect("the next engine was started");
    assert_eq!(engines(&front)[1], ("next".to_owned(), "starting"));
    assert_eq!(front.model().served.name(), "test");
    let busy = front.reload(None).await.expect_err("one at a time");
    assert!(matches!(busy, FrontError::ReloadBusy), "{busy}");
    let new = pull(move || {
        let model_hash = "other hash".to_owned();
        new.greet_as(&EngineHello {
            model_hash,
            ..hello()
        });
        new
    })
    .await;
    assert_eq!(
        reloading.await.expect("no panic").expect("it is served"),
        "other"
    );
    assert_eq!(front.model().served.name(), "other");
    wait_for_engines(&front, &[("main", "ready"), ("retired-1", "draining")]).await;
    assert_eq!(front.status().engines[0].model, "other");
    assert_eq!(front.status().engines[1].model, "test");
    assert_eq!(front.status().engines[1].model_hash, "hash");

    // What is new goes to the new one; what was made for the old one goes there still.
    let (answers, new) = tokio::join!(
        async { collect(front.generate(job(&[&[6]], 2)).await.unwrap()).await },
        serve_one(new)
    );
    assert_eq!(answers.unwrap()[0].token_ids, [8, 8]);
    let late = crate::GenerationJob {
        model: Some(old_model),
        ..job(&[&[7]], 2)
    };
    let finishing = pull(move || {
        let late = old.admit();
        assert_eq!(late.ids, [7]);
        for request in [request, late] {
            serve(&mut old, request);
        }
        assert_eq!(old.receive(), Some(FrontMessage::Drain), "and not before");
    });
    let late = front.generate(late).await.unwrap();
    let (first, second) = tokio::join!(collect(stream), collect(late));
    assert_eq!(first.unwrap()[0].token_ids, [8, 8]);
    assert_eq!(second.unwrap()[0].token_ids, [8, 8]);
    finishing.await;
    wait_for_engines(&front, &[("main", "ready")]).await;
    assert_eq!(front.status().engines[0].restarts, 0);
    assert!(front.metrics_text().contains("model_name=\"other\""));
    drop(new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_leaves_all_as_it_was() {
    let (handle, mut puppets) = start_with_loader();
    let old = proved(&mut puppets).await;
    let front = ready(&handle).await;
    let error = front.reload(Some("missing".to_owned())).await;
    assert_eq!(
        error.expect_err("no such model").to_string(),
        "no such model"
    );
    let (error, ()) = tokio::join!(front.reload(Some("other".to_owned())), async {
        let mut next = puppets.recv().await.expect("the next engine was started");
        let message = "not enough memory".to_owned();
        pull(move || next.send(&EngineMessage::Fatal { message })).await;
    });
    let error = error.expect_err("it cannot be served").to_string();
    assert!(error.contains("not enough memory"), "{error}");
    wait_for_engines(&front, &[("main", "ready")]).await;
    assert_eq!(front.model().served.name(), "test");
    let (answers, old) = tokio::join!(
        async { collect(front.generate(job(&[&[6]], 2)).await.unwrap()).await },
        serve_one(old)
    );
    assert_eq!(answers.unwrap()[0].token_ids, [8, 8]);

    // The same model again, and a stop while it is loaded.
    let (error, ()) = tokio::join!(front.reload(None), async {
        let next = puppets.recv().await.expect("the next engine was started");
        drop(old);
        handle.stop().await.expect("it was asked to end");
        drop(next);
    });
    let error = error.expect_err("the server ends");
    assert!(matches!(error, FrontError::Stopping), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_chosen_by_the_hash_of_its_model() {
    let (handle, mut puppets) = start_with_loader();
    let old = proved(&mut puppets).await;
    let front = ready(&handle).await;
    let hash_of = |wanted: Option<&str>| {
        let client = front.shared().slot.target(wanted)?;
        Some(client.hello().model_hash.clone())
    };
    assert_eq!(hash_of(None).as_deref(), Some("hash"));
    assert_eq!(hash_of(Some("hash")).as_deref(), Some("hash"));
    assert_eq!(hash_of(Some("other hash")), None);
    let (reloaded, new) = tokio::join!(front.reload(None), async {
        let mut new = puppets.recv().await.expect("the next engine was started");
        pull(move || {
            let model_hash = "other hash".to_owned();
            new.greet_as(&EngineHello {
                model_hash,
                ..hello()
            });
            new
        })
        .await
    });
    reloaded.expect("it is served");
    assert_eq!(hash_of(None).as_deref(), Some("other hash"));
    assert_eq!(
        hash_of(Some("hash")).as_deref(),
        Some("hash"),
        "while it is there"
    );
    drop(old);
    wait_for_engines(&front, &[("main", "ready")]).await;
    assert_eq!(hash_of(Some("hash")), None);
    drop(new);
    wait_for(&handle, |state| *state != EngineState::Ready).await;
    assert_eq!(hash_of(None), None);
}
