//! Which sequences are continued next, and which are to blame when an engine ends by itself.
//!
//! Innocent replays run beside each other up to a bound, the most urgent and then the shortest
//! first. After an engine died by itself everything that it worked on is suspect. Suspects are
//! tried in groups: half of those that were accused together, with no other replay beside them and
//! new requests held back. A group that yields its next tokens is cleared and runs on; one that
//! kills the engine again is halved. Whoever was on the engine but not on trial is no suspect.
//! Right after a death the most suspect group runs first, on an empty engine, so that a suspect is
//! alone there in the end: two deaths of an engine that worked on nothing else convict it.
//!
//! A request that always yields a few tokens before it kills is cleared each time, so a trial asks
//! for four times as many tokens as the one before, and a number of lonely deaths convicts, tokens
//! or not.
//!
//! Invariant: pure; at most one group is on trial, and nothing is admitted beside it.

use std::collections::{BTreeMap, BTreeSet};

use hotspare_batch::RequestId;

/// Lonely deaths without a token between them that convict a request.
const NUM_SOLO_LOSSES_IN_A_ROW: u32 = 2;

/// Tokens that a trial asks for, at most.
const MAX_TRIAL_TOKENS: u32 = 64;

/// Bounds of a [`ReplayPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplayLimits {
    /// Innocent replays that have not yielded anything yet, at most.
    pub(crate) max_num_concurrent: usize,
    /// Tokens that these have to read, at most; one may be longer alone.
    pub(crate) max_num_concurrent_tokens: usize,
    /// Lonely deaths that convict a request, tokens or not.
    pub(crate) max_num_solo_losses: u32,
    /// Ends of engines in trials, none of which was passed in between, that are not held against
    /// the engine.
    pub(crate) max_num_excused_losses: u32,
}

/// Place in the line: lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The size of the group that it may be tried in; the greatest for an innocent.
    group_size: usize,
    priority: i32,
    num_ids: usize,
    request_id: RequestId,
}

/// What stands against a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing new. It counts as a failed attempt.
    Open,
    /// Its loss narrowed the search down, whoever did it.
    Narrowed,
    /// It ended engines while nothing else ran.
    Convicted,
}

/// What is remembered of a sequence that was lost.
#[derive(Debug, Default)]
struct Case {
    /// Suspects that it may run beside in a trial, itself included; `None`: no suspect.
    group_size: Option<usize>,
    num_solo_losses_in_a_row: u32,
    num_solo_losses: u32,
    num_clearances: u32,
    was_narrowed: bool,
    /// It waits for a target or in line.
    is_announced: bool,
    place: Option<Place>,
}

/// One member of the group on trial.
#[derive(Debug)]
struct Trial {
    num_tokens_left: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ReplayPolicy {
    limits: ReplayLimits,
    cases: BTreeMap<RequestId, Case>,
    line: BTreeSet<Place>,
    /// Innocent ones that were admitted and have yielded nothing yet, and what they have to read.
    running: BTreeMap<RequestId, usize>,
    /// The group on trial. A member with no token left to yield has passed.
    trial: BTreeMap<RequestId, Trial>,
    /// Trials in a row that ended an engine.
    num_failed_trials: u32,
}

impl ReplayPolicy {
    pub(crate) fn new(limits: ReplayLimits) -> Self {
        Self {
            limits,
            cases: BTreeMap::new(),
            line: BTreeSet::new(),
            running: BTreeMap::new(),
            trial: BTreeMap::new(),
            num_failed_trials: 0,
        }
    }

    /// An engine ended that had the sequences `lost`; `is_own` where it ended by itself. Those in
    /// `live`, a part of them, may have been in its last step; it had not taken in the others. True
    /// where a request is to blame rather than the engine: it ended in a trial, as expected.
    pub(crate) fn on_loss(&mut self, lost: &[RequestId], live: &[RequestId], is_own: bool) -> bool {
        let is_trial = live.iter().any(|id| self.trial.contains_key(id));
        let accused: Vec<RequestId> = live
            .iter()
            .copied()
            .filter(|id| !is_trial || self.trial.contains_key(id))
            .collect();
        for id in lost {
            self.running.remove(id);
            self.cases.entry(*id).or_default().was_narrowed = false;
        }
        if lost.iter().any(|id| self.trial.contains_key(id)) {
            self.trial.clear();
        }
        if !is_own {
            return false;
        }
        for id in &accused {
            let case = self.cases.entry(*id).or_default();
            case.was_narrowed = is_trial;
            case.group_size = Some(accused.len().div_ceil(2));
            if live.len() == 1 {
                case.num_solo_losses_in_a_row += 1;
                case.num_solo_losses += 1;
            }
        }
        if is_trial {
            self.num_failed_trials = self.num_failed_trials.saturating_add(1);
        }
        is_trial && self.num_failed_trials <= self.limits.max_num_excused_losses
    }

    /// Whether an engine that ended by itself had worked on nothing but this one.
    pub(crate) fn was_alone(&self, id: RequestId) -> bool {
        self.cases
            .get(&id)
            .is_some_and(|case| case.num_solo_losses > 0)
    }

    /// What the last loss of a sequence means for it.
    pub(crate) fn verdict(&self, id: RequestId) -> Verdict {
        let Some(case) = self.cases.get(&id) else {
            return Verdict::Open;
        };
        let is_convicted = case.num_solo_losses_in_a_row >= NUM_SOLO_LOSSES_IN_A_ROW
            || case.num_solo_losses >= self.limits.max_num_solo_losses;
        match case.was_narrowed {
            _ if is_convicted => Verdict::Convicted,
            true => Verdict::Narrowed,
            false => Verdict::Open,
        }
    }

