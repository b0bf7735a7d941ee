//! The machine with a lease: taking it, losing it, promises in its place, and what a restart costs.

use crate::testing::{Node, OWN, PEER};
use crate::{
    Admission, Command, Epoch, EpochFile, Event, Force, LeaseCall, LeaseRecord, Mode, Outcome,
    Profile, Promise, Role, Settings, why_not,
};

fn strict(store: LeaseRecord) -> Node {
    let settings = Settings::pair(OWN, PEER, Mode::Strict, Profile::Lan);
    Node::with_store(settings, EpochFile::default(), store)
}

/// The peer serves in epoch 4 and renews for so long.
fn run_renewing(node: &mut Node, ms: u64) {
    let end = node.now + ms;
    while node.now < end {
        node.call_store(
            PEER,
            LeaseCall::Renew {
                epoch: Epoch::new(4),
            },
        );
        node.hear(Role::Primary, 4);
        node.run(500);
    }
}

fn standby() -> Node {
    let mut node = strict(LeaseRecord {
        holder: Some(PEER),
        epoch: Epoch::new(4),
        revision: 9,
    });
    run_renewing(&mut node, 8_000);
    assert_eq!(node.role(), Role::Standby);
    node
}

fn primary() -> Node {
    let mut node = strict(LeaseRecord::default());
    node.hear(Role::Standby, 0);
    assert!(node.role().serves());
    node.run_hearing(3_000, Role::Standby, 1);
    assert_eq!(node.role(), Role::Primary);
    node
}

#[test]
fn a_silent_holder_keeps_its_lease_for_its_time() {
    let mut node = standby();
    assert_eq!(why_not(&node.settings, &node.state, node.at()), []);
    node.run(5_000);
    assert_eq!(
        node.role(),
        Role::Suspect,
        "silent, but its lease has not run out"
    );
    node.run(2_000);
    assert_eq!(node.role(), Role::PrimarySolo);
    let record = LeaseRecord {
        holder: Some(OWN),
        epoch: Epoch::new(5),
        ..node.store
    };
    assert_eq!(node.store, record);
}

#[test]
fn a_holder_that_still_renews_is_not_replaced_however_silent() {
    let mut node = standby();
    for _ in 0..60 {
        node.call_store(
            PEER,
            LeaseCall::Renew {
                epoch: Epoch::new(4),
            },
        );
        node.run(500);
    }
    assert_eq!(node.role(), Role::Suspect);
}

#[test]
fn the_gate_closes_a_deadline_after_the_last_renewal_was_sent() {
    let mut node = primary();
    node.settings.failsafe = false;
    node.store_answers = false;
    let admission = node.state.admission(&node.settings);
    let Admission::Open { until, .. } = admission else {
        panic!("{admission:?}")
    };
    let sent = node.state.lease.granted.expect("granted").1;
    assert!(until <= sent.after(4_000));
    node.run_hearing(4_500, Role::Standby, 1);
    assert_eq!(node.role(), Role::Fenced);
    node.store_answers = true;
    node.run_hearing(1_500, Role::Standby, 1);
    assert_eq!(
        node.role(),
        Role::Primary,
        "nobody took the lease meanwhile"
    );
    assert_eq!(node.state.epoch(), Epoch::new(1));
}

#[test]
fn a_taken_lease_fences_at_once() {
    let mut node = primary();
    node.store = LeaseRecord {
        holder: Some(PEER),
        epoch: Epoch::new(2),
        revision: 99,
    };
    node.run_hearing(1_200, Role::Standby, 1);
    assert_eq!(node.role(), Role::Fenced);
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Standby);
}

#[test]
fn a_promise_stands_in_for_the_store_and_no_longer() {
    let mut node = primary();
    node.store_answers = false;
    let end = node.now + 20_000;
    while node.now < end {
        let mut heartbeat = node.peer_says(Role::Standby, 1);
        heartbeat.promise = node
            .last_heartbeat()
            .filter(|h| h.failsafe.is_some())
            .map(|h| Promise {
                epoch: Epoch::new(1),
                boot: h.boot,
                sent_at: h.sent_at,
            });
        node.give(Event::Heartbeat(heartbeat));
        node.run(500);
    }
    assert_eq!(node.role(), Role::PrimaryFailsafe);
    assert!(!node.state.may_write(&node.settings));
    let refused = node.command(Command::Switchover);
    assert!(matches!(refused, Some(Outcome::Refused(o)) if o[0].name == "lease"));
    node.run(4_600);
    assert_eq!(node.role(), Role::Fenced, "the peer is gone, too");
    let force = Force {
        lease: true,
        ..Force::default()
    };
    assert!(matches!(
        node.command(Command::Promote { force }),
        Some(Outcome::Done { .. })
    ));
    assert!(node.role().serves());
    node.store_answers = true;
    node.run(10_000);
    assert!(node.role().serves());
    assert_eq!(
        node.store.epoch,
        node.state.epoch(),
        "the lease is taken when the store is back"
    );
}

