//! How long nobody admits after a single fault: the bounds of the fault matrix, profile lan.
//!
//! Each fault hits the one node, then the other, at many moments of the heartbeat's and the lease's
//! period; what counts is the longest time without an open gate.

use hotspare_failover::{Mode, Profile, Settings};

use crate::{Fault, FaultKind, Plan, run};

const NUM_MOMENTS: u64 = 25;

/// The longest outage over both nodes and many moments, in milliseconds.
fn outage(mode: Mode, kind: fn(usize) -> FaultKind) -> u64 {
    let mut longest = 0;
    for moment in 0..NUM_MOMENTS {
        for node in 0..2 {
            let fault = Fault {
                at_ms: 40_000 + 17 * moment,
                for_ms: 20_000,
                kind: kind(node),
            };
            let plan = Plan {
                seed: moment,
                settings: [
                    Settings::pair(1, 2, mode, Profile::Lan),
                    Settings::pair(2, 1, mode, Profile::Lan),
                ],
                drift: [50, -50],
                loss_permille: 0,
                duplicate_permille: 0,
                delay_ms: 5,
                faults_end_ms: 62_000,
                end_ms: 110_000,
                faults: vec![fault],
                bug: None,
            };
            let report = run(&plan);
            assert_eq!(report.violation, None, "{fault:?}");
            longest = longest.max(report.longest_outage_ms);
        }
    }
    longest
}

#[test]
fn outages_stay_within_the_fault_matrix() {
    type Kind = fn(usize) -> FaultKind;
    let rows: [(&str, Kind, u64, u64); 11] = [
        (
            "front or both processes killed",
            FaultKind::Kill,
            1_000,
            7_500,
        ),
        ("power lost", FaultKind::PowerLoss, 3_600, 7_500),
        ("stopped for 20 s", FaultKind::Pause, 3_600, 7_500),
        ("engine lost", FaultKind::EngineLost, 300, 300),
        (
            "engine unready for 20 s",
            FaultKind::EngineUnready,
            300,
            300,
        ),
        ("SIGTERM", FaultKind::Terminate, 300, 300),
        ("switchover", |_| FaultKind::Switchover, 300, 300),
        ("link cut, both ways", |_| FaultKind::CutBoth, 0, 0),
        ("link cut, one way", FaultKind::CutFrom, 300, 0),
        ("links reset", |_| FaultKind::LinkReset, 0, 0),
        (
            "store unreachable for one node",
            FaultKind::StoreUnreachable,
            0,
            0,
        ),
    ];
    println!("| fault | available | strict |\n|---|---:|---:|");
    for (name, kind, available, strict) in rows {
        let found = [outage(Mode::Available, kind), outage(Mode::Strict, kind)];
        println!("| {name} | {} ms | {} ms |", found[0], found[1]);
        assert!(found[0] <= available, "{name}, available: {} ms", found[0]);
        assert!(found[1] <= strict, "{name}, strict: {} ms", found[1]);
    }
    let down = outage(Mode::Strict, |_| FaultKind::StoreDown);
    assert_eq!(down, 0, "the peer's promise stands in for the store");
}
