//! What an output does: tokens, ends, failures, log-probabilities, and outputs that do not belong.
//!
//! Invariant: outputs made by hand are of the shape that a device may send.

use hotspare_batch::{
    Batch, DrawnTokens, FinishReason, Generate, RequestId, RowError, RowOutput, SequenceEvent,
    StepOutput, TokenId,
};

use crate::testing::{Driver, expect_alone, ids, request, small_config, with_max_tokens};
use crate::{Scheduler, SchedulerConfig, SchedulerError};

/// An output of `batch` whose sampling rows draw `drawn`.
fn output(batch: &Batch, drawn: &[TokenId]) -> StepOutput {
    let rows = batch.rows.iter().map(|row| RowOutput {
        slot: row.slot,
        token_ids: if row.samples {
            drawn.into()
        } else {
            DrawnTokens::new()
        },
        ..RowOutput::default()
    });
    StepOutput {
        step: batch.step,
        rows: rows.collect(),
        ..StepOutput::default()
    }
}

/// Runs `request` alone with rows that draw `drawn`, one entry a step; returns its events.
fn feed(request: Generate, drawn: &[&[TokenId]]) -> Vec<SequenceEvent> {
    let mut scheduler = Scheduler::new(small_config()).unwrap();
    scheduler.add(request, 0).unwrap();
    for drawn in drawn {
        let batch = scheduler.schedule(0).unwrap();
        scheduler.commit(output(&batch, drawn), 0).unwrap();
        scheduler.check_integrity();
    }
    let mut events = Vec::new();
    scheduler.drain_events(&mut events);
    events
}

fn last_finish(events: &[SequenceEvent]) -> Option<FinishReason> {
    events.last().and_then(|event| event.finish.clone())
}

#[test]
fn an_output_must_be_of_the_oldest_batch() {
    let config = SchedulerConfig {
        max_num_in_flight: 2,
        ..small_config()
    };
    let mut scheduler = Scheduler::new(config).unwrap();
    let nothing = scheduler.commit(StepOutput::default(), 0);
    assert_eq!(nothing, Err(SchedulerError::NothingInFlight { step: 0 }));
    scheduler.add(request(1, &[1]), 0).unwrap();
    let (first, second) = (
        scheduler.schedule(0).unwrap(),
        scheduler.schedule(0).unwrap(),
    );
    let early = scheduler.commit(output(&second, &[7]), 0);
    assert_eq!(
        early,
        Err(SchedulerError::WrongStep {
            step: 2,
            expected: 1
        })
    );
    let mut short = output(&first, &[7]);
    short.rows.clear();
    let error = SchedulerError::WrongRowCount {
        step: 1,
        num_rows: 0,
        expected: 1,
    };
    assert_eq!(scheduler.commit(short, 0), Err(error));
    let mut strange = output(&first, &[7]);
    strange.rows[0].slot = 3;
    let error = SchedulerError::WrongSlot {
        step: 1,
        row: 0,
        slot: 3,
        expected: 0,
    };
    assert_eq!(scheduler.commit(strange, 0), Err(error));
    scheduler.check_integrity();
    scheduler.commit(output(&first, &[7]), 0).unwrap();
    scheduler.commit(output(&second, &[8]), 0).unwrap();
    assert_eq!(scheduler.stats().num_steps, 2);
}

#[test]
fn eos_wins_over_stop_ids_and_stop_ids_over_length() {
    let mut base = with_max_tokens(request(1, &[1]), 2);
    base.stop.eos_token_ids = vec![7];
    base.stop.stop_token_ids = vec![7, 8];
    let cases: [(TokenId, FinishReason); 3] = [
        (7, FinishReason::Eos(7)),
        (8, FinishReason::StopToken(8)),
        (9, FinishReason::Length),
    ];
    for (last, expected) in cases {
        let events = feed(base.clone(), &[&[5], &[last]]);
        assert_eq!(
            last_finish(&events),
            Some(expected),
            "a stop id at the length limit"
        );
        assert_eq!(
            events[1].token_ids[..],
            [last],
            "the last token is delivered"
        );
    }
    base.stop.ignore_eos = true;
    assert_eq!(
        last_finish(&feed(base.clone(), &[&[7]])),
        Some(FinishReason::StopToken(7))
    );
    base.stop.stop_token_ids.clear();
    assert_eq!(last_finish(&feed(base, &[&[7]])), None);
}

#[test]
fn a_stop_id_before_the_minimum_is_ordinary() {
    let mut base = with_max_tokens(request(1, &[1]), 9);
    base.stop.eos_token_ids = vec![7];
    base.stop.min_tokens = 2;
    assert_eq!(last_finish(&feed(base.clone(), &[&[7], &[7]])), None);
    assert_eq!(
        last_finish(&feed(base, &[&[7], &[7], &[7]])),
        Some(FinishReason::Eos(7))
    );
}

#[test]
fn a_row_may_draw_none_or_several() {
    let base = with_max_tokens(request(1, &[1, 2]), 6);
    let events = feed(base.clone(), &[&[], &[11, 12, 13], &[14], &[15, 16, 17]]);
    let tokens: Vec<_> = events
        .iter()
        .map(|event| event.token_ids.to_vec())
        .collect();
    assert_eq!(
        tokens,
        [vec![11, 12, 13], vec![14], vec![15, 16]],
        "what passes the end is dropped"
    );
    let indices: Vec<_> = events.iter().map(|event| event.first_index).collect();
    assert_eq!(indices, [0, 3, 4]);
    assert_eq!(last_finish(&events), Some(FinishReason::Length));
    let mut stopped = base;
    stopped.stop.stop_token_ids = vec![12];
    let events = feed(stopped, &[&[11, 12, 13]]);
    assert_eq!(events[0].token_ids[..], [11, 12]);
    assert_eq!(events[0].finish, Some(FinishReason::StopToken(12)));
}

