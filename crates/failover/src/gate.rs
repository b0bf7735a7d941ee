//! Eligibility gates: named checks that say whether a node may take over, and why not.
//!
//! The driver evaluates them (model hash, canary, journal lag, reachability of references, …) and
//! hands the whole list in when a verdict changes; the machine knows no gate by name.
//!
//! Invariant: an empty list means that nothing was checked yet, and nobody is eligible on that.

use serde::{Deserialize, Serialize};

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// In order.
    Pass,
    /// Worth telling; does not bar a promotion.
    Warn,
    /// The node could serve, but not what is expected of it (another model or configuration): it
    /// is promoted only over a dead peer, with `availability_first`, and says so.
    Degraded,
    /// The node must not serve.
    Block,
}

/// One gate's result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gate {
    /// Its name in settings and status, such as `model` or `canary`.
    pub name: String,
    /// What it says.
    pub verdict: Verdict,
    /// Why, in words for an operator; empty when it passes.
    pub reason: String,
}

impl Gate {
    /// A gate that passes.
    #[must_use]
    pub fn pass(name: &str) -> Self {
        Self::new(name, Verdict::Pass, "")
    }

    /// A gate with any verdict.
    #[must_use]
    pub fn new(name: &str, verdict: Verdict, reason: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict,
            reason: reason.to_owned(),
        }
    }
}

/// What the gates of a node say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Eligibility {
    /// It may be promoted.
    Eligible,
    /// It may be promoted only where a degraded answer is better than none.
    Degraded,
    /// It must not be promoted.
    Ineligible,
}

/// The worst verdict of `gates`, as eligibility.
#[must_use]
pub fn eligibility(gates: &[Gate]) -> Eligibility {
    match gates.iter().map(|gate| gate.verdict).max() {
        None | Some(Verdict::Block) => Eligibility::Ineligible,
        Some(Verdict::Degraded) => Eligibility::Degraded,
        Some(Verdict::Pass | Verdict::Warn) => Eligibility::Eligible,
    }
}

/// The health of what a node would serve with, as the health policy sums it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// In order.
    Ok,
    /// Serves, worse than it should.
    Degraded,
    /// Does not serve as it should; may pass.
    Unready,
    /// Its engine is gone or will not come back.
    Fatal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_gate_decides() {
        let gate = |verdict| Gate::new("g", verdict, "why");
        assert_eq!(eligibility(&[]), Eligibility::Ineligible);
        assert_eq!(
            eligibility(&[gate(Verdict::Warn), Gate::pass("h")]),
            Eligibility::Eligible
        );
        assert_eq!(
            eligibility(&[gate(Verdict::Degraded), gate(Verdict::Warn)]),
            Eligibility::Degraded
        );
        assert_eq!(
            eligibility(&[gate(Verdict::Degraded), gate(Verdict::Block)]),
            Eligibility::Ineligible
        );
    }
}
