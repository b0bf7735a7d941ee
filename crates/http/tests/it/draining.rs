//! A server that was told to stop and has answers to finish: what it says meanwhile.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{parse, read_until};
use crate::rig::{Rig, RigOptions, eventually, slow};

const REASON: &str = "the server is draining";

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_says_so_and_finishes_what_runs() {
    let mut rig = Rig::start(slow(50_000)).await;
    let client = rig.client();
    let mut idle = TcpStream::connect(rig.addr).await.unwrap();
    let version = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(version).await.unwrap();
    read_until(&mut idle, "version").await;
    let long = json!({"prompt": "a", "max_tokens": 150, "ignore_eos": true});
    let whole = tokio::spawn({
        let (client, long) = (client.clone(), long.clone());
        async move { client.post("/v1/completions", &long).await }
    });
    eventually("it runs", || rig.front().server_load() == 1).await;
    rig.stop();
    eventually("the front drains", || rig.front().is_draining()).await;

    assert_eq!(client.get("/live").await.status, 200);
    for path in ["/ready", "/health", "/ping"] {
        let reply = client.get(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.json(), json!({"ready": false, "reason": REASON}));
        assert!(reply.header("retry-after").is_some(), "{path}");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    let status = client.get("/ha/status").await;
    assert_eq!(status.json()["role"], "draining");
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    for (path, body) in [("/v1/completions", &long), ("/v1/chat/completions", &chat)] {
        let refused = client.post(path, body).await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert!(refused.body.contains(REASON), "{}", refused.body);
        assert!(refused.header("retry-after").is_some());
    }
    // A connection from before gets its answer too, and no further one.
    let body = long.to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    idle.write_all(request.as_bytes()).await.unwrap();
    let refused = read_until(&mut idle, REASON).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(!whole.is_finished());

    let whole = whole.await.unwrap();
    assert_eq!(whole.status, 200, "{}", whole.body);
    assert_eq!(whole.json()["usage"]["completion_tokens"], 150);
    rig.ended().await;
    assert!(TcpStream::connect(rig.addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_does_not_wait_for_connections() {
    let mut rig = Rig::start(RigOptions::default()).await;
    let mut idle = TcpStream::connect(rig.addr).await.unwrap();
    let version = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(version).await.unwrap();
    let answer = read_until(&mut idle, "}").await;
    assert_eq!(parse(answer.as_bytes()).status, 200);
    rig.stop();
    rig.ended().await;
}
