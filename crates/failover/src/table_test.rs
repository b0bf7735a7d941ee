//! The table as a whole: every role can be reached and left, and the documentation shows it.

use crate::table::TABLE;
use crate::{Cause, Role, mermaid, timers_table};

#[test]
fn every_role_is_reached_and_left() {
    for role in Role::ALL {
        assert!(
            TABLE.iter().any(|row| row.from.contains(&role)),
            "{role} is never left"
        );
        let reached = TABLE.iter().any(|row| row.to == role) || role == Role::Starting;
        assert!(reached, "{role} is never reached");
    }
}

#[test]
fn no_row_stays_in_its_role_and_none_is_hidden() {
    for (index, row) in TABLE.iter().enumerate() {
        assert!(!row.from.contains(&row.to), "{:?}", row.cause);
        for earlier in &TABLE[..index] {
            let hides = row.from.iter().all(|role| earlier.from.contains(role))
                && earlier
                    .when
                    .iter()
                    .all(|condition| row.when.contains(condition))
                && earlier
                    .unless
                    .iter()
                    .all(|condition| row.unless.contains(condition));
            assert!(
                !hides,
                "{:?} never happens, for {:?}",
                row.cause, earlier.cause
            );
        }
    }
}

#[test]
fn only_a_promotion_or_the_end_of_a_fence_begins_to_serve() {
    for row in TABLE.iter().filter(|row| row.to.serves()) {
        let from_inside = row.from.iter().all(|role| role.claims());
        let known = matches!(
            row.cause,
            Cause::Promoted | Cause::LeaseRenewed | Cause::FailsafePromise | Cause::PeerYields
        );
        assert!(from_inside || known, "{:?}", row.cause);
    }
}

/// The text between the markers `<!-- name -->` and `<!-- end -->`.
fn shown(document: &str, name: &str) -> String {
    let begin = document
        .find(&format!("<!-- {name} -->"))
        .expect("the marker is there");
    let rest = &document[begin..];
    let rest = &rest[rest.find('\n').expect("a line end") + 1..];
    rest[..rest.find("<!-- end -->").expect("the end marker is there")].to_owned()
}

#[test]
fn the_documentation_shows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FAILOVER.md");
    let document = std::fs::read_to_string(path).expect("docs/FAILOVER.md is there");
    let diagram = format!("```mermaid\n{}```\n", mermaid());
    assert_eq!(
        shown(&document, "diagram"),
        diagram,
        "`cargo xtask diagram` writes it"
    );
    assert_eq!(
        shown(&document, "timers"),
        timers_table(),
        "`cargo xtask diagram` writes it"
    );
}
