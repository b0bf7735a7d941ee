//! How this node stands: the health and the gates that the pair's machine judges it by, and what
//! the peer is told.
//!
//! Gates are told from the moment at which an engine was proved for the first time: before that the
//! node has not loaded its model, and takes no part.
//!
//! Invariant: every verdict but `pass` has a reason for an operator.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hotspare_failover::{Gate, Health, Verdict};
use hotspare_link::EngineHello;
use hotspare_pair::{PairView, PeerFacts};

use crate::EngineState;
use crate::front::Shared;
use crate::pairing::PairSetup;

/// How often load and progress are told.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// The gates' names.
const MODEL: &str = "model";
const CONFIG: &str = "config";
const ENGINE: &str = "engine";
const CANARY: &str = "canary";
const NUMERICS: &str = "numerics";

/// Reports to the pair, as often as something changes.
pub(crate) async fn report(shared: Arc<Shared>, setup: PairSetup) {
    let pairing = &setup.pairing;
    let mut states = shared.slot.subscribe();
    let mut views = pairing.subscribe();
    let mut has_served = false;
    let mut generation = shared.models.current().generation;
    let mut told: Option<(Health, Vec<Gate>)> = None;
    loop {
        let state = states.borrow_and_update().clone();
        let view = Arc::clone(&views.borrow_and_update());
        has_served |= state == EngineState::Ready;
        let health = health(&state, has_served);
        let hello = shared.slot.hello();
        if has_served {
            pairing.set_facts(facts(&shared, &setup, hello.as_ref()));
            let model = shared.models.current();
            if std::mem::replace(&mut generation, model.generation) != model.generation {
                // What it lacked was said of the model before.
                forget_degraded(&shared);
            }
            let gates = gates(&state, hello.as_ref(), &model.config_hash, &view);
            note_degraded(&shared, &gates, &view);
            if told.as_ref() != Some(&(health, gates.clone())) {
                pairing.set_health(health);
                pairing.set_gates(gates.clone());
                told = Some((health, gates));
            }
        }
        tokio::select! {
            Ok(()) = states.changed() => {}
            Ok(()) = views.changed() => {}
            () = tokio::time::sleep(REPORT_INTERVAL) => {}
        }
    }
}

/// Remembers what a node lacks while it stands by: should it take over like that, its answers say
/// so. While it serves nobody is there to be measured by.
fn note_degraded(shared: &Shared, gates: &[Gate], view: &PairView) {
    if view.role.claims() {
        return;
    }
    let lacking = gates
        .iter()
        .filter(|gate| gate.verdict == Verdict::Degraded);
    let reasons: Vec<&str> = lacking.map(|gate| gate.reason.as_str()).collect();
    let mut degraded = shared
        .degraded
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *degraded = (!reasons.is_empty()).then(|| reasons.join("; "));
}

fn forget_degraded(shared: &Shared) {
    let mut degraded = shared
        .degraded
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *degraded = None;
}

/// An engine that was lost is gone, even where another one will be started: that takes as long as
/// loading the model, and the peer has it loaded.
fn health(state: &EngineState, has_served: bool) -> Health {
    match state {
        EngineState::Ready | EngineState::Draining | EngineState::Stopped => Health::Ok,
        EngineState::Starting | EngineState::Loading { .. } if !has_served => Health::Unready,
        EngineState::Starting
        | EngineState::Loading { .. }
        | EngineState::Backoff { .. }
        | EngineState::Failed { .. } => Health::Fatal,
    }
}

fn facts(shared: &Shared, setup: &PairSetup, hello: Option<&EngineHello>) -> PeerFacts {
    let stats = shared.slot.stats();
    let num_blocks = u64::from(stats.num_blocks.max(1));
    let used = u64::from(stats.engine.num_used_blocks) * 1000 / num_blocks;
    PeerFacts {
        model: shared.models.current().served.name().to_owned(),
        model_hash: hello.map_or_else(String::new, |hello| hello.model_hash.clone()),
        numerics_id: hello.map_or_else(String::new, |hello| hello.numerics_id.clone()),
        config_hash: shared.models.current().config_hash.clone(),
        http_address: setup.http_address.clone(),
        num_steps: stats.engine.num_steps,
        num_running: stats.engine.num_running,
        num_waiting: stats.engine.num_waiting,
        kv_used_permille: u16::try_from(used.min(1000)).unwrap_or(1000),
    }
}

