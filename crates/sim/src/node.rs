//! A simulated node: its process, clock, disk, engine and gates, around one state machine.
//!
//! Invariant: what a process held in memory is gone when it dies, and what its disk did not get is
//! gone when the power does.

use std::sync::Arc;

use hotspare_failover::{
    Admission, BootTime, EpochFile, Event, Gate, Health, Settings, State, Verdict,
};

use crate::front::Front;
use crate::pauses::Pauses;

/// One node.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    /// `None`: no process.
    pub(crate) state: Option<State>,
    /// What the front was last told.
    pub(crate) admission: Admission,
    /// Counts processes: what was meant for an earlier one is dropped.
    pub(crate) generation: u64,
    /// No process before this time, and none on its own where it is `u64::MAX`.
    pub(crate) down_until: u64,
    pub(crate) powered: bool,
    pub(crate) paused_until: u64,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) engine: Engine,
    pub(crate) wake_at: u64,
    pub(crate) front: Front,
    /// Since a long stop ended, the node has not been shown that nobody took over: true time.
    pub(crate) stopped_until: Option<u64>,
    /// What it was told of pauses.
    pub(crate) pauses: Pauses,
}

/// The node's boot-time clock.
pub(crate) struct Clock {
    pub(crate) booted_at: u64,
    pub(crate) drift: i64,
}

impl Clock {
    pub(crate) fn read(&self, now: u64) -> BootTime {
        let elapsed = now - self.booted_at;
        let drift = i128::from(elapsed) * i128::from(self.drift) / 10_000;
        let reading = i128::from(elapsed) + drift;
        BootTime::from_ms(1_000 + u64::try_from(reading).unwrap_or(0))
    }

    /// The true time at which the clock will not show less than `at`.
    pub(crate) fn when(&self, at: BootTime) -> u64 {
        let elapsed = i128::from(at.ms().saturating_sub(1_000));
        let real = (elapsed * 10_000).div_euclid(10_000 + i128::from(self.drift)) + 1;
        self.booted_at
            .saturating_add(u64::try_from(real).unwrap_or(u64::MAX))
    }
}

/// The node's disk.
#[derive(Default)]
pub(crate) struct Disk {
    /// What a process that starts now reads.
    pub(crate) file: EpochFile,
    /// What is left after a loss of power.
    pub(crate) durable: EpochFile,
    pub(crate) fails: u32,
    pub(crate) lies: u32,
    /// It lied and lost something: epochs may come twice, which no software can prevent.
    pub(crate) betrayed: bool,
}

/// What the health policy would say.
#[derive(Default)]
pub(crate) struct Engine {
    pub(crate) lost: u32,
    pub(crate) unready: u32,
    pub(crate) blocked: u32,
    pub(crate) other_model: u32,
    pub(crate) loaded: bool,
}

impl Engine {
    /// What the driver tells of gates and health is how they are when it comes to tell.
    pub(crate) fn as_it_is(&self, event: Event) -> Event {
        match event {
            Event::Gates(_) => Event::Gates(self.gates()),
            Event::Health(_) => Event::Health(self.health()),
            event => event,
        }
    }

    pub(crate) fn health(&self) -> Health {
        if self.lost > 0 {
            Health::Fatal
        } else if self.unready > 0 {
            Health::Unready
        } else {
            Health::Ok
        }
    }

    pub(crate) fn works(&self) -> bool {
        self.loaded && self.lost == 0
    }

    pub(crate) fn gates(&self) -> Arc<[Gate]> {
        let gate = if self.blocked > 0 {
            Gate::new("canary", Verdict::Block, "no answer")
        } else if self.other_model > 0 {
            Gate::new(
                "model",
                Verdict::Degraded,
                "another model than the primary's",
            )
        } else {
            Gate::pass("model")
        };
        Arc::from([gate])
    }
}

impl Node {
    pub(crate) fn new(settings: Settings, drift: i64) -> Self {
        Self {
            settings,
            state: None,
            admission: Admission::Closed,
            generation: 0,
            down_until: 0,
            powered: true,
            paused_until: 0,
            clock: Clock {
                booted_at: 0,
                drift,
            },
            disk: Disk::default(),
            engine: Engine::default(),
            wake_at: u64::MAX,
            front: Front::default(),
            stopped_until: None,
            pauses: Pauses::default(),
        }
    }

    pub(crate) fn runs(&self, now: u64) -> bool {
        self.state.is_some() && now >= self.paused_until
    }

    pub(crate) fn serves(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| state.role().serves())
    }

    pub(crate) fn stands_by(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| state.role().stands_by())
    }

    /// Whether its front would admit a request now.
    pub(crate) fn admits(&self, now: u64, bug: Option<crate::Bug>) -> bool {
        if !self.runs(now) {
            return false;
        }
        if bug == Some(crate::Bug::NoFencing) {
            return matches!(self.admission, Admission::Open { .. });
        }
        self.admission.admits(self.clock.read(now))
    }
}
