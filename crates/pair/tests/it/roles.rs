//! Who serves: at the start, after a death, after a command, after SIGTERM.

use std::time::Duration;

use hotspare_failover::{Command, Force, Gate, Mode, OperationId, Outcome, Verdict};
use hotspare_pair::{HistoryEvent, Hook, HookTarget, Pair, PairConfig, PairError, SystemClock};

use crate::nodes::{Node, Places, bounded, protected_pair};

const SERVING: [&str; 2] = ["primary", "primary-solo"];

#[tokio::test(flavor = "multi_thread")]
async fn one_serves_and_the_other_stands_by() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    assert!(a.pair.admission().admits(a.pair.now()));
    let view = b
        .wait("the primary's facts", |view| {
            view.peer
                .as_ref()
                .is_some_and(|p| !p.facts.model.is_empty())
        })
        .await;
    let peer = view.peer.as_ref().expect("heard");
    assert_eq!(
        (peer.node.as_str(), peer.facts.model.as_str()),
        ("a", "spark")
    );
    let force = Force::default();
    let obstacles = b.pair.dry_run(Command::Promote { force });
    assert_eq!(obstacles[0].name, "peer", "{obstacles:?}");
    assert!(b.pair.check_epoch(view.epoch).is_ok());
    assert!(a.pair.view().may_write && !view.may_write);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_primary_is_replaced_and_comes_back_as_standby() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    let before = a.pair.view().epoch;
    a.crash().await;
    let view = b.wait_role(&["primary-solo"]).await;
    assert!(view.epoch > before, "{} after {before}", view.epoch);
    let a = places.start(0, Mode::Available).await;
    a.wait_role(&["standby"]).await;
    b.wait_role(&["primary"]).await;
    // What happened is remembered over the crash.
    let roles: Vec<String> = a
        .pair
        .view()
        .history
        .iter()
        .filter_map(|entry| match &entry.event {
            HistoryEvent::RoleChanged { to, .. } => Some(to.to_string()),
            _ => None,
        })
        .collect();
    assert!(roles.contains(&"primary-solo".to_owned()), "{roles:?}");
    assert_eq!(roles.last().map(String::as_str), Some("standby"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_by_command() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    let before = a.pair.view().epoch;
    let ask = |pair: Pair, id| async move {
        let (why, who) = ("kernel update".to_owned(), "ops".to_owned());
        let command = pair.command(OperationId(id), Command::Switchover, why, who);
        bounded("the outcome", command).await
    };
    let outcome = ask(a.pair.clone(), 1).await;
    let Outcome::Done { epoch } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(epoch > before);
    b.wait_role(&["primary"]).await;
    a.wait_role(&["standby"]).await;
    // The same id again does nothing, and says the same.
    assert_eq!(ask(a.pair.clone(), 1).await, Outcome::Done { epoch });
    let refused = ask(a.pair.clone(), 2).await;
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    let history = a.pair.view().history.clone();
    let asked = history.iter().any(|entry| {
        matches!(&entry.event, HistoryEvent::RoleChanged { requested_by, reason, .. }
            if requested_by == "ops" && reason == "kernel update")
    });
    assert!(asked, "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_over() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    bounded("the end", a.pair.terminate()).await;
    assert_eq!(a.pair.view().role.name(), "maintenance");
    let view = b.wait_role(&SERVING).await;
    assert!(view.epoch > a.pair.view().epoch || view.epoch == a.pair.view().seen);
    // Asked again, it says so at once.
    bounded("the end", a.pair.terminate()).await;
    a.crash().await;
    let view = b.wait_role(&["primary-solo"]).await;
    assert_eq!(view.counters.num_links_lost, 0, "it said farewell");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_bars_the_standby_and_is_told() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    let gate = Gate::new("canary", Verdict::Block, "no answer for 15 s");
    b.pair.set_gates(vec![gate.clone()]);
    b.wait_role(&["standby-ineligible"]).await;
    let view = a.wait_role(&["primary-solo"]).await;
    let view = match view.peer.as_ref().is_some_and(|p| !p.gates.is_empty()) {
        true => view,
        false => {
            let told = |peer: &hotspare_pair::PeerView| !peer.gates.is_empty();
            a.wait("the gate", |v| v.peer.as_ref().is_some_and(told))
                .await
        }
    };
    assert_eq!(view.peer.as_ref().expect("heard").gates, [gate]);
    assert!(!a.pair.why_not().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_hook_holds_a_promotion_up() {
    let places = Places::new();
    let gate = places.of[0].state_dir.with_extension("gate");
    let told = places.of[0].state_dir.with_extension("told");
    let script = format!(
        "echo $HA_EVENT $HA_ROLE >> {}; test -e {}",
        told.display(),
        gate.display()
    );
    let mut config = places.config(0, Mode::Available);
    config.bounds.hook_retry_ms = 50;
    config.hooks = vec![Hook {
        name: "vip".to_owned(),
        target: HookTarget::Exec {
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script],
        },
        required: true,
    }];
    let a = Node::start(config, &places.of[0], None).await;
    let refused = |view: &hotspare_pair::PairView| view.counters.num_hook_failures >= 2;
    a.wait("failed promotions", |view| {
        refused(view) && view.role.name() != "promoting"
    })
    .await;
    let ever =
        a.pair.view().history.iter().any(
            |entry| matches!(&entry.event, HistoryEvent::RoleChanged { to, .. } if to.serves()),
        );
    assert!(!ever, "it has not served");
    std::fs::write(&gate, "").expect("open");
    a.wait_role(&SERVING).await;
    let told = std::fs::read_to_string(&told).expect("told");
    assert!(told.contains("promote promoting\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_serves_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = PairConfig::alone("solo", dir.path().to_owned());
    let start = || Pair::start(config.clone(), None, std::sync::Arc::new(SystemClock));
    let (pair, _streams) = start().expect("started");
    assert!(matches!(start(), Err(PairError::Locked { .. })));
    pair.set_gates(vec![Gate::pass("model")]);
    let mut views = pair.subscribe();
    let serves = views.wait_for(|view| view.role.name() == "primary-solo");
    bounded("the role", serves).await.expect("it runs");
    let epoch = pair.view().epoch;
    assert!(pair.admission().admits(pair.now()));
    assert!(matches!(pair.connect().await, Err(PairError::NoPeer)));
    pair.audit("request-1", epoch);
    let path = dir.path().join("audit.jsonl");
    let mut text = String::new();
    for _ in 0..6_000 {
        text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.ends_with('\n') {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(text.contains("\"request_id\":\"request-1\""), "{text}");
    bounded("the end", pair.clone().crash())
        .await
        .expect("ended");
    // The next process uses a higher epoch; one that cannot read the file does not start.
    let (pair, _streams) = start().expect("started");
    pair.set_gates(vec![Gate::pass("model")]);
    let mut views = pair.subscribe();
    let serves = views.wait_for(|view| view.role.name() == "primary-solo");
    bounded("the role", serves).await.expect("it runs");
    assert!(pair.view().epoch > epoch);
    bounded("the end", pair.terminate()).await;
    assert_eq!(pair.view().role.name(), "maintenance");
    bounded("the end", pair.crash()).await.expect("ended");
    std::fs::write(dir.path().join("epoch"), "reserved 1\n").expect("written");
    assert!(matches!(start(), Err(PairError::EpochFileDamaged { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_keeps_a_node_from_serving() {
    let dir = tempfile::tempdir().expect("a folder");
    // Where the new file would be written there is a folder.
    let in_the_way = dir.path().join("epoch.new");
    std::fs::create_dir(&in_the_way).expect("made");
    let mut config = PairConfig::alone("solo", dir.path().to_owned());
    config.settings.timers.persist_retry_ms = 50;
    config.settings.timers.promotion_retry_ms = 50;
    let clock = std::sync::Arc::new(SystemClock);
    let (pair, _streams) = Pair::start(config, None, clock).expect("started");
    pair.set_gates(vec![Gate::pass("model")]);
    let mut views = pair.subscribe();
    let told = views.wait_for(|view| {
        view.history.iter().any(|entry| {
            matches!(&entry.event, HistoryEvent::Alert { name, .. } if name == "disk-failed")
        })
    });
    let view = bounded("the alert", told).await.expect("it runs").clone();
    assert!(!view.role.serves() && !pair.admission().admits(pair.now()));
    std::fs::remove_dir(&in_the_way).expect("removed");
    let serves = views.wait_for(|view| view.role.serves());
    bounded("the role", serves).await.expect("it runs");
}
