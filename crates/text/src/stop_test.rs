//! Stop strings against a naive search over the whole text.

use proptest::prelude::*;

use super::*;

fn stops(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// Feeds the pieces; returns the text let through (with the flush) and the stop string that
/// matched.
fn run(list: &[String], include: bool, pieces: &[String]) -> (String, Option<usize>) {
    let mut buffer = StopBuffer::new(list, include);
    let mut text = String::new();
    for piece in pieces {
        let emission = buffer.push(piece);
        text.push_str(&emission.text);
        if emission.matched.is_some() {
            return (text, emission.matched);
        }
    }
    text.push_str(&buffer.finish());
    (text, None)
}

/// The rule of the module's head, by searching everything again after each piece.
fn naive(list: &[String], include: bool, pieces: &[String]) -> (String, Option<usize>) {
    let mut text = String::new();
    for piece in pieces {
        text.push_str(piece);
        let found = list
            .iter()
            .enumerate()
            .filter_map(|(i, s)| text.find(s.as_str()).map(|at| (at, i)));
        if let Some((at, index)) = found.min() {
            let end = if include { at + list[index].len() } else { at };
            text.truncate(end);
            return (text, Some(index));
        }
    }
    (text, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn equals_naive_search(
        list in prop::collection::vec("[abé]{1,4}", 1..4),
        pieces in prop::collection::vec("[abcé]{0,4}", 0..12),
        include in any::<bool>(),
    ) {
        prop_assert_eq!(run(&list, include, &pieces), naive(&list, include, &pieces));
    }

    #[test]
    fn holds_back_no_more_and_no_less_than_a_start(
        list in prop::collection::vec("[ab]{1,5}", 1..4),
        pieces in prop::collection::vec("[abc]{0,3}", 0..12),
    ) {
        let mut buffer = StopBuffer::new(&list, false);
        let mut emitted = String::new();
        let mut all = String::new();
        for piece in &pieces {
            all.push_str(piece);
            let emission = buffer.push(piece);
            emitted.push_str(&emission.text);
            if emission.matched.is_some() {
                break;
            }
            let hold = (0..=all.len())
                .find(|&at| at == all.len() || list.iter().any(|s| s.starts_with(&all[at..])))
                .map_or(0, |at| all.len() - at);
            prop_assert_eq!(emitted.len(), all.len() - hold);
        }
    }

    #[test]
    fn one_character_at_a_time_needs_no_luck(
        stop in "[abé]{1,4}", text in "[abcé]{0,24}",
    ) {
        let list = vec![stop.clone()];
        let pieces: Vec<String> = text.chars().map(String::from).collect();
        let want = text.split(stop.as_str()).next().unwrap_or_default().to_owned();
        prop_assert_eq!(run(&list, false, &pieces).0, want);
    }
}

#[test]
fn the_earliest_wins_then_the_first_listed() {
    let pieces = stops(&["x\n\nUser:"]);
    assert_eq!(
        run(&stops(&["User:", "\n"]), false, &pieces),
        ("x".into(), Some(1))
    );
    assert_eq!(
        run(&stops(&["\n\n", "\n"]), true, &pieces),
        ("x\n\n".into(), Some(0))
    );
    assert_eq!(
        run(&stops(&["\n", "\n\n"]), true, &pieces),
        ("x\n".into(), Some(0))
    );
}

#[test]
fn holds_back_across_tokens_and_flushes_at_the_end() {
    let mut buffer = StopBuffer::new(&stops(&["</s>"]), false);
    assert_eq!(buffer.push("Hi <").text, "Hi ");
    assert_eq!(buffer.push("/").text, "");
    assert_eq!(buffer.push("p>").text, "</p>");
    assert_eq!(buffer.push(" </").text, " ");
    assert_eq!(buffer.finish(), "</");
}

#[test]
fn an_included_stop_holds_nothing_back() {
    let mut buffer = StopBuffer::new(&stops(&["END"]), true);
    assert_eq!(buffer.push("a E").text, "a E");
    let emission = buffer.push("ND tail");
    assert_eq!((emission.text.as_str(), emission.matched), ("ND", Some(0)));
    assert_eq!(buffer.push("more"), StopEmission::default());
    assert_eq!(buffer.finish(), "");
}

#[test]
fn text_within_min_tokens_does_not_stop() {
    let mut buffer = StopBuffer::new(&stops(&["ab"]), false);
    assert_eq!(buffer.push_without_stop("ab xa"), "ab x");
    let emission = buffer.push("b!");
    assert_eq!((emission.text.as_str(), emission.matched), ("", Some(0)));
    assert!(buffer.is_matched());
}

#[test]
fn a_long_periodic_stop_string_costs_linear_time() {
    let list = stops(&[&"a".repeat(50_000)]);
    let mut buffer = StopBuffer::new(&list, false);
    let mut emitted = 0;
    for _ in 0..40 {
        emitted += buffer.push(&"a".repeat(1_000)).text.len();
        emitted += buffer.push("b").text.len();
    }
    assert_eq!(emitted, 40 * 1_001);
    assert_eq!(buffer.push("").matched, None);
}

#[test]
fn clones_share_their_tables() {
    let list = stops(&["abc", "b"]);
    let buffer = StopBuffer::new(&list, false);
    let mut clone = buffer.clone();
    clone.push("ab");
    assert!(clone.shares_tables_with(&buffer));
    assert!(!StopBuffer::new(&list, false).shares_tables_with(&buffer));
    assert!(!StopBuffer::new(&list[..1], false).shares_tables_with(&buffer));
}
