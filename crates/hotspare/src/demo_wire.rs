//! A wire between two ports that can be cut: what is sent into a cut one is neither delivered nor
//! refused, as when a cable is pulled.
//!
//! Invariant: nothing passes from the cut until it is made whole; what was on its way then passes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes on their way in one direction of a connection.
const BUFFER_BYTES: usize = 16 << 10;

/// How often a cut wire is looked at.
const POLL: Duration = Duration::from_millis(20);

/// See the module. Its threads end with the process.
pub(crate) struct Wire {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    /// A wire to a port of this machine.
    pub(crate) fn to(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_cut);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let flag = Arc::clone(&flag);
                thread::spawn(move || connect(near, target, &flag));
            }
        });
        Ok(Self { port, is_cut })
    }

    /// Where it begins.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts it, or makes it whole.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

fn wait_whole(is_cut: &AtomicBool) {
    while is_cut.load(Ordering::SeqCst) {
        thread::sleep(POLL);
    }
}

fn connect(near: TcpStream, target: u16, is_cut: &Arc<AtomicBool>) {
    wait_whole(is_cut);
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else {
        return;
    };
    let (Ok(near_reader), Ok(far_reader)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let flag = Arc::clone(is_cut);
    thread::spawn(move || pass(far_reader, near, &flag));
    pass(near_reader, far, is_cut);
}

/// Passes bytes on until one side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let num_bytes = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(num_bytes) => num_bytes,
        };
        wait_whole(is_cut);
        if to.write_all(&buffer[..num_bytes]).is_err() {
            break;
        }
    }
    wait_whole(is_cut);
    // The other direction ends by itself.
    let _ = to.shutdown(Shutdown::Both);
}