#[test]
fn computed_tokens_follow_what_was_accepted() {
    let mut scheduler = Scheduler::new(small_config()).unwrap();
    scheduler
        .add(with_max_tokens(request(1, &[1, 2]), 9), 0)
        .unwrap();
    let batch = scheduler.schedule(0).unwrap();
    scheduler.commit(output(&batch, &[11, 12, 13]), 0).unwrap();
    let batch = scheduler.schedule(0).unwrap();
    assert_eq!(batch.rows[0].num_computed_tokens, 2);
    assert_eq!(
        batch.token_ids,
        [11, 12, 13],
        "all of them have to be computed"
    );
    scheduler.commit(output(&batch, &[]), 0).unwrap();
    let batch = scheduler.schedule(0).unwrap();
    assert_eq!(batch.rows[0].num_computed_tokens, 4);
    assert_eq!(batch.token_ids, [13], "the last one is asked for again");
    assert!(batch.slot_inits.is_empty(), "the device knows what it drew");
}

#[test]
fn a_failed_row_ends_its_sequence_alone() {
    let mut driver = Driver::new(small_config());
    let mut failing = request(1, &ids(1000, 5));
    failing.sampling.top_k = 2;
    driver.add(failing).unwrap();
    driver.add(request(2, &ids(2000, 5))).unwrap();
    driver.run();
    let error = RowError::InvalidLogits { position: 5 };
    assert_eq!(
        driver.transcript(1).finish,
        Some(FinishReason::Failed(error))
    );
    assert_eq!(driver.transcript(1).tokens.len(), 1);
    assert_eq!(driver.transcript(2).finish, Some(FinishReason::Length));
}

#[test]
fn delivered_ids_count_as_output() {
    let mut driver = Driver::new(small_config());
    let mut resumed = request(1, &[1, 2, 3, 21, 22]);
    resumed.num_delivered = 2;
    resumed.attempt = 3;
    driver.add(resumed).unwrap();
    let init = &driver.schedule().unwrap().slot_inits[0];
    assert_eq!(init.num_prompt_tokens, 3);
    assert_eq!(*init.token_ids, [1, 2, 3, 21, 22]);
    driver.run();
    assert_eq!(
        driver.transcript(1).tokens.len(),
        2,
        "two of four were delivered before"
    );
}

#[test]
fn a_resumed_sequence_goes_on_as_the_uncut_one() {
    let mut driver = Driver::new(small_config());
    let uncut = with_max_tokens(request(1, &ids(0, 6)), 12);
    driver.add(uncut.clone()).unwrap();
    driver.run();
    let tokens = driver.transcript(1).tokens.clone();
    for cut in 0..=tokens.len() {
        let mut resumed = uncut.clone();
        resumed.ids.extend(&tokens[..cut]);
        resumed.num_delivered = cut as u32;
        resumed.attempt += 1;
        driver.add(resumed).unwrap();
        driver.run();
        assert_eq!(driver.transcript(1).tokens, tokens[cut..]);
        assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));
    }
}

#[test]
fn prefill_only_fills_the_cache_and_draws_nothing() {
    let mut driver = Driver::new(small_config());
    let mut prefill = request(1, &ids(1000, 64));
    prefill.prefill_only = true;
    driver.add(prefill).unwrap();
    driver.run();
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));
    assert!(driver.transcript(1).tokens.is_empty());
    assert_eq!(driver.scheduler.stats().num_cached_blocks, 16);
    driver.add(request(2, &ids(1000, 40))).unwrap();
    driver.run();
    assert_eq!(
        driver.transcript(2).num_cached_tokens,
        Some(36),
        "the last token is computed"
    );
}

#[test]
fn prompt_logprobs_come_once_with_the_first_token() {
    // The prompt is cached; it is computed again, in three chunks, for its log-probabilities.
    let mut driver = Driver::new(small_config());
    let mut scored = request(1, &ids(1000, 40));
    driver.add(scored.clone()).unwrap();
    driver.run();
    scored.request_id = RequestId(2);
    scored.sampling.num_prompt_logprobs = Some(0);
    scored.sampling.num_logprobs = Some(0);
    driver.add(scored.clone()).unwrap();
    let batch = driver.schedule().unwrap();
    assert!(batch.rows[0].wants_prompt_logprobs);
    assert_eq!(batch.rows[0].next_prompt_token, Some(1016));
    driver.commit();
    driver.step();
    assert!(
        driver.transcript(2).prompt_logprobs.is_empty(),
        "the prompt is not done"
    );
    driver.step();
    assert_eq!(driver.transcript(2).prompt_logprobs.len(), 39);
    assert!(!driver.schedule().unwrap().rows[0].wants_prompt_logprobs);
    driver.run();
    let (got, want) = (driver.transcript(2), expect_alone(&scored, 64));
    assert_eq!(got.num_cached_tokens, Some(0));
    assert_eq!(got.prompt_logprobs, want.prompt_logprobs);
    assert_eq!(got.logprobs, want.logprobs);
}