/// All gates of a node whose engine was proved at least once.
fn gates(
    state: &EngineState,
    hello: Option<&EngineHello>,
    config_hash: &str,
    view: &PairView,
) -> Vec<Gate> {
    let is_ready = *state == EngineState::Ready;
    let engine = match state.not_ready_reason() {
        Some(reason) => Gate::new(ENGINE, Verdict::Block, reason),
        None => Gate::pass(ENGINE),
    };
    let canary = match is_ready {
        true => Gate::pass(CANARY),
        false => Gate::new(CANARY, Verdict::Block, "no engine has answered its canary"),
    };
    let mut all = vec![engine, canary];
    // Who serves, or served last, is the measure of the other one. Where nobody does both may.
    let peer = view.peer.as_ref();
    let peer = peer.filter(|peer| peer.role.claims() && !view.role.claims());
    let facts = peer.map(|peer| &peer.facts);
    let gate = |name, verdict, ours: &str, theirs: fn(&PeerFacts) -> &str, what: &str| {
        let theirs = facts.map(theirs).filter(|theirs| !theirs.is_empty());
        match theirs {
            Some(theirs) if theirs != ours => {
                let reason = format!("{what}: {theirs} there, {ours} here");
                Gate::new(name, verdict, &reason)
            }
            _ => Gate::pass(name),
        }
    };
    let (hash, numerics) = hello.map_or(("", ""), |hello| {
        (hello.model_hash.as_str(), hello.numerics_id.as_str())
    });
    all.push(gate(
        MODEL,
        Verdict::Degraded,
        hash,
        |facts| &facts.model_hash,
        "the peer serves another model",
    ));
    all.push(gate(
        CONFIG,
        Verdict::Degraded,
        config_hash,
        |facts| &facts.config_hash,
        "the peer is configured otherwise",
    ));
    all.push(gate(
        NUMERICS,
        Verdict::Warn,
        numerics,
        |facts| &facts.numerics_id,
        "the peer computes other bits, so a moved stream goes on without being the same",
    ));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hello;
    use hotspare_failover::{BootTime, Eligibility, Epoch, Mode, Role, eligibility};
    use hotspare_pair::PeerView;

    fn view(role: Role, facts: PeerFacts) -> PairView {
        let peer = PeerView {
            node: "b".to_owned(),
            boot: 1,
            role: Role::Primary,
            epoch: Epoch::new(2),
            eligibility: Eligibility::Eligible,
            health: Health::Ok,
            leaving: false,
            gates: Vec::new(),
            facts,
            last_heard: BootTime::ZERO,
        };
        PairView {
            role,
            peer: Some(peer),
            ..PairView::starting("a", Mode::Available)
        }
    }

    fn like_us() -> PeerFacts {
        PeerFacts {
            model_hash: "hash".to_owned(),
            numerics_id: "numerics".to_owned(),
            config_hash: "config".to_owned(),
            ..PeerFacts::default()
        }
    }

    fn said(role: Role, facts: PeerFacts, state: &EngineState) -> (Eligibility, Vec<String>) {
        let gates = gates(state, Some(&hello()), "config", &view(role, facts));
        let names = gates
            .iter()
            .filter(|gate| gate.verdict > Verdict::Pass)
            .map(|gate| {
                assert!(!gate.reason.is_empty(), "{gate:?}");
                gate.name.clone()
            });
        (eligibility(&gates), names.collect())
    }

    #[test]
    fn a_standby_is_measured_by_who_serves() {
        let ready = EngineState::Ready;
        let standby = |facts| said(Role::Standby, facts, &ready);
        assert_eq!(standby(like_us()), (Eligibility::Eligible, Vec::new()));
        let other_model = PeerFacts {
            model_hash: "other".to_owned(),
            ..like_us()
        };
        let expected = (Eligibility::Degraded, vec!["model".to_owned()]);
        assert_eq!(standby(other_model.clone()), expected);
        let other_config = PeerFacts {
            config_hash: "other".to_owned(),
            ..like_us()
        };
        let expected = (Eligibility::Degraded, vec!["config".to_owned()]);
        assert_eq!(standby(other_config), expected);
        let other_bits = PeerFacts {
            numerics_id: "other".to_owned(),
            ..like_us()
        };
        let expected = (Eligibility::Eligible, vec!["numerics".to_owned()]);
        assert_eq!(standby(other_bits), expected);
        let primary = said(Role::Primary, other_model, &ready);
        assert_eq!(primary, (Eligibility::Eligible, Vec::new()));
        // What is not known yet bars nobody.
        let unknown = standby(PeerFacts::default());
        assert_eq!(unknown, (Eligibility::Eligible, Vec::new()));
    }

    #[test]
    fn an_engine_that_was_lost_is_gone_and_one_that_loads_is_not_there_yet() {
        let backoff = EngineState::Backoff {
            reason: "it was killed".to_owned(),
            restart_in: Duration::ZERO,
        };
        assert_eq!(health(&EngineState::Starting, false), Health::Unready);
        assert_eq!(health(&EngineState::Starting, true), Health::Fatal);
        assert_eq!(health(&backoff, true), Health::Fatal);
        assert_eq!(health(&EngineState::Ready, true), Health::Ok);
        let (eligibility, barring) = said(Role::Standby, like_us(), &backoff);
        assert_eq!(eligibility, Eligibility::Ineligible);
        assert_eq!(barring, ["engine", "canary"]);
    }
}
