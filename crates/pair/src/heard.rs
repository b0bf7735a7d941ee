//! Which heartbeats are news: not those that came over another link already, nor old ones that
//! somebody plays again.
//!
//! The machine drops old sequence numbers of the peer's process, and takes a new process only when
//! it echoes this one. Here what it cannot see is added: an echo that is long over is a recording,
//! and more processes that are over are remembered.
//!
//! Invariant: what is dropped here would not have changed the machine for the better.

use std::collections::VecDeque;

use hotspare_failover::{BootTime, Heartbeat};

/// Processes of the peer that are over, at most.
const MAX_OLD_BOOTS: usize = 64;

/// What a heartbeat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// For the machine, and of the process that is known.
    Known,
    /// For the machine, of a process that has not shown that it hears this one.
    Unproven,
    /// Heard already.
    Duplicate,
    /// Of a process that is over, or a recording.
    Replay,
    /// Not of this node's peer.
    Stranger,
}

/// What was heard of the peer.
#[derive(Debug)]
pub(crate) struct Heard {
    own_boot: u64,
    peer_rank: Option<u32>,
    window_ms: u64,
    /// The process that proved itself, and its newest heartbeat.
    known: Option<(u64, u64)>,
    /// One that did not yet.
    unproven: Option<(u64, u64)>,
    old: VecDeque<u64>,
}

impl Heard {
    pub(crate) fn new(own_boot: u64, peer_rank: Option<u32>, window_ms: u64) -> Self {
        Self {
            own_boot,
            peer_rank,
            window_ms,
            known: None,
            unproven: None,
            old: VecDeque::new(),
        }
    }

    /// The peer's process that proved itself.
    pub(crate) fn boot(&self) -> Option<u64> {
        self.known.map(|(boot, _)| boot)
    }

    pub(crate) fn judge(&mut self, heartbeat: &Heartbeat, now: BootTime) -> News {
        let (boot, seq) = (heartbeat.boot, heartbeat.seq);
        if Some(heartbeat.rank) != self.peer_rank || boot == self.own_boot {
            return News::Stranger;
        }
        if let Some((known, newest)) = &mut self.known
            && *known == boot
        {
            if seq <= *newest {
                return News::Duplicate;
            }
            *newest = seq;
            return News::Known;
        }
        if self.old.contains(&boot) {
            return News::Replay;
        }
        let echo = heartbeat.echo.filter(|echo| echo.boot == self.own_boot);
        if echo.is_some_and(|echo| now.ms_since(echo.sent_at) > self.window_ms) {
            return News::Replay;
        }
        match &mut self.unproven {
            Some((unproven, newest)) if *unproven == boot => {
                if seq <= *newest {
                    return News::Duplicate;
                }
                *newest = seq;
            }
            other => *other = Some((boot, seq)),
        }
        if echo.is_none() {
            return News::Unproven;
        }
        if let Some((over, _)) = self.known.replace((boot, seq)) {
            self.old.push_front(over);
            self.old.truncate(MAX_OLD_BOOTS);
        }
        self.unproven = None;
        News::Known
    }
}

#[cfg(test)]
mod tests {
    use hotspare_failover::{Echo, Epoch, Role};

    use super::*;

    fn heartbeat(boot: u64, seq: u64, echo: Option<u64>) -> Heartbeat {
        Heartbeat {
            echo: echo.map(|ms| Echo {
                boot: 1,
                seq: 1,
                sent_at: BootTime::from_ms(ms),
            }),
            ..Heartbeat::plain(2, (boot, seq), Role::Standby, Epoch::NONE)
        }
    }

    fn judge(heard: &mut Heard, boot: u64, seq: u64, echo: Option<u64>) -> News {
        heard.judge(&heartbeat(boot, seq, echo), BootTime::from_ms(100_000))
    }

    #[test]
    fn news_duplicates_and_recordings_are_told_apart() {
        let mut heard = Heard::new(1, Some(2), 60_000);
        assert_eq!(judge(&mut heard, 7, 1, None), News::Unproven);
        assert_eq!(judge(&mut heard, 7, 1, None), News::Duplicate);
        assert_eq!(judge(&mut heard, 7, 2, Some(99_000)), News::Known);
        assert_eq!(heard.boot(), Some(7));
        assert_eq!(judge(&mut heard, 7, 2, Some(99_000)), News::Duplicate);
        assert_eq!(judge(&mut heard, 7, 3, None), News::Known);
        // The peer starts again; its old process is over for good.
        assert_eq!(judge(&mut heard, 8, 1, Some(99_500)), News::Known);
        assert_eq!(judge(&mut heard, 7, 9, Some(99_500)), News::Replay);
        // A recording of a process that this one never knew, from long ago.
        assert_eq!(judge(&mut heard, 6, 50, Some(20_000)), News::Replay);
        assert_eq!(heard.boot(), Some(8));
    }

    #[test]
    fn strangers_and_reflections_are_no_peers() {
        let mut heard = Heard::new(1, Some(2), 60_000);
        assert_eq!(judge(&mut heard, 1, 1, None), News::Stranger);
        let mut other = heartbeat(7, 1, None);
        other.rank = 3;
        assert_eq!(heard.judge(&other, BootTime::ZERO), News::Stranger);
        let mut alone = Heard::new(1, None, 60_000);
        assert_eq!(judge(&mut alone, 7, 1, None), News::Stranger);
    }
}
