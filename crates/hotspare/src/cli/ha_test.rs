//! What the options of a pair mean together.

use hotspare_failover::{InitialRole, Mode};
use hotspare_front::ShadowMode;

use super::HaSettings;
use super::cli_test::parse_with;

/// Enough for a node of a pair.
const PAIR: [&str; 4] = [
    "--ha-peer=b:7946",
    "--ha-rank=0",
    "--ha-key-file=pair.key",
    "--ha-listen=0.0.0.0:7946",
];

fn ha(args: &[&str]) -> HaSettings {
    parse_with(args, &[]).expect("each option is right").ha
}

#[test]
fn a_pair_needs_what_tells_its_nodes_apart_and_brings_them_together() {
    assert_eq!(ha(&PAIR).check(), Ok(()));
    for (left_out, expected) in [(1, "--ha-rank"), (2, "--ha-key-file"), (3, "--ha-listen")] {
        let args: Vec<&str> = PAIR
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != left_out)
            .map(|(_, arg)| *arg)
            .collect();
        let error = ha(&args).check().expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
    let strict = [&PAIR[..], &["--ha-mode=strict"]].concat();
    let error = ha(&strict).check().expect_err("there is no store");
    assert!(error.contains("lease store"), "{error}");
    let tls = [&PAIR[..], &["--ha-tls-cert=c.pem", "--ha-tls-key=k.pem"]].concat();
    let error = ha(&tls).check().expect_err("a CA is missing");
    assert!(error.contains("--ha-tls-ca"), "{error}");
    let tls = [&tls[..], &["--ha-tls-ca=ca.pem"]].concat();
    assert_eq!(ha(&tls).check(), Ok(()));
    let name = [&PAIR[..], &["--ha-tls-peer-name=b"]].concat();
    assert!(ha(&name).check().is_err(), "a name without certificates");
    // Without a peer nothing is needed, and what means nothing is named.
    let alone = parse_with(&["--ha-rank=1"], &[]).expect("accepted");
    assert_eq!(alone.ha.check(), Ok(()));
    let warned = alone.warnings.iter().any(|w| w.contains("--ha-rank"));
    assert!(warned, "{:?}", alone.warnings);
}

#[test]
fn timers_come_from_the_profile_and_from_options_and_obey_their_rules() {
    let lan = ha(&PAIR);
    assert_eq!(lan.machine.mode, Mode::Available);
    assert_eq!(lan.machine.timers.dead_after_ms, 3_000);
    assert_eq!((lan.machine.rank, lan.machine.peer_rank), (0, Some(1)));
    let wan = ha(&[&PAIR[..], &["--ha-profile=wan", "--ha-role=standby"]].concat());
    assert_eq!(wan.machine.mode, Mode::Confirm);
    assert_eq!(wan.machine.timers.dead_after_ms, 15_000);
    assert_eq!(wan.machine.initial_role, InitialRole::Standby);
    let quick = [&PAIR[..], &["--ha-dead-after-ms=1000"]].concat();
    let error = ha(&quick).check().expect_err("it is too short");
    assert!(error.contains("dead_after_ms"), "{error}");
    let settings = parse_with(&["--ha-takeover-hold-ms=7"], &[]).expect("accepted");
    assert_eq!(settings.front.takeover_hold_ms, 7);
}

#[test]
fn a_front_without_an_engine_is_no_node() {
    let front = ["--ha-role=front", "--ha-peer=a:1,b:1", "--ha-key-file=k"];
    assert_eq!(ha(&front).check(), Ok(()));
    assert!(ha(&front).is_front && !ha(&PAIR).is_front);
    for (args, expected) in [
        (&front[..1], "--ha-peer"),
        (&front[..2], "--ha-key-file"),
        (&[&front[..], &["--ha-rank=1"]].concat()[..], "--ha-rank"),
        (
            &[&front[..], &["--ha-listen=[::]:1"]].concat()[..],
            "--ha-listen",
        ),
    ] {
        let error = ha(args).check().expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_pair_may_have_several_ways_between_its_nodes() {
    let separate = ha(&["--ha-peer", "b:1", "--ha-peer", "c:2"]);
    let listed = ha(&["--ha-peer=b:1,c:2"]);
    assert_eq!(listed.peers, ["b:1", "c:2"]);
    assert_eq!(separate.peers, listed.peers);
}

#[test]
fn nothing_is_read_along_where_it_could_not_be_found_again() {
    let shadow = |args: &[&str]| {
        let front = parse_with(args, &[]).expect("accepted").front;
        (front.peer_shadow, front.spare_shadow)
    };
    let (full, prompts, off) = (ShadowMode::Full, ShadowMode::Prompts, ShadowMode::Off);
    let auto = ShadowMode::Auto;
    assert_eq!(shadow(&PAIR), (full, auto));
    assert_eq!(shadow(&["--ha-shadow=prompts"]), (prompts, auto));
    assert_eq!(shadow(&["--ha-shadow=off"]), (off, auto));
    assert_eq!(shadow(&["--no-enable-prefix-caching"]), (off, off));
}
