//! Requests that come by the clock, whether those before them were answered or not.
//!
//! Unlike a closed loop this does not wait when the server stands still, so what a standstill costs
//! is seen by every request that comes in it. Connections are not used twice. One thread does all
//! of it: see `load`.
//!
//! Invariant: a request that is not answered whole is counted as failed, with what was said.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it rests after each look at the sockets.
const REST: Duration = Duration::from_micros(500);

/// What to ask, and of whom.
pub(crate) struct Ask {
    /// `ADDRESS:PORT`.
    pub(crate) address: String,
    /// The JSON of a completion.
    pub(crate) body: String,
}

/// What became of a request.
pub(crate) struct Answer {
    /// When it was due.
    pub(crate) due: Instant,
    /// When bytes were read; the last is that of the end.
    pub(crate) arrivals: Vec<Instant>,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

struct Running {
    socket: TcpStream,
    due: Instant,
    arrivals: Vec<Instant>,
    answer: Vec<u8>,
}

/// Asks what `next` says every `interval` until `is_over`, and waits for the answers.
pub(crate) fn run(
    interval: Duration,
    is_over: &AtomicBool,
    mut next: impl FnMut(usize) -> Ask,
) -> Vec<Answer> {
    let (mut answers, mut running) = (Vec::new(), Vec::<Running>::new());
    let mut buffer = vec![0; 1 << 16];
    let (started, mut num_asked) = (Instant::now(), 0);
    loop {
        let due = started + interval * num_asked as u32;
        let is_asking = !is_over.load(Ordering::SeqCst);
        if is_asking && Instant::now() >= due {
            match ask(&next(num_asked), due) {
                Ok(request) => running.push(request),
                Err(error) => answers.push(Answer {
                    due,
                    arrivals: Vec::new(),
                    failure: Some(error.to_string()),
                }),
            }
            num_asked += 1;
            continue;
        }
        if !is_asking && running.is_empty() {
            return answers;
        }
        wait(
            &running,
            due.saturating_duration_since(Instant::now()).min(interval),
        );
        let mut index = 0;
        while index < running.len() {
            match read(&mut running[index], &mut buffer) {
                None => index += 1,
                Some(failure) => {
                    let ended = running.swap_remove(index);
                    answers.push(Answer {
                        due: ended.due,
                        arrivals: ended.arrivals,
                        failure: failure.err(),
                    });
                }
            }
        }
        std::thread::sleep(REST);
    }
}

/// Waits for something to read, or the next request's time.
fn wait(running: &[Running], most: Duration) {
    let mut fds: Vec<PollFd<'_>> = running
        .iter()
        .map(|request| PollFd::new(&request.socket, PollFlags::IN))
        .collect();
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(most.subsec_nanos()),
    };
    poll(&mut fds, Some(&timeout)).unwrap_or_else(|e| panic!("poll: {e}"));
}

fn ask(ask: &Ask, due: Instant) -> std::io::Result<Running> {
    let mut socket = TcpStream::connect(&ask.address)?;
    socket.set_nodelay(true)?;
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{}",
        ask.body.len(),
        ask.body
    );
    socket.write_all(request.as_bytes())?;
    socket.set_nonblocking(true)?;
    Ok(Running {
        socket,
        due,
        arrivals: Vec::new(),
        answer: Vec::new(),
    })
}

/// Reads what has arrived; once it was the end, whether the answer is whole.
fn read(request: &mut Running, buffer: &mut [u8]) -> Option<Result<(), String>> {
    match request.socket.read(buffer) {
        Ok(0) => Some(check(&request.answer)),
        Ok(num_read) => {
            request.answer.extend_from_slice(&buffer[..num_read]);
            request.arrivals.push(Instant::now());
            None
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let is_late = request.due.elapsed() > PATIENCE;
            is_late.then(|| Err("no answer in time".to_owned()))
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

fn check(answer: &[u8]) -> Result<(), String> {
    let has = |needle: &str| memmem::find(answer, needle.as_bytes()).is_some();
    let is_whole = !has("text/event-stream") || has("data: [DONE]");
    if answer.starts_with(b"HTTP/1.1 200") && has("\"finish_reason\":\"length\"") && is_whole {
        return Ok(());
    }
    Err(String::from_utf8_lossy(answer).chars().take(400).collect())
}
