//! A front without an engine: it uses the engines of both nodes of a pair, and keeps the record of
//! every request itself.
//!
//! New requests go to the node that serves, which admits them; a stream whose node is lost goes on
//! at the other one's engine, as on any front.
//!
//! Invariant: it admits nothing by itself, and nothing goes to a node that is configured otherwise.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::front::Shared;
use crate::peer_link::PeerLink;
use crate::slot::{EngineSlot, Order};
use crate::{EngineState, FrontError, PairSetup, Pairing};

/// In the place of the supervisor of engines: ends when the front is told to.
pub(crate) async fn until_stopped(slot: Arc<EngineSlot>) -> Result<(), FrontError> {
    let mut orders = slot.orders();
    // Without a sender the front is gone.
    let _ = orders.wait_for(|order| *order >= Order::Drain).await;
    slot.set_absent(EngineState::Stopped);
    Ok(())
}

/// What runs beside it.
pub(crate) fn tasks(shared: &Arc<Shared>, setup: &PairSetup) -> Vec<JoinHandle<()>> {
    let pairing = &setup.pairing;
    let link = |number| PeerLink::new(Arc::clone(shared), Arc::clone(pairing), number);
    let links = (0..pairing.num_peers()).map(|number| tokio::spawn(link(number).run()));
    let follow = tokio::spawn(follow(Arc::clone(shared), Arc::clone(pairing)));
    links.chain([follow]).collect()
}

/// Keeps the node that serves the first choice.
async fn follow(shared: Arc<Shared>, pairing: Arc<dyn Pairing>) {
    let mut views = pairing.subscribe();
    let mut known = usize::MAX;
    loop {
        views.borrow_and_update();
        let serving = pairing.serving_peer();
        if serving != known {
            known = serving;
            shared.slot.set_serving_peer(serving);
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Why the node that serves is not one for this front; `None`: it is.
pub(crate) fn unlike(shared: &Shared, pairing: &Arc<dyn Pairing>) -> Option<String> {
    let view = pairing.view();
    let theirs = &view.peer.as_ref()?.facts.config_hash;
    let ours = &shared.models.current().config_hash;
    (!theirs.is_empty() && theirs != ours).then(|| {
        format!(
            "the node that serves is configured otherwise than this front: {theirs} there, {ours} \
             here"
        )
    })
}
