//! What the machine needs of a heartbeat; the driver wraps it with load, hashes and counters.
//!
//! A heartbeat echoes the newest one of the receiver that the sender has heard, with its sending
//! time: so the receiver knows on its own clock how old the news can be at most, without any
//! agreement between clocks.
//!
//! Invariant: `(boot, seq)` of a node never repeats; a lower `seq` of the same boot is old news.

use serde::{Deserialize, Serialize};

use crate::{BootTime, Eligibility, Epoch, Health, Role};

/// The machine's part of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's rank.
    pub rank: u32,
    /// A random number of the sender's process, drawn when it starts.
    pub boot: u64,
    /// Counts the sender's heartbeats of this boot.
    pub seq: u64,
    /// When it was sent, on the sender's clock.
    pub sent_at: BootTime,
    /// The sender's role.
    pub role: Role,
    /// The epoch in which it serves; where it does not, the highest it knows to have served.
    pub epoch: Epoch,
    /// The highest epoch that it knows to have served.
    pub seen: Epoch,
    /// What its gates say.
    pub eligibility: Eligibility,
    /// The health of its engine.
    pub health: Health,
    /// It gave its role up lately: no handover for reasons of health or preference goes to it.
    pub holdoff: bool,
    /// It changed roles too often.
    pub quarantined: bool,
    /// Automatic role changes are paused there.
    pub paused: bool,
    /// It asks the receiver to take over from this epoch.
    pub take_over: Option<Epoch>,
    /// It leaves: a farewell, after which its silence is no news.
    pub leaving: bool,
    /// Its lease store does not answer: it asks for a promise for this epoch.
    pub failsafe: Option<Epoch>,
    /// It has promised not to take the lease.
    pub promise: Option<Promise>,
    /// The newest heartbeat of the receiver that the sender has heard.
    pub echo: Option<Echo>,
}

impl Heartbeat {
    /// A healthy node that asks for nothing and has heard nothing.
    #[must_use]
    pub const fn plain(rank: u32, (boot, seq): (u64, u64), role: Role, epoch: Epoch) -> Self {
        Self {
            rank,
            boot,
            seq,
            sent_at: BootTime::ZERO,
            role,
            epoch,
            seen: epoch,
            eligibility: Eligibility::Eligible,
            health: Health::Ok,
            holdoff: false,
            quarantined: false,
            paused: false,
            take_over: None,
            leaving: false,
            failsafe: None,
            promise: None,
            echo: None,
        }
    }

    /// What an answer to it echoes.
    #[must_use]
    pub const fn as_echo(&self) -> Echo {
        Echo {
            boot: self.boot,
            seq: self.seq,
            sent_at: self.sent_at,
        }
    }
}

/// "I will not take the lease for a lease's time", in answer to a heartbeat that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promise {
    /// The epoch it was asked for.
    pub epoch: Epoch,
    /// The asking process.
    pub boot: u64,
    /// When the asking heartbeat was sent, on the asker's clock.
    pub sent_at: BootTime,
}

/// Which heartbeat was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Echo {
    /// Of which process.
    pub boot: u64,
    /// Which one.
    pub seq: u64,
    /// When it was sent, on its sender's clock.
    pub sent_at: BootTime,
}
