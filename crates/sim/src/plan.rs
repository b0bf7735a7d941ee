//! What a run is: two nodes' settings, a network, clocks, and a schedule of faults. All of it is
//! drawn from the seed before the run begins, so that a schedule can be cut down afterwards.
//!
//! Invariant: every fault ends before the quiet time at the end of the run.

use hotspare_failover::{InitialRole, Mode, Profile, Settings};

use crate::rng::Rng;

/// A mistake put into the node's driver, to see that the checkers find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The epoch file is answered for before it is on the disk.
    SkipFsync,
    /// The front looks at the role, and not at the time up to which it may admit.
    NoFencing,
    /// The machine is not told, and the front does not see, that a timer was late.
    LateTimerIgnored,
    /// The holder of the lease serves longer than a taker waits.
    LeaseMargin,
    /// A front appends tokens of an attempt that it has given up.
    LateTokens,
    /// The primary says that a revocation holds before the standby has it.
    EarlyRevocation,
    /// A node is not told that automatic changes are paused on its peer.
    PauseUntold,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SkipFsync,
        Self::NoFencing,
        Self::LateTimerIgnored,
        Self::LeaseMargin,
        Self::LateTokens,
        Self::EarlyRevocation,
        Self::PauseUntold,
    ];
}

/// What can go wrong, or is asked of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The front's process dies and is started again.
    Kill(usize),
    /// The machine loses its power, and what its disk has not got.
    PowerLoss(usize),
    /// The process, or the whole machine, stops and goes on.
    Pause(usize),
    /// The engine dies and comes back.
    EngineLost(usize),
    /// The engine does not get ready, and recovers.
    EngineUnready(usize),
    /// Nothing gets from this node to the other.
    CutFrom(usize),
    /// Nothing gets from either to the other.
    CutBoth,
    /// So many of a thousand messages are lost.
    Loss(u64),
    /// Messages take up to so many milliseconds longer, and overtake each other.
    Delay(u64),
    /// The links are reset; both processes live.
    LinkReset,
    /// The lease store answers nobody.
    StoreDown,
    /// The lease store does not answer this node.
    StoreUnreachable(usize),
    /// Calls take up to so many milliseconds longer each way.
    StoreSlow(u64),
    /// Writing the epoch file fails.
    DiskFails(usize),
    /// The disk says that it has written, and has not.
    DiskLies(usize),
    /// A gate bars the node.
    GateBlocks(usize),
    /// The node has another model.
    OtherModel(usize),
    /// The wall clock is set.
    WallClock(usize),
    /// SIGTERM, and a new start.
    Terminate(usize),
    /// An operator's switchover.
    Switchover,
    /// An operator pauses and resumes.
    Paused(usize),
    /// An operator pauses the primary, which then dies.
    PausedAndKilled,
    /// The same, and its machine loses its power.
    PausedAndOff,
    /// An operator takes a node out and in.
    Maintenance(usize),
    /// An operator fences the primary.
    FenceSelf,
    /// An operator demotes the primary.
    Demote,
    /// An operator tries to promote a standby.
    Promote(usize),
    /// A tenant's key is revoked.
    Revoke,
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, in milliseconds of true time.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub kind: FaultKind,
}

/// Everything a run depends on.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it came from, and what its random numbers start from.
    pub seed: u64,
    /// Each node's settings; ranks 1 and 2.
    pub settings: [Settings; 2],
    /// How much faster each clock runs, in ten-thousandths.
    pub drift: [i64; 2],
    /// Messages that are lost without a fault, of a thousand.
    pub loss_permille: u64,
    /// Messages that arrive twice, of a thousand.
    pub duplicate_permille: u64,
    /// The longest delay without a fault.
    pub delay_ms: u64,
    /// When faults end.
    pub faults_end_ms: u64,
    /// When the run ends.
    pub end_ms: u64,
    /// The schedule.
    pub faults: Vec<Fault>,
    /// The mistake that the drivers make, if any.
    pub bug: Option<Bug>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = Rng::new(seed);
        let mode = match rng.below(10) {
            0..4 => Mode::Available,
            4..8 => Mode::Strict,
            8 => Mode::Confirm,
            _ => Mode::Manual,
        };
        let profile = match rng.below(10) {
            0..7 => Profile::Lan,
            7 | 8 => Profile::Wan,
            _ => Profile::Seed,
        };
        let mut settings = [
            Settings::pair(1, 2, mode, profile),
            Settings::pair(2, 1, mode, profile),
        ];
        let (failsafe, availability_first) = (rng.chance(700), rng.chance(700));
        let (hooks, on_timeout) = (rng.chance(200), rng.chance(200));
        for one in &mut settings {
            one.failsafe = failsafe;
            one.availability_first = availability_first;
            one.require_hooks = hooks;
            one.promote_on_confirm_timeout = on_timeout;
        }
        if mode == Mode::Manual {
            settings[0].initial_role = InitialRole::Primary;
        }
        let lan = profile == Profile::Lan;
        let (faults_end_ms, faults) = draw_schedule(&mut rng, lan);
        let quiet_ms = if lan { 60_000 } else { 150_000 };
        let drift = [0, 1].map(|_| i64::try_from(rng.below(101)).unwrap_or(0) - 50);
        Self {
            seed,
            settings,
            drift,
            loss_permille: if rng.chance(300) { rng.below(30) } else { 0 },
            duplicate_permille: if rng.chance(300) { rng.below(100) } else { 0 },
            delay_ms: rng.between(1, if lan { 40 } else { 200 }),
            faults_end_ms,
            end_ms: faults_end_ms + quiet_ms,
            faults,
            bug,
        }
    }
}

