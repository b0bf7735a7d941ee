//! Order, bounds, and a simulated engine that poison kills.

use proptest::prelude::*;

use super::*;

const LIMITS: ReplayLimits = ReplayLimits {
    max_num_concurrent: 3,
    max_num_concurrent_tokens: 1_000_000,
    max_num_solo_losses: 4,
    max_num_excused_losses: 3,
};

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<RequestId> {
    numbers.into_iter().map(RequestId).collect()
}

/// All were in the last step.
fn on_loss(policy: &mut ReplayPolicy, live: &[RequestId], is_own: bool) {
    policy.on_loss(live, live, is_own);
}

#[test]
fn what_was_not_taken_in_is_no_suspect_and_counts_its_attempts() {
    let mut policy = ReplayPolicy::new(LIMITS);
    let [new, running] = [RequestId(1), RequestId(2)];
    policy.on_loss(&[new], &[], true);
    assert_eq!(policy.verdict(new), Verdict::Open);
    policy.enlist(new, 0, 1);
    assert!(!policy.holds_new());
    assert_eq!(policy.admit(), [new]);
    policy.on_loss(&[new, running], &[running], true);
    assert_eq!(policy.verdict(new), Verdict::Open);
    // The other one was alone in the step.
    policy.enlist(running, 0, 1);
    assert_eq!(policy.admit(), [running]);
    policy.on_loss(&[new, running], &[running], true);
    assert_eq!(policy.verdict(running), Verdict::Convicted);
    assert_eq!(policy.verdict(new), Verdict::Open);
}

#[test]
fn the_urgent_and_then_the_short_go_first_and_few_at_a_time() {
    let mut policy = ReplayPolicy::new(LIMITS);
    on_loss(&mut policy, &ids(0..6), false);
    for (id, priority, num_ids) in [
        (0, 0, 50),
        (1, 0, 10),
        (2, 5, 1),
        (3, -1, 900),
        (4, 0, 10),
        (5, 9, 9),
    ] {
        policy.enlist(RequestId(id), priority, num_ids);
    }
    assert!(!policy.holds_new(), "innocent replays hold nobody back");
    assert_eq!(policy.admit(), ids([3, 1, 4]));
    assert_eq!(policy.admit(), []);
    assert!(policy.on_progress(RequestId(1), 1, false));
    assert_eq!(policy.admit(), ids([0]));
    policy.leave(RequestId(3));
    policy.leave(RequestId(2));
    assert_eq!(policy.admit(), ids([5]), "who left is not admitted");
}

#[test]
fn what_replays_read_at_a_time_is_bounded() {
    let mut policy = ReplayPolicy::new(ReplayLimits {
        max_num_concurrent_tokens: 100,
        ..LIMITS
    });
    for (id, num_ids) in [(0, 60), (1, 40), (2, 41), (3, 900)] {
        policy.enlist(RequestId(id), 0, num_ids);
    }
    assert_eq!(policy.admit(), ids([1, 2]));
    assert!(policy.on_progress(RequestId(1), 1, false));
    assert_eq!(policy.admit(), [], "41 and 60 are too many");
    assert!(policy.on_progress(RequestId(2), 1, false));
    assert_eq!(policy.admit(), ids([0]));
    assert!(policy.on_progress(RequestId(0), 1, false));
    assert_eq!(policy.admit(), ids([3]), "a long one goes alone");
    assert!(policy.is_busy());
    assert!(policy.on_progress(RequestId(3), 1, false));
    assert!(!policy.is_busy());
}

#[test]
fn an_engine_is_excused_in_trials_for_a_while() {
    let mut policy = ReplayPolicy::new(LIMITS);
    let [poison, other] = [RequestId(1), RequestId(2)];
    let lose = |policy: &mut ReplayPolicy, lost: &[RequestId]| policy.on_loss(lost, lost, true);
    assert!(!lose(&mut policy, &[poison, other]), "nobody was on trial");
    for round in 0..2 {
        policy.enlist(poison, 0, 1);
        assert_eq!(policy.admit(), [poison]);
        assert!(lose(&mut policy, &[poison]), "{round}");
    }
    policy.enlist(other, 0, 1);
    assert_eq!(policy.admit(), [other]);
    assert!(
        !policy.on_loss(&[other], &[other], false),
        "killed from outside"
    );
    policy.enlist(other, 0, 1);
    assert_eq!(policy.admit(), [other]);
    assert!(lose(&mut policy, &[other]), "the third in a row");
    policy.enlist(other, 0, 1);
    assert_eq!(policy.admit(), [other]);
    assert!(
        !lose(&mut policy, &[other]),
        "it may be the engine after all"
    );
    policy.enlist(other, 0, 1);
    assert_eq!(policy.admit(), [other]);
    assert!(policy.on_progress(other, 99, false));
    policy.enlist(poison, 0, 1);
    assert_eq!(policy.admit(), [poison]);
    assert!(lose(&mut policy, &[poison]), "a trial was passed meanwhile");
}

