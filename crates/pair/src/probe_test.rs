//! Probes against ports that refuse, answer, accept and say nothing, and talk nonsense.

use tokio::net::TcpListener;

use super::*;
use crate::PairKeys;

const TIMEOUT_MS: u64 = 300;

fn hello() -> Hello {
    Hello {
        node: "a".to_owned(),
        rank: 1,
        boot: 7,
        purpose: Purpose::Control,
    }
}

fn keys(byte: u8) -> Credentials {
    Credentials {
        keys: PairKeys::new(&[[byte; 32]]).expect("a key"),
        tls: None,
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

async fn probe(target: ProbeTarget) -> PortAnswer {
    port(&target, &keys(1), &hello(), TIMEOUT_MS).await
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, address) = listener().await;
    drop(listener);
    let targets = [
        ProbeTarget::Pair(address.clone()),
        ProbeTarget::Http(address),
    ];
    let ports = both(targets, keys(1), hello(), 1, TIMEOUT_MS).await;
    assert_eq!(ports, [PortAnswer::Refused; 2]);
}

#[tokio::test]
async fn an_accepted_connection_is_no_answer() {
    // Nobody ever accepts: the kernel alone does, as for a stopped process.
    let (_listener, address) = listener().await;
    assert_eq!(
        probe(ProbeTarget::Http(address.clone())).await,
        PortAnswer::Silent
    );
    assert_eq!(probe(ProbeTarget::Pair(address)).await, PortAnswer::Silent);
}

#[tokio::test]
async fn http_counts_when_it_is_http() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", PortAnswer::Answered),
        ("HTTP/1.1 503 Unavailable\r\n\r\n", PortAnswer::Answered),
        ("SSH-2.0-OpenSSH_9.2\r\n", PortAnswer::Silent),
        ("HTTP", PortAnswer::Silent),
    ] {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = [0; 9];
            stream.read_exact(&mut request).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("written");
            (request, listener)
        });
        assert_eq!(
            probe(ProbeTarget::Http(address)).await,
            expected,
            "{answer}"
        );
        assert_eq!(&server.await.expect("served").0, b"GET /live");
    }
}

#[tokio::test]
async fn the_pair_port_counts_with_the_right_key_only() {
    for (byte, expected) in [(1, PortAnswer::Answered), (2, PortAnswer::Silent)] {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepted");
            let result = keys(byte).respond(stream, &[], &hello(), TIMEOUT_MS).await;
            (result.is_ok(), listener)
        });
        assert_eq!(probe(ProbeTarget::Pair(address)).await, expected);
        assert!(!server.await.expect("served").0, "a probe says no hello");
    }
}
