//! Deltas from events: text, stops, ends, and what must never happen to a token.

use hotspare_batch::{PromptReport, RowError};
use proptest::prelude::*;

use super::*;
use crate::testing::{event, text_model};

const TEXTS: [&str; 9] = ["</s>", "a", "b", "c", "END", "E", "ND", "x", "y"];

fn choice(stops: &[&str], include_stop: bool, min_tokens: u32) -> Choice {
    let stop_strings: Arc<[String]> = stops.iter().map(|s| (*s).to_owned()).collect();
    let model = text_model(&TEXTS);
    let text = ChoiceText {
        detokenizer: Detokenizer::new(&model, &[1], true),
        stop_buffer: StopBuffer::new(&stop_strings, include_stop),
        stop_strings,
    };
    Choice::new(3, Some(text), include_stop, min_tokens)
}

fn text(deltas: &VecDeque<ChoiceDelta>) -> String {
    deltas.iter().map(|delta| delta.text.as_str()).collect()
}

fn tokens(deltas: &VecDeque<ChoiceDelta>) -> Vec<TokenId> {
    let ids = deltas.iter().flat_map(|delta| &delta.token_ids);
    ids.copied().collect()
}

fn finish(deltas: &VecDeque<ChoiceDelta>) -> Option<ChoiceFinish> {
    deltas.back().and_then(|delta| delta.finish.clone())
}

fn with_finish(mut event: SequenceEvent, finish: EngineFinish) -> SequenceEvent {
    event.finish = Some(finish);
    event
}

fn stopped_by(stop_reason: Option<StopReason>) -> Option<ChoiceFinish> {
    Some(ChoiceFinish {
        reason: FinishReason::Stop,
        stop_reason,
    })
}

#[test]
fn each_token_is_a_delta() {
    let (mut choice, mut out) = (choice(&[], false, 0), VecDeque::new());
    assert_eq!(choice.on_event(event(0, &[1, 2]), &mut out), Progress::Open);
    let last = with_finish(event(2, &[3]), EngineFinish::Length);
    let progress = choice.on_event(last, &mut out);
    assert_eq!(progress, Progress::Done(FinishReason::Length));
    assert_eq!(out.len(), 3);
    assert!(out.iter().all(|d| d.index == 3 && d.token_ids.len() == 1));
    assert_eq!((text(&out).as_str(), tokens(&out)), ("abc", vec![1, 2, 3]));
    let reason = FinishReason::Length;
    let stop_reason = None;
    assert_eq!(
        finish(&out),
        Some(ChoiceFinish {
            reason,
            stop_reason
        })
    );
}

#[test]
fn the_token_that_ended_it_is_counted_and_not_shown() {
    let (mut choice, mut out) = (choice(&[], false, 0), VecDeque::new());
    choice.on_event(
        with_finish(event(0, &[1, 2]), EngineFinish::StopToken(2)),
        &mut out,
    );
    assert_eq!((text(&out).as_str(), tokens(&out)), ("a", vec![1, 2]));
    assert_eq!(finish(&out), stopped_by(Some(StopReason::Token(2))));
}

#[test]
fn the_models_own_end_has_no_stop_reason() {
    let (mut choice, mut out) = (choice(&[], false, 0), VecDeque::new());
    choice.on_event(
        with_finish(event(0, &[1, 0]), EngineFinish::Eos(0)),
        &mut out,
    );
    assert_eq!((text(&out).as_str(), tokens(&out)), ("a", vec![1, 0]));
    assert_eq!(finish(&out), stopped_by(None));
}

#[test]
fn a_stop_token_can_be_included() {
    let (mut choice, mut out) = (choice(&[], true, 0), VecDeque::new());
    choice.on_event(
        with_finish(event(0, &[1, 2]), EngineFinish::StopToken(2)),
        &mut out,
    );
    assert_eq!(text(&out), "ab");
}

#[test]
fn a_stop_string_ends_it_early_across_tokens() {
    let (mut choice, mut out) = (choice(&["END"], false, 0), VecDeque::new());
    assert_eq!(choice.on_event(event(0, &[1, 5]), &mut out), Progress::Open);
    assert_eq!(text(&out), "a", "the E is held back");
    assert_eq!(
        choice.on_event(event(2, &[6, 7]), &mut out),
        Progress::DoneEarly
    );
    assert_eq!((text(&out).as_str(), tokens(&out)), ("a", vec![1, 5, 6]));
    assert_eq!(
        finish(&out),
        stopped_by(Some(StopReason::Text("END".into())))
    );
    assert_eq!(choice.num_tokens(), 3);
}

#[test]
fn a_stop_string_can_be_included() {
    let (mut choice, mut out) = (choice(&["nowhere", "END"], true, 0), VecDeque::new());
    let progress = choice.on_event(event(0, &[1, 5, 6, 7]), &mut out);
    assert_eq!(progress, Progress::DoneEarly);
    assert_eq!(text(&out), "aEND");
    assert_eq!(
        finish(&out),
        stopped_by(Some(StopReason::Text("END".into())))
    );
}

