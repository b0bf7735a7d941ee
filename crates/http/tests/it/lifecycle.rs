//! The server's patience: connections that send nothing, too slowly, or too much; what it says of
//! itself.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::read_until;
use crate::rig::{Rig, RigOptions};

/// Reads until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a way of closing too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_connections_are_closed() {
    let mut options = RigOptions::default();
    options.http.header_timeout_ms = 50;
    options.http.body_timeout_ms = 50;
    let rig = Rig::start(options).await;
    let mut silent = TcpStream::connect(rig.addr).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    let mut half = TcpStream::connect(rig.addr).await.unwrap();
    half.write_all(b"GET /live HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    assert!(!rest(&mut half).await.contains("200 OK"));
    let mut slow = TcpStream::connect(rig.addr).await.unwrap();
    slow.write_all(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        .await
        .unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(rig.client().get("/live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_bound_wait() {
    let mut options = RigOptions::default();
    options.http.max_num_connections = 1;
    let rig = Rig::start(options).await;
    let mut first = TcpStream::connect(rig.addr).await.unwrap();
    let request = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    first.write_all(request).await.unwrap();
    read_until(&mut first, "version").await;
    let second = tokio::spawn({
        let client = rig.client();
        async move { client.get("/live").await.status }
    });
    // The first goes on while the second waits.
    first.write_all(request).await.unwrap();
    read_until(&mut first, "version").await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_before_it_sends() {
    let rig = Rig::start(RigOptions::default()).await;
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    let head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let answer = read_until(&mut stream, "}").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_bodies_are_bounded_too() {
    let mut options = RigOptions::default();
    options.http.max_body_bytes = 1000;
    let rig = Rig::start(options).await;
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    let head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for _ in 0..20 {
        let chunk = format!("64\r\n{}\r\n", "a".repeat(100));
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("larger than 1000 bytes"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_is() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let version = client.get("/version").await.json();
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(client.get("/load").await.json(), json!({"server_load": 0}));
    let health = client.get("/health").await;
    assert_eq!((health.status, health.body.as_str()), (200, ""));
    let ready = client.get("/ready").await.json();
    assert_eq!(ready, json!({"ready": true, "reason": ""}));
    let metrics = client.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().contains("text"));
    assert!(
        metrics.body.contains("vllm:num_requests_running"),
        "{}",
        metrics.body
    );
    let status = client.get("/ha/status").await.json();
    assert_eq!(status["node"], "test-node");
    assert_eq!(status["engines"][0]["name"], "main");
    assert_eq!(client.request("POST", "/ping", b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_may_call() {
    let origins = vec!["https://app.example".to_owned()];
    let mut options = RigOptions::default();
    options.http.allowed_origins = origins.clone();
    let rig = Rig::start(options).await;
    let ask = async |origin: &str| {
        let client = rig
            .client()
            .with_header(&format!("Origin: {origin}"))
            .with_header("Access-Control-Request-Method: POST");
        client.request("OPTIONS", "/v1/chat/completions", b"").await
    };
    let allow = "access-control-allow-origin";
    let allowed = ask("https://app.example").await;
    assert_eq!(allowed.header(allow), Some("https://app.example"));
    assert_eq!(allowed.header("x-hotspare-node"), Some("test-node"));
    assert_eq!(ask("https://evil.example").await.header(allow), None);
    // A page sees why it is refused.
    let mut options = RigOptions::default();
    options.http.allowed_origins = origins;
    options.http.api_keys = vec!["secret".into()];
    let rig = Rig::start(options).await;
    let page = rig.client().with_header("Origin: https://app.example");
    let refused = page.get("/v1/models").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header(allow), Some("https://app.example"));
    assert_eq!(refused.header("x-hotspare-node"), Some("test-node"));
}