/// When faults end, and the faults. Some runs are dense: faults of the pair's and the store's links
/// and lives, over each other.
fn draw_schedule(rng: &mut Rng, lan: bool) -> (u64, Vec<Fault>) {
    let dense = rng.chance(250);
    let (longest_run_s, longest_ms) = match (dense, lan) {
        (true, _) => (120, 12_000),
        (false, true) => (480, 30_000),
        (false, false) => (900, 90_000),
    };
    let end_ms = rng.between(60, longest_run_s) * 1000;
    let count = if dense {
        rng.between(8, 20)
    } else if rng.chance(200) {
        1
    } else {
        rng.between(2, 14)
    };
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| draw_fault(rng, end_ms, longest_ms, dense))
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    (end_ms, faults)
}

fn draw_fault(rng: &mut Rng, end_ms: u64, longest_ms: u64, dense: bool) -> Fault {
    let kind = if dense {
        draw_kind_of_links_and_lives(rng)
    } else {
        draw_kind(rng)
    };
    let for_ms = match rng.below(4) {
        0 => rng.between(10, 1_500),
        1 => rng.between(1_000, 6_000),
        _ => rng.between(2_000, longest_ms),
    };
    let at_ms = rng.between(20_000, end_ms.saturating_sub(1).max(20_000));
    Fault {
        at_ms,
        for_ms: for_ms.min(end_ms.saturating_sub(at_ms)),
        kind,
    }
}

fn draw_kind_of_links_and_lives(rng: &mut Rng) -> FaultKind {
    use FaultKind as F;
    let node = rng.node();
    match rng.below(14) {
        0 => F::Kill(node),
        1 => F::PowerLoss(node),
        2 | 3 => F::Pause(node),
        4 | 5 => F::CutFrom(node),
        6 => F::CutBoth,
        7 => F::StoreDown,
        8..11 => F::StoreUnreachable(node),
        11 | 12 => F::StoreSlow(rng.between(500, 8_000)),
        _ => F::Switchover,
    }
}

fn draw_kind(rng: &mut Rng) -> FaultKind {
    use FaultKind as F;
    let node = rng.node();
    match rng.below(34) {
        0 | 1 => F::Kill(node),
        2..5 => F::PowerLoss(node),
        5..8 => F::Pause(node),
        8 => F::EngineLost(node),
        9 => F::EngineUnready(node),
        10 | 11 => F::CutFrom(node),
        12..15 => F::CutBoth,
        15 => F::Loss(rng.between(100, 700)),
        16 => F::Delay(rng.between(50, 3_000)),
        17 => F::LinkReset,
        18 | 19 => F::StoreDown,
        20 | 21 => F::StoreUnreachable(node),
        22 => F::StoreSlow(rng.between(100, 8_000)),
        23 => F::DiskFails(node),
        24 => F::DiskLies(node),
        25 => F::GateBlocks(node),
        26 => F::OtherModel(node),
        27 => F::WallClock(node),
        28 => F::Terminate(node),
        29 => F::Switchover,
        30 => match rng.below(3) {
            0 => F::Paused(node),
            1 => F::PausedAndKilled,
            _ => F::PausedAndOff,
        },
        31 => F::Maintenance(node),
        32 => match rng.below(3) {
            0 => F::FenceSelf,
            1 => F::Demote,
            _ => F::Promote(node),
        },
        _ => F::Revoke,
    }
}
