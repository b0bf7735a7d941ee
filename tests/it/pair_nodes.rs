//! Two real nodes on loopback, for the tests of pairs.
//!
//! Invariant: a node's processes end with the test, by their own pids.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use hotspare_testkit::{Server, ServerOptions, is_running, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, binary};

/// Where chat completions are.
pub(crate) const CHAT: &str = "/v1/chat/completions";
/// Where text completions are.
pub(crate) const COMPLETIONS: &str = "/v1/completions";

/// How to start the nodes again.
struct Plan {
    dir: TempDir,
    pair_ports: [u16; 2],
    http_ports: [u16; 2],
    args: Vec<String>,
    faults: [String; 2],
}

/// Node a (rank 0, serves first) and node b.
pub(crate) struct Nodes {
    plan: Plan,
    pub(crate) a: Server,
    pub(crate) b: Server,
}

impl Nodes {
    /// Both nodes of spark-mini, of which a serves and b stands by, and each can use the other's
    /// engine.
    pub(crate) fn start(args: &[&str], faults: [&str; 2]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let key = dir.path().join("pair.key");
        std::fs::write(&key, "42".repeat(32)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let plan = Plan {
            dir,
            pair_ports: [free_port(), free_port()],
            http_ports: [free_port(), free_port()],
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            faults: faults.map(str::to_owned),
        };
        // Who has loaded its model first serves first.
        let a = plan.start(0);
        wait_until("node a has loaded its model", PATIENCE, || {
            a.status()["role"] != "starting"
        });
        let b = plan.start(1);
        let nodes = Self { plan, a, b };
        wait_role(&nodes.a, "primary");
        wait_role(&nodes.b, "standby");
        wait_linked(&nodes.a);
        wait_linked(&nodes.b);
        nodes
    }

    /// Starts node a again, after its end.
    pub(crate) fn restart_a(&mut self) {
        self.a = self.plan.start(0);
    }
}

impl Plan {
    fn start(&self, rank: usize) -> Server {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let (own, peer) = (rank, 1 - rank);
        let name = ["a", "b"][rank];
        let state_dir = self.dir.path().join(name);
        std::fs::create_dir_all(&state_dir).unwrap();
        let mut args = vec![
            format!("--port={}", self.http_ports[own]),
            format!("--ha-node={name}"),
            format!("--ha-rank={rank}"),
            format!("--ha-listen={}", address(self.pair_ports[own])),
            format!("--ha-peer={}", address(self.pair_ports[peer])),
            format!("--ha-peer-http={}", address(self.http_ports[peer])),
            format!(
                "--ha-key-file={}",
                self.dir.path().join("pair.key").display()
            ),
            format!("--state-dir={}", state_dir.display()),
            "--kv-cache-memory-bytes=64M".to_owned(),
        ];
        args.extend(self.args.iter().cloned());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut options = ServerOptions::new("spark-mini", &args);
        if !self.faults[rank].is_empty() {
            options = options.env("HOTSPARE_FAULTS", &self.faults[rank]);
        }
        Server::start_unready(binary(), &options)
    }
}

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until the node says that it has this role.
pub(crate) fn wait_role(server: &Server, role: &str) {
    wait_until(&format!("a node is {role}"), PATIENCE, || {
        server.status()["role"] == role
    });
}

/// Waits until the node can use the other one's engine.
pub(crate) fn wait_linked(server: &Server) {
    wait_until("the peer's engine can be used", PATIENCE, || {
        server.status()["peer_engine"] == true
    });
}

/// Kills every process of a node at once: the front, and its engine.
pub(crate) fn kill_node(server: &mut Server) {
    let engine = server.main_engine()["pid"]
        .as_u64()
        .expect("an engine runs");
    let engine = u32::try_from(engine).unwrap();
    send_signal(server.pid(), Signal::KILL);
    if is_running(engine) {
        send_signal(engine, Signal::KILL);
    }
    server.wait_exit(PATIENCE);
}

/// Runs `hotspare ha …` against a node.
pub(crate) fn ha(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .arg("ha")
        .args(args)
        .args(["--url", server.base_url()]);
    command.output().expect("the binary runs")
}

/// A streamed completion, greedy for even numbers and drawn for odd ones.
pub(crate) fn story(i: u64, max_tokens: u64) -> Value {
    json!({"prompt": format!("Story number {i}: once upon a time"), "max_tokens": max_tokens,
        "temperature": if i.is_multiple_of(2) { 0.0 } else { 1.0 }, "seed": i, "ignore_eos": true,
        "stream": true, "return_token_ids": true})
}

/// The ids of a streamed completion, and how it ended.
pub(crate) fn told(events: &[Value]) -> (Vec<u64>, String) {
    let choices = events.iter().filter_map(|event| event["choices"].get(0));
    let ids = choices
        .clone()
        .filter_map(|choice| choice["token_ids"].as_array());
    let ids = ids.flatten().filter_map(Value::as_u64).collect();
    let reason = choices
        .filter_map(|choice| choice["finish_reason"].as_str())
        .last();
    (ids, reason.unwrap_or("none").to_owned())
}
