//! Nodes without the same key never meet, and strangers learn and change nothing.

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use hotspare_failover::Mode;
use hotspare_pair::PairKeys;

use crate::nodes::{Node, Places, protected_pair};

#[tokio::test(flavor = "multi_thread")]
async fn another_key_never_connects() {
    let places = Places::new();
    let a = places.start(0, Mode::Manual).await;
    let mut config = places.config(1, Mode::Manual);
    config.keys = PairKeys::new(&[[8; 32]]).expect("a key");
    let b = Node::start(config, &places.of[1], None).await;
    for node in [&a, &b] {
        for _ in 0..10_000 {
            if node.pair.view().counters.num_unauthenticated >= 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let view = node.pair.view();
        assert!(view.counters.num_unauthenticated >= 5, "{view:#?}");
        assert_eq!((view.num_links, &view.peer), (0, &None));
        assert!(node.pair.connect().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_way() {
    let places = Places::new();
    let keys = |bytes: &[u8]| {
        let keys: Vec<[u8; 32]> = bytes.iter().map(|&byte| [byte; 32]).collect();
        PairKeys::new(&keys).expect("keys")
    };
    let mut nodes = Vec::new();
    for (index, bytes) in [[7, 8].as_slice(), &[8, 7]].into_iter().enumerate() {
        let mut config = places.config(index, Mode::Available);
        config.keys = keys(bytes);
        nodes.push(Node::start(config, &places.of[index], None).await);
    }
    nodes[0].wait_role(&["primary"]).await;
    nodes[1].wait_role(&["standby"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_of_strangers_changes_nothing() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for number in 0..200_u8 {
        let bytes = [number; 200];
        socket.send_to(&bytes, places.of[0].pair).expect("sent");
        let mut stream = TcpStream::connect(places.of[0].pair).expect("connected");
        // It may be closed already.
        let _closed = stream.write_all(&bytes);
    }
    a.wait("strangers", |_| true).await;
    for _ in 0..10_000 {
        if a.pair.view().counters.num_unauthenticated >= 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let view = a.wait_role(&["primary"]).await;
    let counters = a.pair.view().counters;
    assert!(counters.num_unauthenticated + counters.num_refused_handshakes >= 200);
    assert_eq!(view.peer.as_ref().map(|p| p.node.as_str()), Some("b"));
    b.wait_role(&["standby"]).await;
}