#[test]
fn suspects_are_tried_in_halves_while_all_others_wait() {
    let mut policy = ReplayPolicy::new(LIMITS);
    on_loss(&mut policy, &ids(0..4), true);
    assert_eq!(policy.verdict(RequestId(0)), Verdict::Open);
    policy.announce(RequestId(0));
    assert!(policy.holds_new());
    for id in 0..5 {
        policy.enlist(RequestId(id), 0, 1);
    }
    assert_eq!(policy.admit(), ids([0, 1]), "half of the accused");
    assert_eq!(policy.admit(), []);
    assert!(policy.on_progress(RequestId(0), 1, false));
    assert_eq!(policy.admit(), [], "its neighbour has not passed");
    // The engine dies again: only those on trial are accused, though another runs there.
    on_loss(&mut policy, &ids([0, 1, 9]), true);
    assert_eq!(policy.verdict(RequestId(1)), Verdict::Narrowed);
    assert_eq!(policy.verdict(RequestId(9)), Verdict::Open);
    policy.announce(RequestId(1));
    policy.enlist(RequestId(9), 0, 1);
    assert_eq!(
        policy.admit(),
        [],
        "one that is more suspect is about to come"
    );
    policy.enlist(RequestId(1), 0, 1);
    assert_eq!(policy.admit(), ids([1]), "the most suspect first");
    on_loss(&mut policy, &ids([1]), true);
    assert_eq!(policy.verdict(RequestId(1)), Verdict::Narrowed);
    policy.enlist(RequestId(1), 0, 1);
    assert_eq!(policy.admit(), ids([1]));
    on_loss(&mut policy, &ids([1]), true);
    assert_eq!(policy.verdict(RequestId(1)), Verdict::Convicted);
    policy.forget(RequestId(1));
    assert_eq!(policy.admit(), ids([2, 3]));
    assert!(
        policy.on_progress(RequestId(2), 0, true),
        "an end clears too"
    );
    assert!(policy.on_progress(RequestId(3), 1, false));
    assert!(!policy.holds_new());
    assert_eq!(policy.admit(), ids([4, 9]));
}

#[test]
fn a_kill_from_outside_accuses_nobody() {
    let mut policy = ReplayPolicy::new(LIMITS);
    for _ in 0..10 {
        on_loss(&mut policy, &ids([7]), false);
        assert_eq!(policy.verdict(RequestId(7)), Verdict::Open);
        policy.enlist(RequestId(7), 0, 1);
        assert!(!policy.holds_new());
        assert_eq!(policy.admit(), ids([7]));
    }
}

#[test]
fn a_token_takes_back_the_first_strike_but_not_for_ever() {
    let mut policy = ReplayPolicy::new(LIMITS);
    let id = RequestId(7);
    for loss in 1..=LIMITS.max_num_solo_losses {
        on_loss(&mut policy, &[id], true);
        let is_convicted = policy.verdict(id) == Verdict::Convicted;
        assert_eq!(is_convicted, loss == LIMITS.max_num_solo_losses, "{loss}");
        policy.enlist(id, 0, 1);
        assert_eq!(policy.admit(), [id]);
        // Each trial asks for more than the one before.
        let num_needed = 4u32.pow(loss - 1).min(MAX_TRIAL_TOKENS);
        for _ in 1..num_needed {
            assert!(!policy.on_progress(id, 1, false));
            assert!(policy.holds_new());
        }
        assert!(policy.on_progress(id, 1, false));
        assert!(!policy.holds_new());
    }
}

/// What became of simulated requests.
#[derive(Debug, Default)]
struct Outcome {
    num_deaths: usize,
    convicted: Vec<u64>,
    finished: Vec<u64>,
}

/// Runs `num_requests` of `len` tokens each on one engine, which dies when it computes token
/// `poison[id]` of request `id`. The engine takes everyone at first, and later whom the policy
/// admits; all that were taken advance together.
fn simulate(num_requests: u64, len: u32, poison: &BTreeMap<u64, u32>) -> Outcome {
    let mut policy = ReplayPolicy::new(LIMITS);
    let mut num_tokens = vec![0u32; num_requests as usize];
    let mut live: BTreeSet<u64> = (0..num_requests).collect();
    let mut outcome = Outcome::default();
    for _ in 0..100_000 {
        live.extend(policy.admit().iter().map(|id| id.0));
        if live.is_empty() {
            return outcome;
        }
        let kills = |id: &u64| poison.get(id) == Some(&num_tokens[*id as usize]);
        if live.iter().any(kills) {
            outcome.num_deaths += 1;
            let lost = std::mem::take(&mut live);
            let lost_ids = ids(lost.iter().copied());
            policy.on_loss(&lost_ids, &lost_ids, true);
            for id in lost {
                let request_id = RequestId(id);
                if policy.verdict(request_id) == Verdict::Convicted {
                    policy.forget(request_id);
                    outcome.convicted.push(id);
                } else {
                    policy.enlist(request_id, 0, num_tokens[id as usize] as usize);
                }
            }
            continue;
        }
        for id in live.clone() {
            num_tokens[id as usize] += 1;
            let has_ended = num_tokens[id as usize] == len;
            policy.on_progress(RequestId(id), 1, has_ended);
            if has_ended {
                live.remove(&id);
                policy.forget(RequestId(id));
                outcome.finished.push(id);
            }
        }
    }
    panic!("it does not end: {outcome:?}");
}

proptest! {
    #[test]
    fn poison_is_convicted_and_the_innocent_finish(
        num_requests in 1..65u64,
        len in 1..40u32,
        poison in prop::collection::btree_map(0..64u64, 0..40u32, 0..5),
    ) {
        let poison: BTreeMap<u64, u32> = poison
            .into_iter()
            .filter(|(id, at)| *id < num_requests && *at < len)
            .collect();
        let outcome = simulate(num_requests, len, &poison);
        let mut convicted = outcome.convicted.clone();
        convicted.sort_unstable();
        prop_assert_eq!(convicted, poison.keys().copied().collect::<Vec<_>>());
        prop_assert_eq!(outcome.finished.len() + poison.len(), num_requests as usize);
        // The first death, halving down to one, once beside those that were cleared, twice alone.
        let num_halvings = num_requests.next_power_of_two().ilog2() as usize;
        let per_poison = 1 + num_halvings + 1 + 2;
        prop_assert!(
            outcome.num_deaths <= poison.len() * per_poison,
            "{} deaths for {} poisonous of {}", outcome.num_deaths, poison.len(), num_requests
        );
    }
}
