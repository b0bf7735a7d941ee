//! The picture that a front without an engine has of its pair: who serves, and in which epoch.
//!
//! Invariant: a function of what was heard and of the time; a node that is silent or whose links
//! are gone serves nobody.

use hotspare_failover::{Admission, BootTime, Epoch, Mode, Role};

use crate::onlooker::{SeenNode, SeenNodes};
use crate::view::PairView;

/// The node that serves, with its rank: of two that say so, the one of the higher epoch.
pub(crate) fn serving(
    seen: &SeenNodes,
    now: BootTime,
    dead_after_ms: u64,
) -> Option<(u32, &SeenNode)> {
    let is_there = |node: &SeenNode| {
        let silent_ms = now.ms_since(node.view.last_heard);
        node.num_links > 0 && silent_ms < dead_after_ms && node.view.role.serves()
    };
    let all = seen.iter().map(|(rank, node)| (*rank, node));
    all.filter(|(_, node)| is_there(node))
        .max_by_key(|(_, node)| node.view.epoch)
}

/// See the module.
pub(crate) fn picture(
    name: &str,
    since: BootTime,
    seen: &SeenNodes,
    now: BootTime,
    dead_after_ms: u64,
) -> PairView {
    let serving = serving(seen, now, dead_after_ms).map(|(_, node)| node);
    // Where nobody serves: who served last.
    let last = || {
        seen.values()
            .max_by_key(|node| (node.view.epoch, node.view.last_heard))
    };
    let peer = serving.or_else(last).map(|node| node.view.clone());
    let highest = seen.values().map(|node| node.seen).max();
    let highest = highest.unwrap_or(Epoch::NONE);
    let admission = match serving {
        Some(node) => Admission::ToPeer {
            epoch: node.view.epoch,
        },
        None => Admission::Hold,
    };
    PairView {
        role: Role::Front,
        since,
        epoch: serving.map_or(highest, |node| node.view.epoch),
        seen: highest,
        admission,
        peer,
        num_links: seen.values().map(|node| node.num_links).sum(),
        ..PairView::starting(name, Mode::Available)
    }
}

#[cfg(test)]
mod tests {
    use hotspare_failover::{Eligibility, Health};

    use super::*;
    use crate::view::{PeerFacts, PeerView};

    fn node(role: Role, epoch: u64, heard: u64, num_links: usize) -> SeenNode {
        SeenNode {
            view: PeerView {
                node: format!("of {epoch}"),
                boot: 1,
                role,
                epoch: Epoch::new(epoch),
                eligibility: Eligibility::Eligible,
                health: Health::Ok,
                leaving: false,
                gates: Vec::new(),
                facts: PeerFacts::default(),
                last_heard: BootTime::from_ms(heard),
            },
            seen: Epoch::new(epoch),
            num_links,
        }
    }

    fn seen_by(a: SeenNode, b: SeenNode) -> PairView {
        let seen = SeenNodes::from([(0, a), (1, b)]);
        let now = BootTime::from_ms(10_000);
        picture("f", BootTime::ZERO, &seen, now, 3_000)
    }

    #[test]
    fn requests_go_to_who_serves_and_is_there() {
        let to = |epoch| Admission::ToPeer {
            epoch: Epoch::new(epoch),
        };
        let standby = || node(Role::Standby, 4, 9_900, 1);
        let primary = |heard, links| node(Role::Primary, 4, heard, links);
        assert_eq!(seen_by(primary(9_900, 1), standby()).admission, to(4));
        // Silent, cut off, handing over.
        for gone in [
            primary(6_900, 1),
            primary(9_900, 0),
            node(Role::Draining, 4, 9_900, 1),
        ] {
            let view = seen_by(gone, standby());
            assert_eq!(view.admission, Admission::Hold);
            assert_eq!((view.role, view.epoch), (Role::Front, Epoch::new(4)));
        }
        // While a cut pair has two, the one that stays.
        let view = seen_by(primary(9_900, 1), node(Role::PrimarySolo, 5, 9_000, 1));
        assert_eq!(view.admission, to(5));
        assert_eq!(view.peer.map(|peer| peer.node), Some("of 5".to_owned()));
        let nobody = picture("f", BootTime::ZERO, &SeenNodes::new(), BootTime::ZERO, 1);
        assert_eq!((nobody.admission, nobody.peer), (Admission::Hold, None));
    }
}
