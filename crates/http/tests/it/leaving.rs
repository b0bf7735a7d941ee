//! Clients that leave before a whole answer is there, with bytes behind their request that the
//! server has not asked for.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::parse;
use crate::rig::{Rig, RigOptions, endless, eventually};

const FOLLOWING: [&str; 4] = ["", "\n", "\r\n", "GET /live HTTP/1.1\r\nHost: test\r\n\r\n"];

async fn is_free(rig: &Rig, what: &str) {
    eventually(what, || rig.front().server_load() == 0).await;
    eventually(what, || rig.front().status().engines[0].running == 0).await;
}

#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
    EndSide,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_its_answer_whatever_follows_the_request() {
    let rig = Rig::start(endless()).await;
    for is_stream in [false, true] {
        let body = json!({"prompt": "a", "max_tokens": 60_000, "stream": is_stream});
        let request = body.to_string();
        for following in FOLLOWING {
            for leave in [Leave::Close, Leave::Reset, Leave::EndSide] {
                let what = format!("stream {is_stream}, {following:?}, {leave:?}");
                let client = rig.client();
                let mut stream = client
                    .send("POST", "/v1/completions", request.as_bytes())
                    .await;
                stream.write_all(following.as_bytes()).await.unwrap();
                eventually(&what, || rig.front().status().engines[0].running == 1).await;
                match leave {
                    Leave::Close => drop(stream),
                    Leave::Reset => {
                        stream.set_zero_linger().unwrap();
                        drop(stream);
                    }
                    Leave::EndSide => {
                        stream.shutdown().await.unwrap();
                        is_free(&rig, &what).await;
                    }
                }
                is_free(&rig, &what).await;
            }
        }
    }
    assert_eq!(rig.client().get("/live").await.status, 200);
}

/// Sends `request`, ends this side, and reads to the end.
async fn ask_and_end(rig: &Rig, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes));
    read.await.unwrap().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_answered_at_once_is_answered_after_the_end_of_the_clients_side() {
    let rig = Rig::start(RigOptions::default()).await;
    for following in ["", "\r\n"] {
        let get = format!("GET /version HTTP/1.1\r\nHost: x\r\n\r\n{following}");
        let answer = parse(&ask_and_end(&rig, get.as_bytes()).await);
        assert_eq!(answer.status, 200, "{following:?}");
    }
    // Longer than what is read at once, and refused at its end.
    let text = "a".repeat(2 << 20);
    let len = text.len();
    let post = format!("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n");
    let post = format!("{post}Content-Type: text/plain\r\n\r\n{text}");
    let answer = parse(&ask_and_end(&rig, post.as_bytes()).await);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("application/json"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_named_for_what_it_is() {
    let rig = Rig::start(RigOptions::default()).await;
    let head = "POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for (rest, message) in [
        (
            "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            "The chunked encoding of the request body is malformed.",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
            "The request body ended before it was complete.",
        ),
        (
            "Content-Length: 9\r\n\r\n{}",
            "The request body ended before it was complete.",
        ),
    ] {
        let request = format!("{head}{rest}");
        let answer = parse(&ask_and_end(&rig, request.as_bytes()).await);
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(answer.json()["error"]["message"], message, "{rest:?}");
    }
}
