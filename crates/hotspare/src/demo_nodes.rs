//! The two nodes of the demo: processes of this program, with a key and a directory of their own.
//!
//! Invariant: nothing of them is left when the value is dropped.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::demo_end::Ending;
use crate::demo_wire::Wire;

/// Slow enough to be read.
const FAULTS: &str = "slow-step-ms=25,engine=all";

/// Bytes of the pair's key.
const KEY_BYTES: usize = 32;

/// How long loading may take, and how often it is looked at.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
const LOAD_POLL: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Demo {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) ending: Ending,
    wires: Vec<Wire>,
    _dir: Directory,
}

/// A node's process.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    child: Child,
    ending: Ending,
}

/// A directory that goes with its value.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies in the directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Demo {
    /// Starts both nodes; `is_wired`: over wires that can be cut.
    pub(crate) fn start(model: &str, is_wired: bool, ending: &Ending) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("hotspare-demo-{}", std::process::id()));
        let built = std::fs::DirBuilder::new().mode(0o700).create(&path);
        built.map_err(|e| format!("{}: {e}", path.display()))?;
        let dir = Directory(path);
        let key = write_key(&dir.0).map_err(|e| format!("{}: {e}", dir.0.display()))?;
        let pair_ports = [free_port()?, free_port()?];
        let http_ports = [free_port()?, free_port()?];
        // Where node N finds the other one.
        let mut peer_ports = [pair_ports[1], pair_ports[0]];
        let mut wires = Vec::new();
        if is_wired {
            for port in &mut peer_ports {
                let wire = Wire::to(*port).map_err(|e| format!("a port: {e}"))?;
                *port = wire.port();
                wires.push(wire);
            }
        }
        let node = |rank: usize| {
            let name = ["a", "b"][rank];
            let port = http_ports[rank];
            let mut command = Command::new("/proc/self/exe");
            command
                .args(["serve", model, "--host=127.0.0.1", "--log-level=error"])
                .arg(format!("--port={port}"))
                .arg(format!("--ha-node={name}"))
                .arg(format!("--ha-rank={rank}"))
                .arg(format!("--ha-listen=127.0.0.1:{}", pair_ports[rank]))
                .arg(format!("--ha-peer=127.0.0.1:{}", peer_ports[rank]))
                .arg(format!("--ha-key-file={}", key.display()))
                .arg(format!("--state-dir={}", dir.0.join(name).display()))
                .arg("--kv-cache-memory-bytes=64M")
                .env("HOTSPARE_FAULTS", FAULTS)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            match is_wired {
                // A cut network answers no probe: the port is the wire's, too, and datagrams have
                // no wire.
                true => {
                    let probe = format!("--ha-peer-http=127.0.0.1:{}", peer_ports[rank]);
                    command.arg(probe).arg("--ha-udp=false");
                }
                false => {
                    let http = http_ports[1 - rank];
                    command.arg(format!("--ha-peer-http=127.0.0.1:{http}"));
                }
            }
            let child = command.spawn().map_err(|e| format!("node {name}: {e}"))?;
            ending.add(child.id());
            let url = format!("http://127.0.0.1:{port}");
            let ending = ending.clone();
            Ok::<_, String>(Node {
                name,
                url,
                child,
                ending,
            })
        };
        // Who has loaded its model first serves first.
        let a = node(0)?;
        a.wait_loaded()?;
        Ok(Self {
            a,
            b: node(1)?,
            ending: ending.clone(),
            wires,
            _dir: dir,
        })
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> &Node {
        match name {
            "a" => &self.a,
            _ => &self.b,
        }
    }

    /// Cuts the network between the nodes, or makes it whole.
    pub(crate) fn cut(&self, is_cut: bool) {
        for wire in &self.wires {
            wire.cut(is_cut);
        }
    }
}

impl Node {
    /// JSON from the node; `None` where it does not answer.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(2)))
            .build();
        let agent: ureq::Agent = config.into();
        let mut response = agent.get(format!("{}{path}", self.url)).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        serde_json::from_str(&text).ok()
    }

    /// `/ha/status`; null where the node does not answer.
    pub(crate) fn status(&self) -> Value {
        self.get("/ha/status").unwrap_or_default()
    }

    /// Its role; `gone` where it does not answer.
    pub(crate) fn role(&self) -> String {
        self.status()["role"].as_str().unwrap_or("gone").to_owned()
    }

    /// Waits until it has loaded its model.
    fn wait_loaded(&self) -> Result<(), String> {
        let started = Instant::now();
        while matches!(self.role().as_str(), "gone" | "starting") {
            self.ending.check()?;
            if started.elapsed() > LOAD_TIMEOUT {
                return Err(format!(
                    "node {} has not loaded its model in time",
                    self.name
                ));
            }
            std::thread::sleep(LOAD_POLL);
        }
        Ok(())
    }

    /// The process id of its main engine.
    pub(crate) fn engine_pid(&self) -> Result<i32, String> {
        let pid = self.status()["engines"][0]["pid"].as_i64();
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        pid.ok_or_else(|| format!("node {} has no engine", self.name))
    }

    /// SIGKILL to its front; the process id that it had.
    pub(crate) fn kill_front(&mut self) -> u32 {
        let pid = self.child.id();
        self.ending.forget(pid);
        // One that has ended already is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        pid
    }

    /// SIGKILL to a process of its own.
    pub(crate) fn kill_pid(&self, pid: i32) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its engine ends within a second of losing it.
        self.kill_front();
    }
}

/// A fresh key, for this demo alone.
fn write_key(dir: &Path) -> std::io::Result<PathBuf> {
    let mut bytes = [0; KEY_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let path = dir.join("pair.key");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::io::Write::write_all(&mut file, hex.as_bytes())?;
    Ok(path)
}

/// A port that is free for TCP and UDP.
fn free_port() -> Result<u16, String> {
    const NUM_TRIES: usize = 64;
    for _ in 0..NUM_TRIES {
        let tcp = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("a port: {e}"))?;
        let port = tcp.local_addr().map_err(|e| format!("a port: {e}"))?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free for TCP and UDP".to_owned())
}
