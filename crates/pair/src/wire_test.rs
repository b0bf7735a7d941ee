//! Frames and datagrams: what comes through, and what does not.

use hotspare_failover::{BootTime, Epoch, Role, Verdict};
use proptest::prelude::*;

use super::*;

fn keys(bytes: &[u8]) -> PairKeys {
    let keys: Vec<[u8; 32]> = bytes.iter().map(|&byte| [byte; 32]).collect();
    PairKeys::new(&keys).expect("keys")
}

fn message(num_gates: usize) -> WireHeartbeat {
    let gates: Vec<Gate> = (0..num_gates)
        .map(|number| {
            Gate::new(
                &format!("gate-{number}"),
                Verdict::Block,
                &"why ".repeat(99),
            )
        })
        .collect();
    WireHeartbeat {
        node: "a".repeat(64),
        heartbeat: Heartbeat {
            sent_at: BootTime::MAX,
            ..Heartbeat::plain(1, (u64::MAX, u64::MAX), Role::Primary, Epoch::new(u64::MAX))
        },
        facts: PeerFacts {
            model: "m".repeat(500),
            model_hash: "h".repeat(500),
            numerics_id: "n".repeat(500),
            config_hash: "c".repeat(500),
            http_address: "é".repeat(500),
            ..PeerFacts::default()
        }
        .bounded(),
        gates: telling_gates(&gates),
    }
}

#[test]
fn a_full_heartbeat_fits_into_a_datagram() {
    let sent = message(9);
    assert_eq!(sent.gates.len(), 4);
    assert!(sent.facts.http_address.len() <= 96);
    let bytes = datagram(&keys(&[1]), &sent, 1_400).expect("it fits");
    assert_eq!(open_datagram(&keys(&[1]), &bytes), Some(sent.clone()));
    // Less room: what is less important is left out, and the heartbeat itself never.
    let short = datagram(&keys(&[1]), &sent, 300).expect("it fits");
    let short = open_datagram(&keys(&[1]), &short).expect("it opens");
    assert_eq!(short.heartbeat, sent.heartbeat);
    assert!(short.gates.is_empty() && short.facts.model.is_empty());
    assert!(datagram(&keys(&[1]), &sent, 80).is_none());
}

#[test]
fn datagrams_need_a_key_of_the_pair() {
    let bytes = datagram(&keys(&[1]), &message(0), 1_400).expect("it fits");
    assert!(open_datagram(&keys(&[2]), &bytes).is_none());
    assert!(
        open_datagram(&keys(&[2, 1]), &bytes).is_some(),
        "while keys rotate"
    );
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        assert!(open_datagram(&keys(&[1]), &forged).is_none(), "byte {at}");
        assert!(open_datagram(&keys(&[1]), &bytes[..at]).is_none());
    }
}

#[tokio::test]
async fn frames_are_bounded_before_they_are_read() {
    let mut bytes = Vec::new();
    let frame = Frame::Heartbeat(Box::new(message(2)));
    write_frame(&mut bytes, &frame).await.expect("written");
    write_frame(&mut bytes, &Frame::Farewell)
        .await
        .expect("written");
    let mut reader = bytes.as_slice();
    assert_eq!(read_frame(&mut reader, 4096).await.expect("read"), frame);
    let farewell = read_frame(&mut reader, 4096).await.expect("read");
    assert_eq!(farewell, Frame::Farewell);
    let error = read_frame(&mut bytes.as_slice(), 64).await;
    assert!(error.is_err(), "longer than allowed");
    let huge = u32::MAX.to_be_bytes();
    let error = read_frame(&mut huge.as_slice(), 4096)
        .await
        .expect_err("huge");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

proptest! {
    #[test]
    fn any_bytes_are_no_datagram_and_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(open_datagram(&keys(&[1]), &bytes).is_none());
        let _frame: Result<Frame, _> = postcard::from_bytes(&bytes);
    }
}
