//! The machine without a lease: standing by, suspecting, promoting, handing over, fencing.

use crate::testing::{Node, OWN, pair, primary, standby};
use crate::{
    Admission, Alert, Cause, Command, Epoch, EpochFile, Event, Force, Gate, Health, Mode,
    PortAnswer, Profile, Role, Settings, Timers, Verdict, why_not,
};

#[test]
fn a_node_alone_serves_without_end() {
    let mut node = Node::new(Settings::alone(OWN));
    assert_eq!(node.role(), Role::PrimarySolo);
    node.stop(1_000_000);
    assert!(node.state.admission(&node.settings).admits(node.at()));
    node.give(Event::Timer);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert_eq!(node.disk.reserved, Epoch::new(2));
}

#[test]
fn silence_makes_suspect_after_s_and_dead_after_d() {
    let mut node = standby(Mode::Available);
    node.hear(Role::Primary, 4);
    node.run(1_499);
    assert_eq!(node.role(), Role::Standby);
    node.run(1);
    assert_eq!(node.role(), Role::Suspect);
    assert_eq!(node.state.admission(&node.settings), Admission::Hold);
    node.run(1_499);
    assert_eq!(node.role(), Role::Suspect);
    node.run(1);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert_eq!(
        node.state.epoch(),
        Epoch::new(5),
        "odd, and higher than what was heard"
    );
    assert_eq!(node.disk.reserved, Epoch::new(5));
    assert!(node.alerted(Alert::Unprotected));
}

#[test]
fn a_heartbeat_ends_the_suspicion() {
    let mut node = standby(Mode::Available);
    node.run(2_000);
    assert_eq!(node.role(), Role::Suspect);
    node.hear(Role::Primary, 4);
    assert_eq!(node.role(), Role::Standby);
    assert_eq!(
        node.state.admission(&node.settings),
        Admission::ToPeer {
            epoch: Epoch::new(4)
        }
    );
}

#[test]
fn a_closed_link_makes_suspect_and_two_refused_ports_make_dead_at_once() {
    let mut node = standby(Mode::Available);
    node.probes = [PortAnswer::Refused, PortAnswer::Silent];
    node.give(Event::LinkClosed);
    assert_eq!(
        node.role(),
        Role::Suspect,
        "one refused port proves nothing"
    );
    node.probes = [PortAnswer::Refused; 2];
    node.run(500);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert!(
        !node.state.quarantined(node.at()),
        "a proven death is no flap"
    );
}

#[test]
fn an_answered_probe_and_tokens_put_death_off() {
    let mut node = standby(Mode::Available);
    node.probes = [PortAnswer::Answered, PortAnswer::Silent];
    node.run(10_000);
    assert_eq!(node.role(), Role::Suspect);
    node.probes = [PortAnswer::Silent; 2];
    node.run(2_000);
    node.give(Event::PeerTraffic);
    node.run(2_900);
    assert_eq!(node.role(), Role::Suspect);
    node.run(200);
    assert_eq!(node.role(), Role::PrimarySolo);
}

#[test]
fn a_farewell_needs_no_waiting() {
    let mut node = standby(Mode::Available);
    let mut farewell = node.peer_says(Role::Maintenance, 4);
    farewell.leaving = true;
    node.give(Event::Heartbeat(farewell));
    assert_eq!(node.role(), Role::PrimarySolo);
    assert_eq!(
        node.causes(3),
        [Cause::PeerSilent, Cause::PeerDead, Cause::Promoted]
    );
}

#[test]
fn an_epoch_that_cannot_be_written_is_not_used() {
    let mut node = standby(Mode::Available);
    node.disk_works = false;
    node.run(8_000);
    assert!(!node.role().serves());
    assert!(node.alerted(Alert::DiskFailed));
    node.disk_works = true;
    node.run(2_000);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert_eq!(node.disk.reserved, node.state.epoch());
}

#[test]
fn a_late_standby_does_not_trust_the_silence_it_slept_through() {
    let mut node = standby(Mode::Available);
    node.stop(60_000);
    node.give(Event::Timer);
    node.run(1_000);
    assert_eq!(node.role(), Role::Standby);
    node.run(2_100);
    assert_eq!(
        node.role(),
        Role::PrimarySolo,
        "three seconds of silence that it was awake for"
    );
}

