//! Which engine dies when, so that each request of a table is cut where it is to be.
//!
//! The requests are sent one after the other, and every engine but the last dies once. Tokens are
//! counted from a request's own sequences on, so what an engine did before does not matter.
//!
//! Invariant: the cut of the i-th request is the end of the i-th engine.

use hotspare_testkit::RequestRow;

/// The engine dies before, after or in the middle of the frame of a token, counted from 1 over the
/// request's choices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) kind: &'static str,
    pub(crate) token: u64,
}

const KINDS: [&str; 3] = [
    "die-before-token",
    "die-after-token",
    "die-in-frame-of-token",
];

/// A row and where it is cut.
#[derive(Clone, Debug)]
pub(crate) struct CutRow<'a> {
    pub(crate) row: &'a RequestRow,
    pub(crate) index: usize,
    pub(crate) cut: Cut,
}

/// `num_cuts` places for each row, of `num_tokens` tokens each; all of them where that is `None`.
pub(crate) fn cuts<'a>(
    rows: &'a [RequestRow],
    num_tokens: &[u64],
    num_cuts: Option<u64>,
) -> Vec<CutRow<'a>> {
    let mut all = Vec::new();
    for (index, (row, &num)) in rows.iter().zip(num_tokens).enumerate() {
        let places: Vec<u64> = match num_cuts {
            None => (1..=num).collect(),
            // Any spread will do, as long as it is the same each time.
            Some(num_cuts) => (0..num_cuts)
                .map(|i| 1 + (index as u64 * 7 + i * 3 + num * i / num_cuts) % num)
                .collect(),
        };
        for token in places {
            let kind = KINDS[all.len() % KINDS.len()];
            let cut = Cut { kind, token };
            all.push(CutRow { row, index, cut });
        }
    }
    all
}

/// What `HOTSPARE_FAULTS` says for these requests, sent in this order to a new server.
pub(crate) fn faults(cuts: &[CutRow<'_>]) -> String {
    let mut first_request_id = 0;
    let mut groups = Vec::new();
    for (life, CutRow { row, cut, .. }) in cuts.iter().enumerate() {
        let Cut { kind, token } = cut;
        groups.push(format!(
            "engine={life},{kind}={token},from-request={first_request_id}"
        ));
        first_request_id += row.num_sequences;
    }
    groups.join(";")
}