    /// A sequence wants to be continued, as soon as there is a target for it.
    pub(crate) fn announce(&mut self, id: RequestId) {
        self.cases.entry(id).or_default().is_announced = true;
    }

    /// There is a target for it: it stands in line. `num_ids` is what has to be read again.
    pub(crate) fn enlist(&mut self, id: RequestId, priority: i32, num_ids: usize) {
        let case = self.cases.entry(id).or_default();
        let place = Place {
            group_size: case.group_size.unwrap_or(usize::MAX),
            priority,
            num_ids,
            request_id: id,
        };
        if let Some(old) = case.place.replace(place) {
            self.line.remove(&old);
        }
        case.is_announced = true;
        self.line.insert(place);
    }

    /// It stands nowhere any more: it was given to nobody, or ended, or its client left.
    pub(crate) fn leave(&mut self, id: RequestId) {
        self.step_back(id);
        if let Some(case) = self.cases.get_mut(&id) {
            case.is_announced = false;
        }
    }

    /// It was admitted, but its target is gone: it waits for another.
    pub(crate) fn step_back(&mut self, id: RequestId) {
        self.running.remove(&id);
        if self.trial.remove(&id).is_some() {
            self.end_trial_if_passed();
        }
        if let Some(place) = self.cases.get_mut(&id).and_then(|case| case.place.take()) {
            self.line.remove(&place);
        }
    }

    /// The sequence has ended; nothing of it is needed.
    pub(crate) fn forget(&mut self, id: RequestId) {
        self.leave(id);
        self.cases.remove(&id);
    }

    /// Whether a new request would disturb a trial: it waits.
    pub(crate) fn holds_new(&self) -> bool {
        !self.trial.is_empty() || self.smallest_announced_group() < usize::MAX
    }

    /// Whether a sequence stands in line, or was admitted and has yielded nothing yet.
    pub(crate) fn is_busy(&self) -> bool {
        !self.running.is_empty() || !self.line.is_empty() || !self.trial.is_empty()
    }

    /// Of all that wait, in line or not yet.
    fn smallest_announced_group(&self) -> usize {
        let announced = self.cases.values().filter(|case| case.is_announced);
        let sizes = announced.filter_map(|case| case.group_size);
        sizes.min().unwrap_or(usize::MAX)
    }

    /// Takes from the line those that may run now.
    pub(crate) fn admit(&mut self) -> Vec<RequestId> {
        let mut admitted = Vec::new();
        if !self.trial.is_empty() {
            return admitted;
        }
        let Some(first) = self.line.first().copied() else {
            return admitted;
        };
        // Whoever is more suspect, or suspect at all, and is about to find its target goes first.
        if self.smallest_announced_group() < first.group_size {
            return admitted;
        }
        if first.group_size < usize::MAX {
            let group = self.line.iter().take(first.group_size);
            let group = group.take_while(|place| place.group_size == first.group_size);
            for place in group.copied().collect::<Vec<_>>() {
                admitted.push(self.take(place));
            }
            for id in &admitted {
                let num_clearances = self.cases.get(id).map_or(0, |case| case.num_clearances);
                let num_tokens_left = 4u32
                    .saturating_pow(num_clearances)
                    .clamp(1, MAX_TRIAL_TOKENS);
                self.trial.insert(*id, Trial { num_tokens_left });
            }
            return admitted;
        }
        while self.running.len() < self.limits.max_num_concurrent
            && let Some(place) = self.line.first().copied()
        {
            let num_tokens = self.running.values().sum::<usize>() + place.num_ids;
            if !self.running.is_empty() && num_tokens > self.limits.max_num_concurrent_tokens {
                break;
            }
            let id = self.take(place);
            self.running.insert(id, place.num_ids);
            admitted.push(id);
        }
        admitted
    }

    fn take(&mut self, place: Place) -> RequestId {
        self.line.remove(&place);
        if let Some(case) = self.cases.get_mut(&place.request_id) {
            case.place = None;
            case.is_announced = false;
        }
        place.request_id
    }

    /// An admitted sequence yielded tokens, or ended. True when nothing more of it matters here.
    pub(crate) fn on_progress(&mut self, id: RequestId, num_tokens: u32, has_ended: bool) -> bool {
        self.running.remove(&id);
        let Some(member) = self.trial.get_mut(&id) else {
            return true;
        };
        member.num_tokens_left = match has_ended {
            true => 0,
            false => member.num_tokens_left.saturating_sub(num_tokens),
        };
        let has_passed = member.num_tokens_left == 0;
        if let Some(case) = self.cases.get_mut(&id).filter(|_| num_tokens > 0) {
            case.num_solo_losses_in_a_row = 0;
        }
        self.end_trial_if_passed();
        has_passed
    }

    /// Clears the group on trial when all of it has passed.
    fn end_trial_if_passed(&mut self) {
        if self.trial.values().any(|member| member.num_tokens_left > 0) {
            return;
        }
        if !self.trial.is_empty() {
            self.num_failed_trials = 0;
        }
        for id in std::mem::take(&mut self.trial).into_keys() {
            if let Some(case) = self.cases.get_mut(&id) {
                case.group_size = None;
                case.num_clearances += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "replay_policy_test.rs"]
mod replay_policy_test;