#[test]
fn a_late_primary_fences_itself_before_it_admits() {
    let mut node = primary(Mode::Available);
    let admission = node.state.admission(&node.settings);
    assert!(admission.admits(node.at()));
    node.stop(10_000);
    assert!(
        !admission.admits(node.at()),
        "the gate is shut before the machine is stepped"
    );
    let old_news = node.peer_says(Role::Standby, 1);
    node.give(Event::Timer);
    assert_eq!(node.role(), Role::Fenced);
    node.give(Event::Heartbeat(old_news));
    assert_eq!(
        node.role(),
        Role::Fenced,
        "an answer to what was sent before the stop"
    );
    node.run(500);
    node.hear(Role::Standby, 1);
    assert_eq!(
        node.role(),
        Role::Primary,
        "the standby did not take over meanwhile"
    );
    assert_eq!(node.state.epoch(), Epoch::new(1));
}

#[test]
fn a_late_primary_gives_way_to_its_successor() {
    let mut node = primary(Mode::Available);
    node.stop(10_000);
    node.give(Event::Timer);
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Standby);
    assert!(node.state.check_epoch(Epoch::new(1)).is_err());
    assert!(node.state.check_epoch(Epoch::new(2)).is_ok());
}

#[test]
fn of_two_primaries_the_lower_epoch_gives_way() {
    let mut node = primary(Mode::Available);
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Standby);
    assert!(node.alerted(Alert::DualPrimary));
    let mut node = primary(Mode::Available);
    node.hear(Role::PrimarySolo, 0);
    assert!(node.role().serves());
}

#[test]
fn a_primary_that_learns_of_a_higher_epoch_takes_a_new_one() {
    let mut node = primary(Mode::Available);
    node.hear(Role::Standby, 6);
    assert!(node.role().serves());
    assert_eq!(node.state.epoch(), Epoch::new(7));
}

#[test]
fn a_lost_engine_asks_the_standby_to_take_over() {
    let mut node = primary(Mode::Available);
    node.give(Event::Health(Health::Fatal));
    assert_eq!(node.role(), Role::Demoting);
    let heartbeat = node.last_heartbeat().expect("a role change is told");
    assert_eq!(heartbeat.take_over, Some(Epoch::new(1)));
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Failed);
    node.give(Event::Health(Health::Ok));
    node.hear(Role::PrimarySolo, 2);
    assert_eq!(node.role(), Role::Standby);
}

#[test]
fn a_standby_takes_over_when_asked_but_not_on_old_news() {
    let mut node = standby(Mode::Confirm);
    let mut asks = node.peer_says(Role::Demoting, 4);
    asks.take_over = Some(Epoch::new(4));
    if let Some(echo) = &mut asks.echo {
        echo.sent_at = crate::BootTime::from_ms(node.now - 5_000);
    }
    node.give(Event::Heartbeat(asks));
    assert_eq!(
        node.role(),
        Role::Standby,
        "the peer may have taken its role back since"
    );
    let mut asks = node.peer_says(Role::Demoting, 4);
    asks.take_over = Some(Epoch::new(4));
    node.give(Event::Heartbeat(asks));
    assert_eq!(node.role(), Role::PrimarySolo);
}

#[test]
fn an_unready_engine_is_waited_for_and_not_sent_to_a_held_off_peer() {
    let mut node = primary(Mode::Available);
    node.give(Event::Health(Health::Unready));
    node.run_hearing(9_000, Role::Standby, 1);
    assert_eq!(node.role(), Role::Primary);
    node.run_hearing(1_500, Role::Standby, 1);
    assert_eq!(node.role(), Role::Draining);

    let mut node = primary(Mode::Available);
    node.give(Event::Health(Health::Unready));
    for _ in 0..40 {
        let mut heartbeat = node.peer_says(Role::Standby, 1);
        heartbeat.holdoff = true;
        node.give(Event::Heartbeat(heartbeat));
        node.run(500);
    }
    assert_eq!(node.role(), Role::Primary);
}

#[test]
fn gates_bar_a_promotion_and_availability_first_overrides_a_soft_one() {
    let mut node = standby(Mode::Available);
    node.gates(vec![Gate::new("canary", Verdict::Block, "no answer")]);
    assert_eq!(node.role(), Role::StandbyIneligible);
    let obstacles = why_not(&node.settings, &node.state, node.at());
    assert_eq!(obstacles.len(), 1);
    assert_eq!(
        (obstacles[0].name.as_str(), obstacles[0].reason.as_str()),
        ("canary", "no answer")
    );
    node.run(20_000);
    assert_eq!(node.role(), Role::StandbyIneligible);
    node.gates(vec![Gate::new("model", Verdict::Degraded, "another model")]);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert!(node.causes(2).contains(&Cause::PeerDeadDegraded));
}

