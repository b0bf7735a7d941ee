//! Metrics of the node in its pair: its role, what it hears of its peer, what it does for it, and
//! what is alive in its runtimes.
//!
//! Read at each scrape from what they describe. A node alone has a role, an epoch and tasks, and
//! nothing of a peer.
//!
//! Invariant: exactly one role has the value 1; what is not known is not exposed.

use std::fmt;
use std::sync::atomic::Ordering;

use hotspare_failover::Role;
use hotspare_pair::PairView;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::Front;
use crate::engine_metrics::Exposition;
use crate::metrics::labels;

/// Appends this node's metrics, and the end of the text.
pub(crate) fn append(front: &Front, text: &mut String) {
    let mut registry = Registry::default();
    let scope = registry.sub_registry_with_labels(labels(front.model().served.name()));
    scope.register_collector(Box::new(PairMetrics(front.clone())));
    encode_registry(text, &registry)
        .and_then(|()| encode_eof(text))
        .expect("writing to a string cannot fail");
}

/// See the module.
struct PairMetrics(Front);

impl fmt::Debug for PairMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairMetrics")
    }
}

impl Collector for PairMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Exposition { encoder };
        let front = &self.0;
        let role = front.role();
        out.by_label(
            (
                "hotspare:role",
                "1 for the role that the node has",
                MetricType::Gauge,
            ),
            "role",
            &Role::ALL.map(|each| (each.name(), u64::from(each == role))),
        )?;
        out.gauge(
            "hotspare:epoch",
            "The epoch in which the node serves, or the highest known to have served",
            front.epoch() as f64,
        )?;
        let view = front.pairing().map(|pairing| pairing.view());
        let handle = tokio::runtime::Handle::try_current();
        let num_tasks = handle.map_or(0, |handle| handle.metrics().num_alive_tasks());
        let mut tasks = vec![("front", num_tasks as u64)];
        tasks.extend(view.as_ref().map(|view| ("pair", view.num_tasks as u64)));
        out.by_label(
            (
                "hotspare:runtime_tasks",
                "Tasks that have not ended, by the runtime that they are in",
                MetricType::Gauge,
            ),
            "runtime",
            &tasks,
        )?;
        match view {
            Some(view) => encode_pair(&mut out, front, &view),
            None => Ok(()),
        }
    }
}

fn encode_pair(out: &mut Exposition<'_>, front: &Front, view: &PairView) -> fmt::Result {
    if let Some(silence) = front.pairing().and_then(|pairing| pairing.peer_silence()) {
        out.gauge(
            "hotspare:peer_heartbeat_age_seconds",
            "Time since the peer was heard",
            silence.as_secs_f64(),
        )?;
    }
    out.gauge(
        "hotspare:peer_links",
        "Links to the peer that are open",
        view.num_links as f64,
    )?;
    let counters = &view.counters;
    for (name, help, value) in [
        (
            "hotspare:promotions",
            "How often this node began to serve",
            counters.num_promotions,
        ),
        (
            "hotspare:handovers",
            "How often the peer took over what this node served, because it was asked to",
            counters.num_handovers,
        ),
        (
            "hotspare:fencings",
            "How often this node stopped serving by itself",
            counters.num_fencings,
        ),
        (
            "hotspare:peer_links_lost",
            "Links to the peer that closed without a farewell",
            counters.num_links_lost,
        ),
        (
            "hotspare:pair_lost_records",
            "Audit and history records that were lost",
            counters.num_lost_records,
        ),
        (
            "hotspare:pair_hook_failures",
            "Attempts of hooks that failed",
            counters.num_hook_failures,
        ),
    ] {
        out.counter(name, help, value)?;
    }
    encode_work(out, front)
}

/// What the nodes do for each other.
fn encode_work(out: &mut Exposition<'_>, front: &Front) -> fmt::Result {
    let shared = &front.shared;
    out.gauge(
        "hotspare:num_requests_held",
        "New requests that wait until a node of the pair serves",
        shared.num_held.load(Ordering::SeqCst) as f64,
    )?;
    let num_on_peer = shared.slot.num_on_peer();
    out.gauge(
        "hotspare:peer_engine_reachable",
        "1 while the peer's engine can be used",
        f64::from(u8::from(num_on_peer.is_some())),
    )?;
    out.gauge(
        "hotspare:num_sequences_on_peer",
        "Sequences of this node's clients that run on the peer's engine",
        num_on_peer.unwrap_or(0) as f64,
    )?;
    out.gauge(
        "hotspare:num_sequences_for_peer",
        "Sequences of the peer's clients that run on this node's engines",
        shared.slot.num_relayed() as f64,
    )?;
    let Some(reader) = shared.readers.reader() else {
        return Ok(());
    };
    let num_unread = crate::shadow::num_unread(&shared.trails, reader.client.hello());
    out.gauge(
        "hotspare:shadow_unread_tokens",
        "Tokens of running sequences that the engine which would take them over has not read",
        num_unread as f64,
    )
}

#[cfg(test)]
mod tests {
    use crate::testing_pair::{Node, pair, quick};
    use crate::testing_streams::labelled;

    fn value(node: &Node, name: &str) -> Option<f64> {
        let text = node.front().metrics_text();
        assert!(text.ends_with("# EOF\n"), "one end: {text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        let is_it = |line: &&str| line.split('{').next() == Some(name);
        let line = text.lines().find(is_it)?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_tells_of_its_role_and_of_its_peer() {
        let [a, b] = pair(&quick(), [""; 2], |a, b| {
            a.serve(4);
            b.stand_by(Some(4));
        });
        for node in [&a, &b] {
            node.ready().await;
            assert_eq!(value(node, "hotspare:epoch"), Some(4.0));
            assert_eq!(value(node, "hotspare:peer_engine_reachable"), Some(1.0));
            assert_eq!(value(node, "hotspare:num_requests_held"), Some(0.0));
            assert_eq!(value(node, "hotspare:promotions_total"), Some(0.0));
            assert_eq!(
                value(node, "hotspare:peer_heartbeat_age_seconds"),
                Some(0.0)
            );
        }
        let role = |node: &Node, role: &str| {
            labelled(node.front(), "hotspare:role", &format!("role=\"{role}\""))
        };
        assert_eq!((role(&a, "primary"), role(&a, "standby")), (1.0, 0.0));
        assert_eq!((role(&b, "primary"), role(&b, "standby")), (0.0, 1.0));
        let tasks = labelled(a.front(), "hotspare:runtime_tasks", "runtime=\"front\"");
        assert!(tasks > 4.0, "{tasks}");
    }
}
