//! A load generator that costs little: it shares the cores with the server under test.
//!
//! Speaks HTTP/1.1 over plain sockets and counts events without parsing them.
//!
//! Invariant: what it counts is what a client would have received.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(120);

/// What one streamed request saw.
pub(crate) struct StreamReport {
    /// Events with a payload, `[DONE]` not counted.
    pub(crate) num_events: usize,
    /// From the request's first byte to the first event.
    pub(crate) first_event: Duration,
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream
        .set_nodelay(true)
        .unwrap_or_else(|e| panic!("TCP_NODELAY: {e}"));
    stream
        .set_read_timeout(Some(TIMEOUT))
        .unwrap_or_else(|e| panic!("a timeout: {e}"));
    stream
}

fn request(path: &str, body: &str, connection: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         connection: {connection}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Posts `body` and reads the stream to its end.
///
/// # Panics
/// Where the stream does not end with `[DONE]`.
pub(crate) fn stream(address: &str, path: &str, body: &str) -> StreamReport {
    let mut socket = connect(address);
    let start = Instant::now();
    if let Err(error) = socket.write_all(request(path, body, "close").as_bytes()) {
        panic!("{path}: {error}");
    }
    let (mut num_events, mut first_event) = (0, None);
    let mut buffer = vec![0; 1 << 16];
    // The last bytes of the read before, in case a marker is cut in two.
    let mut tail: Vec<u8> = Vec::new();
    let mut done = false;
    loop {
        let num_read = socket
            .read(&mut buffer)
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        if num_read == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..num_read]);
        num_events += tail
            .windows(7)
            .filter(|window| window == b"data: {")
            .count();
        done |= tail.windows(12).any(|window| window == b"data: [DONE]");
        if num_events >= 1 && first_event.is_none() {
            first_event = Some(start.elapsed());
        }
        let keep = tail.len().min(6);
        tail.drain(..tail.len() - keep);
    }
    let head = String::from_utf8_lossy(&tail).into_owned();
    assert!(done || num_events > 0, "{path}: no stream: {head}");
    StreamReport {
        num_events,
        first_event: first_event.unwrap_or(start.elapsed()),
    }
}

/// Posts `body` `count` times over one connection and reads each answer whole. Returns the time it
/// took.
///
/// # Panics
/// Where an answer is not status 200.
pub(crate) fn requests(address: &str, path: &str, body: &str, count: usize) -> Duration {
    let mut socket = connect(address);
    let request = request(path, body, "keep-alive");
    let start = Instant::now();
    for _ in 0..count {
        if let Err(error) = socket.write_all(request.as_bytes()) {
            panic!("{path}: {error}");
        }
        read_answer(&mut socket, path);
    }
    start.elapsed()
}

fn read_answer(socket: &mut TcpStream, path: &str) {
    let mut answer = Vec::new();
    let mut buffer = [0; 1 << 14];
    loop {
        let num_read = socket
            .read(&mut buffer)
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(num_read > 0, "{path}: the connection closed");
        answer.extend_from_slice(&buffer[..num_read]);
        let Some(head_end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 200"),
            "{path}: {}",
            String::from_utf8_lossy(&answer)
        );
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{path}: no content-length in {head}"));
        if answer.len() >= head_end + 4 + length {
            return;
        }
    }
}
