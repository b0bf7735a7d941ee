//! Records: what they give back, what they count, and what happens at a bound.

use std::sync::Arc;
use std::time::Duration;

use hotspare_batch::{RequestId, SamplingParams, StopParams, TokenId};
use proptest::prelude::*;

use crate::{ChoiceStart, JobParams, Journal, JournalConfig, NotResumable};

fn journal(max_request_bytes: usize, max_bytes: usize) -> Journal {
    Journal::new(JournalConfig {
        max_request_bytes,
        max_bytes,
    })
}

fn params() -> JobParams {
    JobParams {
        sampling: SamplingParams {
            seed: 9,
            num_prompt_logprobs: Some(2),
            logit_bias: vec![(3, 1.0)],
            ..SamplingParams::default()
        },
        stop: StopParams {
            min_tokens: 2,
            ..StopParams::default()
        },
        priority: -3,
        deadline_ms: Some(1000),
        block_hash_keys: vec![4, 5],
    }
}

/// `n` choices of each of `prompts`.
fn choices(prompts: &[&[TokenId]], n: u32) -> Vec<ChoiceStart> {
    let mut starts = Vec::new();
    for prompt in prompts {
        let prompt: Arc<[TokenId]> = (*prompt).into();
        for choice in 0..n {
            starts.push(ChoiceStart {
                request_id: RequestId(starts.len() as u64),
                prompt: Arc::clone(&prompt),
                choice,
                max_tokens: 100,
            });
        }
    }
    starts
}

const NOW: Duration = Duration::from_millis(5_000);

#[test]
fn an_attempt_continues_where_the_last_one_ended() {
    let mut record = journal(1 << 20, 1 << 20).begin(params(), choices(&[&[1, 2]], 2));
    record.begin_on("model", "numerics");
    record.begin_on("other", "other");
    assert_eq!(record.origin().unwrap().model_hash, "model");
    record.on_admitted(1, NOW);
    record.deliver(1, &[7]);
    assert!(
        record.on_prompt_report(1),
        "the first report is the client's"
    );
    assert!(!record.on_prompt_report(1), "a second one is not");
    record.deliver(1, &[8, 9]);
    let later = NOW + Duration::from_millis(300);
    let request = record.resume(1, later).unwrap();
    assert_eq!(request.request_id, RequestId(1));
    assert_eq!((request.attempt, request.num_delivered), (1, 3));
    assert_eq!(request.ids, [1, 2, 7, 8, 9]);
    assert_eq!((request.sampling.seed, request.sampling.choice), (9, 1));
    assert_eq!(
        request.sampling.num_prompt_logprobs, None,
        "it was reported"
    );
    assert_eq!((request.stop.max_tokens, request.stop.min_tokens), (100, 2));
    assert_eq!((request.priority, request.deadline_ms), (-3, Some(700)));
    assert_eq!(request.block_hash_keys, [4, 5]);
    assert_eq!(record.resume(1, later).unwrap().attempt, 2);

    // Its sibling has received nothing, and no engine has taken it in.
    let request = record.resume(0, later).unwrap();
    assert_eq!((request.attempt, request.num_delivered), (1, 0));
    assert_eq!(request.sampling.num_prompt_logprobs, Some(2));
    assert_eq!(request.deadline_ms, Some(1000));

    record.finish(1);
    assert_eq!(record.resume(1, later), Err(NotResumable::Finished));
    assert_eq!(record.resume(2, later), Err(NotResumable::Finished));
}

#[test]
fn a_deadline_that_has_passed_leaves_nothing() {
    let mut record = journal(1 << 20, 1 << 20).begin(params(), choices(&[&[1]], 1));
    record.on_admitted(0, NOW);
    record.on_admitted(0, NOW * 9);
    assert_eq!(record.remaining_ms(0, NOW), Some(1000));
    assert_eq!(record.resume(0, NOW * 2).unwrap().deadline_ms, Some(0));
}

#[test]
fn attempts_are_counted_since_the_last_token() {
    let mut record = journal(1 << 20, 1 << 20).begin(params(), choices(&[&[1]], 1));
    record.count_failed_attempt(0);
    record.count_failed_attempt(0);
    record.deliver(0, &[]);
    assert_eq!(record.num_attempts_since_token(0), 2);
    record.deliver(0, &[3]);
    assert_eq!(record.num_attempts_since_token(0), 0);
}

