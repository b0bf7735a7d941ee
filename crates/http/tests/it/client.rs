//! A client that shows everything: raw requests, whole answers, and streams it can drop.
//!
//! Invariant: every wait is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The data of each event of a stream, the terminator checked and left out.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut events: Vec<&str> = self
            .body
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{}", self.body);
        let parse = |data: &str| serde_json::from_str(data).unwrap();
        events.into_iter().map(parse).collect()
    }
}

/// Talks to one server, one connection a request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    addr: SocketAddr,
    headers: String,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            headers: String::new(),
        }
    }

    pub(crate) fn with_header(mut self, line: &str) -> Self {
        self.headers += line;
        self.headers += "\r\n";
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, body.to_string().as_bytes())
            .await
    }

    pub(crate) async fn request(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let mut stream = self.send(method, path, body).await;
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut bytes));
        read.await.expect("an answer in time").unwrap();
        parse(&bytes)
    }

    /// Sends a request and hands out the connection.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let content_type = match self.headers.to_lowercase().contains("content-type") {
            true => "",
            false => "Content-Type: application/json\r\n",
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{content_type}{}\
             Content-Length: {}\r\n\r\n",
            self.headers,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream
    }
}

/// Reads until what arrived holds `text`.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        loop {
            let mut buffer = [0; 4096];
            let len = stream.read(&mut buffer).await.unwrap();
            assert!(len > 0, "closed: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..len]);
            if String::from_utf8_lossy(&seen).contains(text) {
                return;
            }
        }
    };
    let done = tokio::time::timeout(TIMEOUT, reading).await;
    done.expect("the text in time");
    String::from_utf8(seen).unwrap()
}

/// Parses all bytes of a connection that held one answer.
pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = &bytes[end + 4..];
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = match is_chunked {
        true => dechunk(body),
        false => body.to_vec(),
    };
    Reply {
        status,
        head,
        body: String::from_utf8(body).unwrap(),
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n");
        let end = end.expect("a chunk's size ends");
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