#[test]
fn a_promise_binds_for_a_lease() {
    let mut node = standby();
    let mut asks = node.peer_says(Role::Primary, 4);
    asks.failsafe = Some(Epoch::new(4));
    let sent_at = asks.sent_at;
    node.give(Event::Heartbeat(asks));
    let promise = node
        .last_heartbeat()
        .and_then(|h| h.promise)
        .expect("promised at once");
    assert_eq!((promise.epoch, promise.sent_at), (Epoch::new(4), sent_at));
    let obstacles = why_not(&node.settings, &node.state, node.at());
    assert!(
        obstacles
            .iter()
            .any(|o| o.name == "lease" && o.reason.contains("promised"))
    );
    node.store.holder = None;
    node.run(6_000);
    assert_eq!(node.role(), Role::Suspect, "free, but promised");
    node.run(200);
    assert_eq!(node.role(), Role::PrimarySolo);
}

#[test]
fn no_promise_while_a_swap_may_still_happen() {
    let mut node = standby();
    node.run(5_000);
    // The swap leaves, and its answer does not come back.
    node.store_answers = false;
    node.run(1_300);
    assert_eq!(node.role(), Role::Promoting);
    node.run(500);
    assert!(node.state.lease.in_doubt.is_some());
    let mut asks = node.peer_says(Role::Primary, 4);
    asks.failsafe = Some(Epoch::new(4));
    node.give(Event::Heartbeat(asks));
    assert_ne!(node.role(), Role::Promoting, "the primary lives");
    let mut asks = node.peer_says(Role::Primary, 4);
    asks.failsafe = Some(Epoch::new(4));
    node.give(Event::Heartbeat(asks));
    assert_eq!(node.state.lease.promise, None);
    node.store_answers = true;
    node.call_store(
        PEER,
        LeaseCall::Renew {
            epoch: Epoch::new(4),
        },
    );
    node.run(1_200);
    let mut asks = node.peer_says(Role::Primary, 4);
    asks.failsafe = Some(Epoch::new(4));
    node.give(Event::Heartbeat(asks));
    assert!(
        node.state.lease.promise.is_some(),
        "the revision is another one now"
    );
}

#[test]
fn a_restarted_node_waits_a_lease_before_it_takes_one() {
    let mut node = strict(LeaseRecord {
        holder: None,
        epoch: Epoch::new(4),
        revision: 9,
    });
    node.run_hearing(5_500, Role::Standby, 4);
    assert_eq!(
        node.role(),
        Role::Standby,
        "it may have promised something before it died"
    );
    node.run_hearing(1_500, Role::Standby, 4);
    assert!(node.role().serves());
}

#[test]
fn a_switchover_passes_the_lease_without_waiting() {
    let mut node = primary();
    node.command(Command::Switchover);
    node.run_hearing(1_100, Role::Standby, 1);
    assert_eq!(node.role(), Role::Demoting);
    assert_eq!(node.store.holder, None);

    let mut node = standby();
    node.store.holder = None;
    let mut asks = node.peer_says(Role::Demoting, 4);
    asks.take_over = Some(Epoch::new(4));
    node.give(Event::Heartbeat(asks));
    node.run(50);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert_eq!(node.store.holder, Some(OWN));
}

#[test]
fn a_standby_without_its_store_says_that_it_protects_nobody() {
    let mut node = standby();
    run_renewing(&mut node, 500);
    let eligibility = |node: &Node| node.last_heartbeat().map(|h| h.eligibility);
    assert_eq!(eligibility(&node), Some(crate::Eligibility::Eligible));
    node.store_answers = false;
    node.run_hearing(4_000, Role::Primary, 4);
    assert_eq!(eligibility(&node), Some(crate::Eligibility::Ineligible));
    assert_eq!(node.role(), Role::Standby);
}
