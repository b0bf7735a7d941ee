//! Two real nodes on loopback, for the tests of pairs.
//!
//! Invariant: a node's processes end with the test, by their own pids.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use hotspare_testkit::{Relay, Server, ServerOptions, is_running, send_signal, wait_until};
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
    models: [String; 2],
    pair_ports: [u16; 2],
    http_ports: [u16; 2],
    /// Where each finds the other's pair port and HTTP, if not there.
    ways: Option<[[SocketAddr; 2]; 2]>,
    args: [Vec<String>; 2],
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
        let nodes = Self::start_unsettled(Plan::new(args, faults));
        nodes.settle();
        nodes
    }

    /// As [`Nodes::start`], with a model for each.
    pub(crate) fn start_of(models: [&str; 2], args: &[&str], faults: [&str; 2]) -> Self {
        let mut plan = Plan::new(args, faults);
        plan.models = models.map(str::to_owned);
        Self::start_unsettled(plan)
    }

    /// As [`Nodes::start`], with options for each.
    pub(crate) fn start_each(args: [Vec<String>; 2]) -> Self {
        let mut plan = Plan::new(&[], [""; 2]);
        plan.args = args;
        let nodes = Self::start_unsettled(plan);
        nodes.settle();
        nodes
    }

    /// Node b, which waits for its peer, and then node a.
    pub(crate) fn start_b_first(args: &[&str]) -> Self {
        let plan = Plan::new(args, [""; 2]);
        let b = plan.start(1);
        wait_role(&b, "joining");
        let a = plan.start(0);
        Self { plan, a, b }
    }

    /// As [`Nodes::start`], with cables between the nodes, and one more option for each node.
    pub(crate) fn start_cabled(options: [Option<String>; 2]) -> (Self, Cables) {
        let mut plan = Plan::new(&[], [""; 2]);
        let cables = Cables::new(&plan);
        plan.ways = Some(
            [cables.to_b.each_ref(), cables.to_a.each_ref()].map(|ways| ways.map(Relay::address)),
        );
        for (args, option) in plan.args.iter_mut().zip(options) {
            args.extend(option);
        }
        let nodes = Self::start_unsettled(plan);
        nodes.settle();
        (nodes, cables)
    }

    fn start_unsettled(plan: Plan) -> Self {
        // Who has loaded its model first serves first.
        let a = plan.start(0);
        wait_until("node a has loaded its model", PATIENCE, || {
            a.status()["role"] != "starting"
        });
        let b = plan.start(1);
        Self { plan, a, b }
    }

    fn settle(&self) {
        wait_role(&self.a, "primary");
        wait_role(&self.b, "standby");
        wait_linked(&self.a);
        wait_linked(&self.b);
    }

    /// A front without an engine that uses both nodes.
    pub(crate) fn front(&self, args: &[&str]) -> Server {
        let [a, b] = self.plan.pair_ports;
        let peers = format!("--ha-peer=127.0.0.1:{a},127.0.0.1:{b}");
        let key = format!("--ha-key-file={}", self.plan.key().display());
        let own = ["--ha-role=front", "--ha-node=f", &peers, &key];
        let args = [&own[..], args].concat();
        Server::start_unready(binary(), &ServerOptions::new("spark-mini", &args))
    }

    /// Starts node a again, after its end.
    pub(crate) fn restart_a(&mut self) {
        self.a = self.plan.start(0);
    }

    /// Starts node b again, after its end.
    pub(crate) fn restart_b(&mut self) {
        self.b = self.plan.start(1);
    }
}

/// What lies between two nodes: to each a way to its pair port and one to its HTTP.
pub(crate) struct Cables {
    to_a: [Relay; 2],
    to_b: [Relay; 2],
}

impl Cables {
    fn new(plan: &Plan) -> Self {
        let to = |rank: usize| {
            [plan.pair_ports[rank], plan.http_ports[rank]]
                .map(|port| Relay::start(SocketAddr::from(([127, 0, 0, 1], port))))
        };
        Self {
            to_a: to(0),
            to_b: to(1),
        }
    }

    /// Cuts or heals everything.
    pub(crate) fn cut(&self, is_cut: bool) {
        for relay in self.to_a.iter().chain(&self.to_b) {
            relay.cut(is_cut);
        }
    }

    /// Cuts or heals what a sends to b's pair port, in either's connections.
    pub(crate) fn cut_from_a(&self, is_cut: bool) {
        self.to_b[0].cut_there(is_cut);
        self.to_a[0].cut_back(is_cut);
    }

    /// Cuts or heals what b sends to a's pair port, in either's connections.
    pub(crate) fn cut_from_b(&self, is_cut: bool) {
        self.to_a[0].cut_there(is_cut);
        self.to_b[0].cut_back(is_cut);
    }
}

impl Plan {
    fn new(args: &[&str], faults: [&str; 2]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let key = dir.path().join("pair.key");
        std::fs::write(&key, "42".repeat(32)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            dir,
            models: ["spark-mini"; 2].map(str::to_owned),
            pair_ports: [free_port(), free_port()],
            http_ports: [free_port(), free_port()],
            ways: None,
            args: [args; 2].map(|args| args.iter().map(|&arg| arg.to_owned()).collect()),
            faults: faults.map(str::to_owned),
        }
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("pair.key")
    }

    fn start(&self, rank: usize) -> Server {
        let here = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (own, peer) = (rank, 1 - rank);
        let name = ["a", "b"][rank];
        let state_dir = self.dir.path().join(name);
        std::fs::create_dir_all(&state_dir).unwrap();
        let direct = [self.pair_ports[peer], self.http_ports[peer]].map(here);
        let [pair, http] = self.ways.map_or(direct, |ways| ways[rank]);
        let mut args = vec![
            format!("--port={}", self.http_ports[own]),
            format!("--ha-node={name}"),
            format!("--ha-rank={rank}"),
            format!("--ha-listen={}", here(self.pair_ports[own])),
            format!("--ha-peer={pair}"),
            format!("--ha-peer-http={http}"),
            format!("--ha-key-file={}", self.key().display()),
            format!("--state-dir={}", state_dir.display()),
            "--kv-cache-memory-bytes=64M".to_owned(),
        ];
        args.extend(self.args[rank].iter().cloned());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut options = ServerOptions::new(&self.models[rank], &args);
        if !self.faults[rank].is_empty() {
            options = options.env("HOTSPARE_FAULTS", &self.faults[rank]);
        }
        Server::start_unready(binary(), &options)
    }
}

/// A hook: a shell script that writes to a log.
pub(crate) struct Hook {
    dir: TempDir,
}

impl Hook {
    /// `$LOG` in `script` is the log.
    pub(crate) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the hook");
        let path = dir.path().join("hook.sh");
        let log = dir.path().join("log");
        let text = format!("#!/bin/sh\nLOG='{}'\n{script}\n", log.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { dir }
    }

    /// The option that names it.
    pub(crate) fn option(&self) -> String {
        format!("--ha-hook={}", self.dir.path().join("hook.sh").display())
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// Whether the node says that it serves as the primary.
pub(crate) fn serves(server: &Server) -> bool {
    let reply = server.client().try_get("/ha/primary");
    reply.is_ok_and(|reply| reply.status == 200)
}

/// A port that is free for TCP and UDP.
pub(crate) fn free_port() -> u16 {
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
    ha_at(server.base_url(), args)
}

/// As [`ha`], with the node's address.
pub(crate) fn ha_at(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("ha").args(args).args(["--url", url]);
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
        .next_back();
    (ids, reason.unwrap_or("none").to_owned())
}
