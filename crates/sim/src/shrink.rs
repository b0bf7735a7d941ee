//! Cuts a failing schedule down: drops faults, then shortens them, as long as it still fails.
//!
//! Invariant: what comes out violates the same invariant as what went in.

use crate::plan::Plan;
use crate::run::run;

/// The smallest schedule found that violates the same invariant as `plan`.
#[must_use]
pub fn shrink(plan: &Plan) -> Plan {
    let Some(violation) = run(plan).violation else {
        return plan.clone();
    };
    let fails = |candidate: &Plan| {
        run(candidate)
            .violation
            .is_some_and(|found| found.invariant == violation.invariant)
    };
    let mut best = plan.clone();
    best.end_ms = best.end_ms.max(violation.at_ms);
    loop {
        let before = best.faults.clone();
        for index in (0..best.faults.len()).rev() {
            let mut candidate = best.clone();
            candidate.faults.remove(index);
            if fails(&candidate) {
                best = candidate;
            }
        }
        for index in 0..best.faults.len() {
            let mut candidate = best.clone();
            candidate.faults[index].for_ms /= 2;
            if fails(&candidate) {
                best = candidate;
            }
        }
        let mut candidate = best.clone();
        (candidate.loss_permille, candidate.duplicate_permille) = (0, 0);
        if candidate.loss_permille != best.loss_permille && fails(&candidate) {
            best = candidate;
        }
        if best.faults == before {
            return best;
        }
    }
}
