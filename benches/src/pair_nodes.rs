//! Two nodes on loopback that know each other: node a serves, node b stands by.
//!
//! Ports, key and state directories are of their own for each pair, so that rounds know nothing of
//! each other.
//!
//! Invariant: every process of both nodes ends with the value, also one that was stopped.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use hotspare_testkit::{Server, is_running, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::server::start_unready;

const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Nodes {
    pub(crate) a: Server,
    pub(crate) b: Server,
    /// Processes of the engines with which the nodes began.
    engines: [u32; 2],
    _dir: TempDir,
}

impl Nodes {
    /// Both nodes of `model`, each of which can use the other's engine.
    pub(crate) fn start(model: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("a directory: {e}"));
        let key = dir.path().join("pair.key");
        std::fs::write(&key, "42".repeat(32))
            .and_then(|()| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)))
            .unwrap_or_else(|e| panic!("the pair's key: {e}"));
        let [pair_ports, http_ports] = [(); 2].map(|()| [free_port(), free_port()]);
        let start = |own: usize| {
            let peer = 1 - own;
            let name = ["a", "b"][own];
            let own_args = [
                format!("--port={}", http_ports[own]),
                format!("--ha-node={name}"),
                format!("--ha-rank={own}"),
                format!("--ha-listen=127.0.0.1:{}", pair_ports[own]),
                format!("--ha-peer=127.0.0.1:{}", pair_ports[peer]),
                format!("--ha-peer-http=127.0.0.1:{}", http_ports[peer]),
                format!("--ha-key-file={}", key.display()),
                format!("--state-dir={}", dir.path().join(name).display()),
                "--disable-log-stats".to_owned(),
            ];
            let own_args = own_args.iter().map(String::as_str);
            let all: Vec<&str> = own_args.chain(args.iter().copied()).collect();
            start_unready(model, &all)
        };
        // Who has loaded its model first serves first.
        let a = start(0);
        wait_until("node a has loaded its model", PATIENCE, || {
            a.status()["role"] != "starting"
        });
        let b = start(1);
        wait_role(&a, "primary");
        wait_role(&b, "standby");
        for server in [&a, &b] {
            wait_until("the peer's engine can be used", PATIENCE, || {
                server.status()["peer_engine"] == true
            });
        }
        let engines = [&a, &b].map(engine_pid);
        Self {
            a,
            b,
            engines,
            _dir: dir,
        }
    }

    /// Sends a signal to every process of node a, the front first.
    pub(crate) fn signal_a(&self, signal: Signal) {
        send_signal(self.a.pid(), signal);
        if is_running(self.engines[0]) {
            send_signal(self.engines[0], signal);
        }
    }

    /// Kills node a's engine.
    pub(crate) fn kill_engine_of_a(&self) {
        send_signal(self.engines[0], Signal::KILL);
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // One that was stopped does not see that its front has ended.
        for engine in self.engines {
            if is_running(engine) {
                send_signal(engine, Signal::KILL);
            }
        }
    }
}

/// Asks the node that serves to hand over to the other one, and waits until it has.
///
/// # Panics
/// Where it was refused.
pub(crate) fn switch_over(from: &Server, to: &Server) {
    let reply = from
        .client()
        .post("/ha/switchover", &json!({"reason": "bench"}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    wait_role(to, "primary");
    wait_role(from, "standby");
}

/// Waits until the node says that it has this role.
pub(crate) fn wait_role(server: &Server, role: &str) {
    wait_until(&format!("a node is {role}"), PATIENCE, || {
        server.status()["role"] == role
    });
}

fn engine_pid(server: &Server) -> u32 {
    let pid = server.main_engine()["pid"].as_u64();
    pid.and_then(|pid| u32::try_from(pid).ok())
        .unwrap_or_else(|| panic!("an engine runs"))
}

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    loop {
        let bound = TcpListener::bind("127.0.0.1:0").and_then(|tcp| tcp.local_addr());
        let port = bound.unwrap_or_else(|e| panic!("a free port: {e}")).port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