#[test]
fn choices_share_their_prompt() {
    let journal = journal(1 << 30, 1 << 30);
    let prompt = vec![1; 10_000];
    let one = journal.begin(params(), choices(&[&prompt], 1));
    let bytes_of_one = journal.num_bytes();
    assert!(bytes_of_one >= 40_000, "{bytes_of_one}");
    drop(one);
    assert_eq!(journal.num_bytes(), 0);
    let _eight = journal.begin(params(), choices(&[&prompt], 8));
    assert!(journal.num_bytes() < bytes_of_one + 4_000);
}

#[test]
fn past_its_bound_a_request_runs_on_without_a_record() {
    let journal = journal(1_200, 1 << 20);
    let mut record = journal.begin(params(), choices(&[&[1, 2]], 1));
    let fixed = journal.num_bytes();
    assert!(fixed > 0 && record.not_resumable().is_none(), "{fixed}");
    let mut num_delivered = 0;
    while record.not_resumable().is_none() {
        record.deliver(0, &[num_delivered; 50]);
        num_delivered += 1;
        assert!(journal.num_bytes() <= 1_200);
    }
    assert!(num_delivered > 1, "some fit");
    let max_request_bytes = 1_200;
    let expected = NotResumable::RequestTooLarge { max_request_bytes };
    assert_eq!(record.resume(0, NOW), Err(expected));
    assert_eq!(journal.num_bytes(), 0, "what it held is given back");
    record.deliver(0, &[1]);
    record.finish(0);
    assert_eq!(record.num_bytes(), 0);
}

#[test]
fn a_full_journal_takes_nobody_new() {
    let journal = journal(1 << 20, 1_500);
    let mut records = Vec::new();
    let refused = loop {
        let record = journal.begin(params(), choices(&[&[1; 20]], 1));
        match record.not_resumable() {
            Some(reason) => break reason,
            None => records.push(record),
        }
        assert!(records.len() < 10);
    };
    assert_eq!(refused, NotResumable::JournalFull { max_bytes: 1_500 });
    assert!(!records.is_empty());
    records.pop();
    let next = journal.begin(params(), choices(&[&[1; 20]], 1));
    assert_eq!(next.not_resumable(), None, "there is room again");
}

/// What happens to one of several records.
#[derive(Clone, Debug)]
enum Step {
    Begin {
        num_ids: usize,
        n: u32,
    },
    Deliver {
        record: usize,
        choice: usize,
        num: usize,
    },
    Finish {
        record: usize,
        choice: usize,
    },
    Drop {
        record: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..200usize, 1..4u32).prop_map(|(num_ids, n)| Step::Begin { num_ids, n }),
        (0..8usize, 0..4usize, 0..80usize).prop_map(|(record, choice, num)| Step::Deliver {
            record,
            choice,
            num
        }),
        (0..8usize, 0..4usize).prop_map(|(record, choice)| Step::Finish { record, choice }),
        (0..8usize).prop_map(|record| Step::Drop { record }),
    ]
}

proptest! {
    #[test]
    fn the_count_is_the_sum_and_within_bounds(steps in prop::collection::vec(step(), 1..100)) {
        let journal = journal(3_000, 9_000);
        let mut records = Vec::new();
        for step in steps {
            match step {
                Step::Begin { num_ids, n } => {
                    records.push(journal.begin(params(), choices(&[&vec![1; num_ids]], n)));
                }
                Step::Deliver { record, choice, num } => {
                    if let Some(record) = records.get_mut(record) {
                        record.deliver(choice, &vec![2; num]);
                    }
                }
                Step::Finish { record, choice } => {
                    if let Some(record) = records.get_mut(record) {
                        record.finish(choice);
                    }
                }
                Step::Drop { record } => {
                    if record < records.len() {
                        records.remove(record);
                    }
                }
            }
            let sum: usize = records.iter().map(crate::RequestRecord::num_bytes).sum();
            prop_assert_eq!(journal.num_bytes(), sum);
            prop_assert!(sum <= 9_000);
            prop_assert!(records.iter().all(|record| record.num_bytes() <= 3_000));
        }
        drop(records);
        prop_assert_eq!(journal.num_bytes(), 0);
    }
}