#[test]
fn a_stop_string_that_the_last_token_completes_is_the_reason() {
    let (mut choice, mut out) = (choice(&["END"], false, 0), VecDeque::new());
    let last = with_finish(event(0, &[1, 4]), EngineFinish::Length);
    let progress = choice.on_event(last, &mut out);
    assert_eq!(progress, Progress::Done(FinishReason::Stop));
    assert_eq!(text(&out), "a");
    assert_eq!(
        finish(&out),
        stopped_by(Some(StopReason::Text("END".into())))
    );
}

#[test]
fn what_was_held_back_comes_at_the_end() {
    let (mut choice, mut out) = (choice(&["END"], false, 0), VecDeque::new());
    choice.on_event(event(0, &[1, 5]), &mut out);
    choice.on_event(with_finish(event(2, &[]), EngineFinish::Deadline), &mut out);
    assert_eq!((text(&out).as_str(), tokens(&out)), ("aE", vec![1, 5]));
    assert_eq!(finish(&out).map(|f| f.reason), Some(FinishReason::Abort));
}

#[test]
fn text_within_min_tokens_does_not_stop() {
    let (mut choice, mut out) = (choice(&["END"], false, 2), VecDeque::new());
    let progress = choice.on_event(event(0, &[4, 4]), &mut out);
    assert_eq!(progress, Progress::Open);
    assert_eq!(
        choice.on_event(event(2, &[4]), &mut out),
        Progress::DoneEarly
    );
    assert_eq!(text(&out), "ENDEND");
}

#[test]
fn a_failure_is_no_delta() {
    let (mut choice, mut out) = (choice(&[], false, 0), VecDeque::new());
    let failed = EngineFinish::Failed(RowError::InvalidLogits { position: 4 });
    let progress = choice.on_event(with_finish(event(0, &[]), failed), &mut out);
    assert!(matches!(progress, Progress::Failed(message) if message.contains("position 4")));
    assert!(out.is_empty());
}

#[test]
fn a_lost_token_is_an_error_and_a_repeated_one_is_dropped() {
    let (mut choice, mut out) = (choice(&[], false, 0), VecDeque::new());
    choice.on_event(event(0, &[1, 2]), &mut out);
    choice.on_event(event(1, &[2, 3]), &mut out);
    assert_eq!((text(&out).as_str(), tokens(&out)), ("abc", vec![1, 2, 3]));
    let progress = choice.on_event(event(4, &[1]), &mut out);
    assert_eq!(progress, Progress::Failed("tokens 3 to 4 were lost".into()));
    assert_eq!(tokens(&out), [1, 2, 3]);
}

#[test]
fn what_belongs_to_the_start_is_in_the_first_delta() {
    let (mut choice, mut out) = (choice(&[], false, 0), VecDeque::new());
    let mut early = event(0, &[]);
    let logprobs = TokenLogprobs {
        token: 1,
        logprob: -1.0,
        rank: 1,
        top: Vec::new(),
    };
    early.prompt = Some(Box::new(PromptReport {
        num_cached_tokens: 16,
        queued_ms: None,
        prompt_logprobs: vec![logprobs],
    }));
    choice.on_event(early, &mut out);
    assert!(out.is_empty(), "there is nothing to say yet");
    let first = event(0, &[1, 2]);
    choice.on_event(first, &mut out);
    assert_eq!(out[0].num_cached_tokens, Some(16));
    assert_eq!(out[0].prompt_logprobs.len(), 1);
    assert_eq!(out[1].num_cached_tokens, None);
    assert!(out[1].prompt_logprobs.is_empty());
}

#[test]
fn without_a_tokenizer_there_are_only_ids() {
    let (mut choice, mut out) = (Choice::new(0, None, false, 0), VecDeque::new());
    choice.on_event(
        with_finish(event(0, &[7, 8]), EngineFinish::Length),
        &mut out,
    );
    assert_eq!((text(&out).as_str(), tokens(&out)), ("", vec![7, 8]));
    assert!(finish(&out).is_some());
}

proptest! {
    /// However events group the tokens, and wherever a resumed attempt repeats some, the deltas
    /// are the same.
    #[test]
    fn deltas_are_a_function_of_the_tokens(
        ids in prop::collection::vec(1u32..9, 1..24),
        cuts in prop::collection::vec((0usize..24, 0usize..4), 0..8),
    ) {
        let whole = {
            let (mut choice, mut out) = (choice(&["END", "xy"], false, 1), VecDeque::new());
            choice.on_event(with_finish(event(0, &ids), EngineFinish::Length), &mut out);
            out
        };
        let (mut choice, mut out) = (choice(&["END", "xy"], false, 1), VecDeque::new());
        let mut at = 0;
        let mut progress = Progress::Open;
        for (cut, num_repeated) in cuts {
            let end = (at + cut).min(ids.len() - 1);
            let start = at - num_repeated.min(at);
            if progress == Progress::Open {
                let part = &ids[start..end.max(start)];
                progress = choice.on_event(event(start as u32, part), &mut out);
            }
            at = end.max(at);
        }
        if progress == Progress::Open {
            let rest = with_finish(event(at as u32, &ids[at..]), EngineFinish::Length);
            choice.on_event(rest, &mut out);
        }
        prop_assert_eq!(out, whole);
    }
}
