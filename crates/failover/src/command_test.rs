//! Commands: switchover, confirm, pause, promote; the answers, and what a repeated id does.

use crate::testing::{primary, standby};
use crate::{Action, Admission, Alert, Command, Epoch, Event, Force, Mode, Outcome, Role, why_not};

#[test]
fn a_switchover_flushes_hands_over_and_holds_off() {
    let mut node = primary(Mode::Available);
    assert_eq!(node.command(Command::Switchover), None, "it runs");
    assert_eq!(node.role(), Role::Draining);
    assert_eq!(node.state.admission(&node.settings), Admission::Hold);
    let busy = node.command(Command::Demote { force: false });
    assert!(matches!(busy, Some(Outcome::Refused(o)) if o[0].name == "busy"));
    let flush = node.log.iter().rev().find_map(|action| match action {
        Action::Flush { ticket } => Some(*ticket),
        _ => None,
    });
    node.give(Event::Flushed {
        ticket: flush.expect("a drain flushes"),
    });
    assert_eq!(node.role(), Role::Demoting);
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Standby);
    let id = crate::OperationId(2);
    assert_eq!(
        node.outcome(id),
        Some(Outcome::Done {
            epoch: Epoch::new(2)
        })
    );
    assert!(node.state.overlays(node.at())[1].1, "hold-off");
    let changes = node.log.len();
    node.give(Event::Command {
        id,
        command: Command::Switchover,
    });
    assert_eq!(
        node.outcome(id),
        Some(Outcome::Done {
            epoch: Epoch::new(2)
        })
    );
    assert_eq!(
        node.log.len(),
        changes + 1,
        "the same id again does nothing"
    );
}

#[test]
fn a_handover_that_nobody_takes_is_taken_back() {
    let mut node = primary(Mode::Available);
    node.command(Command::Switchover);
    node.run_hearing(5_000, Role::Standby, 1);
    assert!(node.role().serves());
    assert_eq!(
        node.state.epoch(),
        Epoch::new(3),
        "in a new epoch: the peer may yet take over"
    );
    assert!(matches!(
        node.outcome(node.last_operation()),
        Some(Outcome::Failed { .. })
    ));
}

#[test]
fn an_ending_primary_hands_over_and_exits() {
    let mut node = primary(Mode::Available);
    node.give(Event::Terminate);
    assert_eq!(node.role(), Role::Draining);
    node.run_hearing(1_200, Role::Standby, 1);
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Maintenance);
    assert!(node.log.contains(&Action::Exit));
    assert!(node.last_heartbeat().is_some_and(|h| h.leaving));
}

#[test]
fn confirm_waits_for_a_person() {
    let mut node = standby(Mode::Confirm);
    node.run(60_000);
    assert_eq!(node.role(), Role::AwaitConfirm);
    let alert = node.log.iter().find_map(|action| match action {
        Action::Alert(Alert::ConfirmNeeded { alert }) => Some(*alert),
        _ => None,
    });
    let alert = alert.expect("somebody was told");
    let wrong = node.command(Command::Confirm { alert: alert + 1 });
    assert!(matches!(wrong, Some(Outcome::Refused(_))));
    node.command(Command::Reject { alert });
    assert_eq!(node.role(), Role::Suspect);
    node.run(60_000);
    assert_eq!(
        node.role(),
        Role::Suspect,
        "not asked again until the peer was heard"
    );
    node.hear(Role::Primary, 4);
    node.run(5_000);
    assert_eq!(node.role(), Role::AwaitConfirm);
    let alert = node.state.confirm.expect("an alert waits").alert;
    node.command(Command::Confirm { alert });
    assert_eq!(node.role(), Role::PrimarySolo);
}

#[test]
fn a_pause_of_either_node_stops_automatic_changes_and_ends() {
    let mut node = standby(Mode::Available);
    node.command(Command::Pause {
        for_ms: Some(30_000),
    });
    assert!(node.disk.paused, "a pause outlives the process");
    node.run(20_000);
    assert_eq!(node.role(), Role::Suspect);
    assert!(node.alerted(Alert::PausedOverDeadPeer));
    assert!(
        why_not(&node.settings, &node.state, node.at())
            .iter()
            .any(|o| o.name == "paused")
    );
    node.run(11_000);
    assert_eq!(node.role(), Role::PrimarySolo);
}

#[test]
fn a_pause_of_a_peer_that_died_goes_on_until_somebody_resumes() {
    let mut node = standby(Mode::Available);
    let mut heartbeat = node.peer_says(Role::Primary, 3);
    heartbeat.paused = true;
    node.give(Event::Heartbeat(heartbeat));
    node.run(20_000);
    assert_eq!(node.role(), Role::Suspect);
    assert!(node.alerted(Alert::PausedOverDeadPeer));
    node.command(Command::Resume);
    node.run(1_000);
    assert_eq!(node.role(), Role::PrimarySolo);
}

#[test]
fn promote_is_refused_over_a_living_primary_unless_forced() {
    let mut node = standby(Mode::Manual);
    let refused = node.command(Command::Promote {
        force: Force::default(),
    });
    assert!(matches!(refused, Some(Outcome::Refused(o)) if o[0].reason.contains("epoch 4")));
    let force = Force {
        peer: true,
        ..Force::default()
    };
    assert!(matches!(
        node.command(Command::Promote { force }),
        Some(Outcome::Done { .. })
    ));
    assert!(node.alerted(Alert::Forced));
}