#[test]
fn flapping_leads_to_quarantine_where_silence_must_last() {
    let mut node = standby(Mode::Available);
    let mut epoch = 4;
    for _ in 0..2 {
        node.run(3_100);
        assert!(node.role().serves());
        epoch += 2;
        node.hear(Role::Primary, epoch);
        assert_eq!(node.role(), Role::Standby);
    }
    assert!(node.alerted(Alert::Quarantined));
    node.run(59_000);
    assert_eq!(node.role(), Role::Suspect);
    node.run(1_100);
    assert!(node.role().serves());
    node.hear(Role::Primary, epoch + 2);
    node.command(Command::ClearQuarantine);
    node.run(3_100);
    assert!(node.role().serves());
}

#[test]
fn when_nobody_serves_the_lower_rank_goes_first() {
    let mut node = Node::new(pair(Mode::Available));
    node.run_hearing(2_500, Role::Standby, 0);
    assert_eq!(node.role(), Role::Standby, "the peer has the lower rank");
    node.run_hearing(1_000, Role::Standby, 0);
    assert!(node.role().serves(), "and does not use it");

    let mut node = Node::new(Settings::pair(1, 2, Mode::Available, Profile::Lan));
    let mut heartbeat = node.peer_says(Role::Standby, 0);
    heartbeat.rank = 2;
    node.give(Event::Heartbeat(heartbeat));
    assert!(node.role().serves());
}

#[test]
fn at_a_cold_start_who_goes_first_may_load_its_model() {
    let mut node = Node::new(pair(Mode::Available));
    node.run_hearing(9_500, Role::Starting, 0);
    assert_eq!(node.role(), Role::Standby, "the peer has the lower rank");
    node.run_hearing(2_000, Role::Primary, 2);
    assert_eq!(node.role(), Role::Standby, "and served");
    // From now on a peer that starts is one that was lost: nobody waits for it.
    node.run_hearing(500, Role::Starting, 2);
    assert!(node.role().serves());

    let mut node = Node::new(pair(Mode::Available));
    node.run_hearing(10_500, Role::Starting, 0);
    assert!(node.role().serves(), "there is an end to patience");
    let mut node = Node::new(pair(Mode::Available));
    node.run_hearing(1_000, Role::Failed, 0);
    assert!(node.role().serves(), "one that failed is not waited for");

    let mut node = Node::new(Settings::pair(1, 2, Mode::Available, Profile::Lan));
    let mut heartbeat = node.peer_says(Role::Starting, 0);
    heartbeat.rank = 2;
    node.give(Event::Heartbeat(heartbeat));
    assert!(node.role().serves(), "the peer has the higher rank");
}

#[test]
fn a_node_that_hears_nobody_waits_and_then_serves() {
    let file = EpochFile {
        reserved: Epoch::new(3),
        seen: Epoch::new(8),
        ..EpochFile::default()
    };
    let mut node = Node::with_file(pair(Mode::Available), file);
    node.run(9_900);
    assert_eq!(node.role(), Role::Joining);
    node.run(200);
    assert!(node.role().serves());
    assert_eq!(node.state.epoch(), Epoch::new(9));
    let mut node = Node::with_file(pair(Mode::Manual), file);
    node.run(60_000);
    assert_eq!(node.role(), Role::AwaitConfirm);
    node.command(Command::Promote {
        force: Force::default(),
    });
    assert!(node.role().serves());
}

#[test]
fn writes_and_limits_know_an_unknown_peer() {
    let mut node = primary(Mode::Available);
    assert!(node.state.may_write(&node.settings));
    assert_eq!(node.state.limit_share_percent(&node.settings), 100);
    node.run(4_000);
    assert_eq!(node.role(), Role::PrimarySolo);
    assert!(!node.state.may_write(&node.settings));
    assert_eq!(node.state.limit_share_percent(&node.settings), 50);
}

#[test]
fn timers_obey_their_rules_in_every_profile() {
    for profile in [Profile::Lan, Profile::Wan, Profile::Seed] {
        let settings = Settings::pair(1, 2, Mode::Strict, profile);
        assert_eq!(settings.validate(), Ok(()), "{profile:?}");
        let mut late = settings.clone();
        late.timers.renew_deadline_ms = late.timers.lease_ttl_ms;
        assert!(late.validate().is_err());
        late.timers = Timers {
            timer_late_ms: late.timers.dead_after_ms,
            ..Timers::of(profile)
        };
        assert!(late.validate().is_err());
    }
    assert!(
        Settings::pair(1, 1, Mode::Strict, Profile::Lan)
            .validate()
            .is_err()
    );
}
