//! A load generator that costs little: it shares the cores with the server under test.
//!
//! Speaks HTTP/1.1 over plain sockets and counts events without parsing them.
//!
//! Invariant: what it counts is what a client would have received.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(120);

/// How long it rests after each look at the sockets. Woken for each token of each stream it would
/// take a tenth of two cores from the server, which a client elsewhere does not.
const REST: Duration = Duration::from_micros(500);

/// What one streamed request saw.
pub(crate) struct StreamReport {
    /// Events with a payload, `[DONE]` not counted.
    pub(crate) num_events: usize,
    /// From the request's first byte to the first event.
    pub(crate) first_event: Duration,
    /// When events were read.
    pub(crate) arrivals: Vec<Instant>,
    /// All that was read.
    pub(crate) answer: Vec<u8>,
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

/// One streamed answer while it arrives.
struct Stream {
    socket: TcpStream,
    start: Instant,
    num_events: usize,
    first_event: Option<Duration>,
    arrivals: Vec<Instant>,
    answer: Vec<u8>,
    /// The last bytes of the read before, in case a marker is cut in two.
    tail: Vec<u8>,
    is_done: bool,
}

impl Stream {
    /// Posts `body`.
    fn start(address: &str, path: &str, body: &str) -> Self {
        let mut socket = connect(address);
        let start = Instant::now();
        socket
            .write_all(request(path, body, "close").as_bytes())
            .and_then(|()| socket.set_nonblocking(true))
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        Self {
            socket,
            start,
            num_events: 0,
            first_event: None,
            arrivals: Vec::new(),
            answer: Vec::new(),
            tail: Vec::new(),
            is_done: false,
        }
    }

    /// Reads what has arrived; whether it was the end.
    fn read(&mut self, buffer: &mut [u8], event: &Finder<'_>, done: &Finder<'_>) -> bool {
        let num_read = match self.socket.read(buffer) {
            Ok(num_read) => num_read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("a stream broke: {error}"),
        };
        self.answer.extend_from_slice(&buffer[..num_read]);
        self.tail.extend_from_slice(&buffer[..num_read]);
        let num_events = event.find_iter(&self.tail).count();
        if num_events > 0 {
            self.arrivals.push(Instant::now());
        }
        self.num_events += num_events;
        self.is_done |= done.find(&self.tail).is_some();
        if self.num_events >= 1 && self.first_event.is_none() {
            self.first_event = Some(self.start.elapsed());
        }
        let keep = self.tail.len().min(event.needle().len() - 1);
        self.tail.drain(..self.tail.len() - keep);
        num_read == 0
    }
}

/// Bodies of streamed completions, each of another seed and prompt.
pub(crate) fn stories(num_streams: usize, num_tokens: usize) -> Vec<String> {
    let body = |index| {
        json!({
            "prompt": format!("Once upon a time there were {index} friends"),
            "max_tokens": num_tokens, "ignore_eos": true, "stream": true,
            "temperature": 0.8, "seed": index,
        })
    };
    (0..num_streams)
        .map(|index| body(index).to_string())
        .collect()
}

/// Posts all `bodies` at once and reads the streams to their ends, on this thread: a thread for
/// each would spend more on switching than on reading.
///
/// # Panics
/// Where a stream does not end with `[DONE]`.
pub(crate) fn streams(address: &str, path: &str, bodies: &[String]) -> Vec<StreamReport> {
    let (event, done) = (Finder::new(b"data: {"), Finder::new(b"[DONE]"));
    let mut streams: Vec<Stream> = bodies
        .iter()
        .map(|body| Stream::start(address, path, body))
        .collect();
    let mut open: Vec<usize> = (0..streams.len()).collect();
    let mut buffer = vec![0; 1 << 16];
    while !open.is_empty() {
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|&i| PollFd::new(&streams[i].socket, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: TIMEOUT.as_secs() as i64,
            tv_nsec: 0,
        };
        let num_ready = poll(&mut fds, Some(&timeout)).unwrap_or_else(|e| panic!("poll: {e}"));
        assert!(num_ready > 0, "{path}: nothing arrives any more");
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = is_ready.into_iter();
        open.retain(|&i| {
            let ended = ready.next() == Some(true) && streams[i].read(&mut buffer, &event, &done);
            !ended
        });
        std::thread::sleep(REST);
    }
    let report = |stream: Stream| {
        assert!(stream.is_done, "{path}: a stream without an end");
        StreamReport {
            num_events: stream.num_events,
            first_event: stream.first_event.unwrap_or(stream.start.elapsed()),
            arrivals: stream.arrivals,
            answer: stream.answer,
        }
    };
    streams.into_iter().map(report).collect()
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
