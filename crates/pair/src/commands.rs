//! Operators' commands on their way through the machine, with who asked and why.
//!
//! Invariant: who asked gets one answer, the last one; an id that is asked twice gives both the
//! same.

use std::collections::{BTreeMap, VecDeque};

use hotspare_failover::{Command, Obstacle, OperationId, Outcome};
use tokio::sync::oneshot;

/// Operations whose reasons are remembered, for hooks and history.
const MAX_NOTES: usize = 32;

/// Who asked for an operation, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) command: String,
    pub(crate) reason: String,
    pub(crate) requested_by: String,
    /// How it last ended, where that is in the history already.
    told: Option<String>,
}

/// Commands that run, and notes on those that ran.
pub(crate) struct Commands {
    max: usize,
    waiting: BTreeMap<OperationId, Vec<oneshot::Sender<Outcome>>>,
    notes: VecDeque<(OperationId, Note)>,
}

/// An operation id as people see it.
pub(crate) fn hex(id: OperationId) -> String {
    format!("{:032x}", id.0)
}

impl Commands {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            waiting: BTreeMap::new(),
            notes: VecDeque::new(),
        }
    }

    /// Notes a command; `false`: too many wait, and this one was refused.
    pub(crate) fn begin(
        &mut self,
        id: OperationId,
        command: Command,
        reason: String,
        requested_by: String,
        reply: oneshot::Sender<Outcome>,
    ) -> bool {
        for replies in self.waiting.values_mut() {
            replies.retain(|reply| !reply.is_closed());
        }
        self.waiting.retain(|_, replies| !replies.is_empty());
        if self.waiting.values().map(Vec::len).sum::<usize>() >= self.max {
            let why = Obstacle {
                name: "busy".to_owned(),
                reason: "too many commands wait for their outcome".to_owned(),
            };
            // Who asked may have gone.
            let _gone = reply.send(Outcome::Refused(vec![why]));
            return false;
        }
        self.waiting.entry(id).or_default().push(reply);
        if self.note(id).is_none() {
            let note = Note {
                command: format!("{command:?}"),
                reason,
                requested_by,
                told: None,
            };
            self.notes.push_front((id, note));
            self.notes.truncate(MAX_NOTES);
        }
        true
    }

    /// Who asked for it, and why.
    pub(crate) fn note(&self, id: OperationId) -> Option<&Note> {
        self.notes
            .iter()
            .find(|(of, _)| *of == id)
            .map(|(_, note)| note)
    }

    /// The note of an operation whose end is news for the history.
    pub(crate) fn news(&mut self, id: OperationId, outcome: &Outcome) -> Option<Note> {
        if *outcome == Outcome::Running {
            return None;
        }
        let note = self.notes.iter_mut().find(|(of, _)| *of == id);
        let (_, note) = note?;
        let text = Some(format!("{outcome:?}"));
        if note.told == text {
            return None;
        }
        note.told = text;
        Some(note.clone())
    }

    /// Answers everybody who waits; an operation that still runs is answered later.
    pub(crate) fn end(&mut self, id: OperationId, outcome: &Outcome) {
        if *outcome == Outcome::Running {
            return;
        }
        for reply in self.waiting.remove(&id).unwrap_or_default() {
            let _gone = reply.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use hotspare_failover::Epoch;

    use super::*;

    #[test]
    fn both_who_asked_get_the_same_last_answer() {
        let mut commands = Commands::new(2);
        let id = OperationId(7);
        let ask = |commands: &mut Commands| {
            let (reply, outcome) = oneshot::channel();
            let (why, who) = ("why".to_owned(), "who".to_owned());
            (
                commands.begin(id, Command::Switchover, why, who, reply),
                outcome,
            )
        };
        let (first, mut one) = ask(&mut commands);
        let (second, mut two) = ask(&mut commands);
        let (third, mut refused) = ask(&mut commands);
        assert_eq!((first, second, third), (true, true, false));
        assert!(matches!(refused.try_recv(), Ok(Outcome::Refused(_))));
        commands.end(id, &Outcome::Running);
        assert!(one.try_recv().is_err(), "it still runs");
        let done = Outcome::Done {
            epoch: Epoch::new(4),
        };
        commands.end(id, &done);
        assert_eq!(one.try_recv(), Ok(done.clone()));
        assert_eq!(two.try_recv(), Ok(done.clone()));
        assert_eq!(commands.news(id, &Outcome::Running), None);
        assert!(commands.news(id, &done).is_some());
        assert_eq!(commands.news(id, &done), None, "once in the history");
        assert_eq!(commands.note(id).map(|n| n.reason.as_str()), Some("why"));
        // Who does not wait any more takes no place.
        drop(ask(&mut commands).1);
        drop(ask(&mut commands).1);
        assert!(ask(&mut commands).0);
    }
}
