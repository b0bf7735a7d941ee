//! The server's patience: connections that send nothing, too slowly, or too much; what it says of
//! itself.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, Reply, read_until};
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
    let rig = Rig::start(options).await;
    let mut silent = TcpStream::connect(rig.addr).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    let mut half = TcpStream::connect(rig.addr).await.unwrap();
    half.write_all(b"GET /live HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    assert!(!rest(&mut half).await.contains("200 OK"));
    // On a server of its own, where the head has time to arrive.
    let mut options = RigOptions::default();
    options.http.body_timeout_ms = 50;
    let rig = Rig::start(options).await;
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
async fn a_head_is_bounded_in_fields_and_bytes() {
    let rig = Rig::start(RigOptions::default()).await;
    let ask = async |fields: String| {
        let mut stream = TcpStream::connect(rig.addr).await.unwrap();
        let head = format!("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        // The server may answer and close before it has read all.
        let _ = stream.write_all(head.as_bytes()).await;
        rest(&mut stream).await
    };
    let many = |num: usize| {
        (0..num)
            .map(|i| format!("X-{i}: y\r\n"))
            .collect::<String>()
    };
    assert!(ask(many(250)).await.starts_with("HTTP/1.1 200"));
    assert!(ask(many(260)).await.starts_with("HTTP/1.1 431"));
    assert!(
        ask(format!("X: {}\r\n", "y".repeat(60_000)))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let long = ask(format!("X: {}\r\n", "y".repeat(200_000))).await;
    assert!(
        long.is_empty() || long.starts_with("HTTP/1.1 431"),
        "{long}"
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_requests_share_a_budget() {
    let mut options = RigOptions::default();
    options.http.max_body_bytes = 100_000;
    options.http.max_total_body_bytes = 150_000;
    // However slow the machine: the bodies that are held must not time out.
    options.http.body_timeout_ms = 3_600_000;
    let rig = Rig::start(options).await;
    let client = rig.client();
    let long = json!({"prompt": "a".repeat(60_000)}).to_string();
    assert_eq!(post(&client, &long).await.status, 400, "too long a prompt");
    // Bodies that never end hold what is not free. One that comes while the probe holds its share
    // is refused itself, so there may have to be more of them.
    let mut held = Vec::new();
    let mut refused = None;
    for attempt in 0..6000 {
        if attempt % 100 == 0 {
            held.push(unfinished_body(&rig).await);
            held.push(unfinished_body(&rig).await);
        }
        let reply = post(&client, &long).await;
        if reply.status != 400 {
            refused = Some(reply);
            break;
        }
        // What was sent has not all been read yet.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = refused.expect("bodies share a budget");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    // A short request does not meet it.
    let short = json!({"prompt": "a", "max_tokens": 1}).to_string();
    assert_eq!(post(&client, &short).await.status, 200);
    drop(held);
    for _ in 0..6000 {
        if post(&client, &long).await.status == 400 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the budget never came back");
}

/// A request with most of its body.
async fn unfinished_body(rig: &Rig) -> TcpStream {
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n";
    // One that is refused may be closed before all of it is sent.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&[b' '; 80_000]).await;
    stream
}

async fn post(client: &Client, body: &str) -> Reply {
    client
        .request("POST", "/v1/completions", body.as_bytes())
        .await
}
