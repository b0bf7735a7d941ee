//! A cable that a test can cut: forwards TCP connections and UDP datagrams to an address, and holds
//! back or drops what goes through a direction that is cut.
//!
//! A cut is silence, as of a pulled cable: bytes and closes of TCP connections wait until the cut
//! is healed, datagrams are lost. What a connection has sent is never lost or reordered.
//!
//! Invariant: all threads end within a moment of the relay's drop, and no wait is longer than
//! [`TICK`].

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a thread waits before it looks whether something changed.
const TICK: Duration = Duration::from_millis(5);

/// One direction of the cable, or the end of all of it.
type Flag = Arc<AtomicBool>;

/// See the module. Listens on 127.0.0.1, on one port number for TCP and UDP.
pub struct Relay {
    address: SocketAddr,
    there: Flag,
    back: Flag,
    has_ended: Flag,
}

/// The way of bytes from one socket to another.
struct Way {
    is_cut: Flag,
    has_ended: Flag,
}

impl Relay {
    /// Starts to forward to `target`, which need not listen yet.
    ///
    /// # Panics
    /// Where no port is free.
    pub fn start(target: SocketAddr) -> Self {
        let (listener, datagrams) = bind();
        let address = listener.local_addr().expect("the listener is bound");
        let relay = Self {
            address,
            there: Flag::default(),
            back: Flag::default(),
            has_ended: Flag::default(),
        };
        let (there, back) = (relay.way(&relay.there), relay.way(&relay.back));
        thread::spawn(move || accept(&listener, target, &there, &back));
        let (there, back) = (relay.way(&relay.there), relay.way(&relay.back));
        thread::spawn(move || forward_datagrams(&datagrams, target, &there, &back));
        relay
    }

    fn way(&self, is_cut: &Flag) -> Way {
        Way {
            is_cut: Arc::clone(is_cut),
            has_ended: Arc::clone(&self.has_ended),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or heals the way to the target.
    pub fn cut_there(&self, is_cut: bool) {
        self.there.store(is_cut, Ordering::SeqCst);
    }

    /// Cuts or heals the way back.
    pub fn cut_back(&self, is_cut: bool) {
        self.back.store(is_cut, Ordering::SeqCst);
    }

    /// Cuts or heals both ways.
    pub fn cut(&self, is_cut: bool) {
        self.cut_there(is_cut);
        self.cut_back(is_cut);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }
}

impl Way {
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Waits while it is cut; false where the relay has ended.
    fn is_open(&self) -> bool {
        while self.is_cut() && !self.has_ended() {
            thread::sleep(TICK);
        }
        !self.has_ended()
    }

    fn again(&self) -> Self {
        Self {
            is_cut: Arc::clone(&self.is_cut),
            has_ended: Arc::clone(&self.has_ended),
        }
    }

    /// Carries bytes until `from` ends, then tells `to`.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 64 << 10];
        loop {
            let read = match from.read(&mut buffer) {
                Err(error) if is_timeout(error.kind()) && !self.has_ended() => continue,
                read => read.unwrap_or(0),
            };
            if !self.is_open() {
                break;
            }
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // One that broke has told the other side by itself.
        let _ = to.shutdown(Shutdown::Write);
        if self.has_ended() {
            let _ = from.shutdown(Shutdown::Both);
        }
    }
}

/// A port that is free for both.
fn bind() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        if let Ok(datagrams) = UdpSocket::bind(address) {
            return (listener, datagrams);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

fn accept(listener: &TcpListener, target: SocketAddr, there: &Way, back: &Way) {
    listener
        .set_nonblocking(true)
        .expect("a listener can be asked without waiting");
    while !there.has_ended() {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        let (there, back) = (there.again(), back.again());
        thread::spawn(move || connect(client, target, there, back));
    }
}

/// Connects on behalf of `client`. A refusal is passed on, when the way back is open.
fn connect(client: TcpStream, target: SocketAddr, there: Way, back: Way) {
    if !there.is_open() {
        return;
    }
    let server = TcpStream::connect(target);
    if !back.is_open() {
        return;
    }
    let Ok(server) = server else { return };
    for stream in [&client, &server] {
        let set = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(TICK)))
            .and_then(|()| stream.set_nodelay(true));
        if set.is_err() {
            return;
        }
    }
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let carried = thread::spawn(move || there.carry(client_again, server_again));
    back.carry(server, client);
    let _ = carried.join();
}

fn forward_datagrams(near: &UdpSocket, target: SocketAddr, there: &Way, back: &Way) {
    let far = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for socket in [near, &far] {
        let set = socket.set_read_timeout(Some(TICK));
        set.expect("the timeout is not zero");
    }
    let mut client = None;
    let mut buffer = [0; 64 << 10];
    while !there.has_ended() {
        if let Ok((len, from)) = near.recv_from(&mut buffer) {
            client = Some(from);
            if !there.is_cut() {
                // Datagrams may be lost.
                let _ = far.send_to(&buffer[..len], target);
            }
        }
        if let (Ok(len), Some(client)) = (far.recv(&mut buffer), client)
            && !back.is_cut()
        {
            let _ = near.send_to(&buffer[..len], client);
        }
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    /// Long enough for a byte that is on its way.
    const SILENCE: Duration = Duration::from_millis(200);

    fn pair() -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let relay = Relay::start(listener.local_addr().expect("bound"));
        let client = TcpStream::connect(relay.address()).expect("the relay listens");
        let (server, _) = listener.accept().expect("the relay connects");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        }
        (relay, client, server)
    }

    fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).expect("bytes come");
        bytes
    }

    fn is_silent(stream: &mut TcpStream) -> bool {
        stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let read = stream.read(&mut [0]);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        read.is_err_and(|error| is_timeout(error.kind()))
    }

    #[test]
    fn a_direction_that_is_cut_is_silent_and_loses_no_byte() {
        let (relay, mut client, mut server) = pair();
        client.write_all(b"one").expect("open");
        assert_eq!(read(&mut server, 3), b"one");
        relay.cut_there(true);
        client
            .write_all(b"two")
            .expect("the relay's socket takes it");
        server.write_all(b"back").expect("open");
        assert_eq!(read(&mut client, 4), b"back", "the other way is open");
        assert!(is_silent(&mut server));
        relay.cut_there(false);
        assert_eq!(read(&mut server, 3), b"two");
    }

    #[test]
    fn a_close_waits_for_the_cut_to_heal() {
        let (relay, client, mut server) = pair();
        relay.cut(true);
        drop(client);
        assert!(is_silent(&mut server), "no close comes through");
        relay.cut(false);
        assert_eq!(server.read(&mut [0]).expect("a close"), 0);
    }

    #[test]
    fn a_port_that_refuses_closes_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("bound");
        drop(listener);
        let relay = Relay::start(target);
        let mut client = TcpStream::connect(relay.address()).expect("the relay listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        assert!(!is_silent(&mut client));
    }

    #[test]
    fn datagrams_are_forwarded_and_lost_in_a_cut() {
        let target = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let relay = Relay::start(target.local_addr().expect("bound"));
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let send = |bytes: &[u8]| client.send_to(bytes, relay.address()).expect("sent");
        let mut buffer = [0; 16];
        target.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        send(b"one");
        let (len, from) = target.recv_from(&mut buffer).expect("it comes");
        assert_eq!(&buffer[..len], b"one");
        target.send_to(b"back", from).expect("sent");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let len = client.recv(&mut buffer).expect("it comes");
        assert_eq!(&buffer[..len], b"back");
        relay.cut_there(true);
        send(b"two");
        target.set_read_timeout(Some(SILENCE)).expect("a timeout");
        assert!(target.recv(&mut buffer).is_err(), "it is lost");
        relay.cut_there(false);
        send(b"three");
        target.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let len = target.recv(&mut buffer).expect("it comes");
        assert_eq!(&buffer[..len], b"three");
    }
}
