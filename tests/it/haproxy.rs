//! Debian's HAProxy in front of a pair, with the configuration that docs/ offers, and stock openai
//! clients behind it, while the primary is killed again and again.
//!
//! `HOTSPARE_HAPROXY_SECONDS` makes it longer than the usual three deaths.
//!
//! Invariant: a machine without HAProxy or Python says what it leaves out; CI leaves nothing out.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hotspare_testkit::{Client, wait_until};
use serde_json::Value;

use crate::pair_nodes::{Nodes, free_port, kill_node, wait_linked, wait_role};
use crate::support::PATIENCE;

/// Between two deaths.
const PERIOD: Duration = Duration::from_secs(10);
const USUAL_SECONDS: u64 = 30;

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Says that nothing was tested.
#[allow(clippy::print_stderr, reason = "tests speak on stderr")]
fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "CI leaves nothing out: {reason}"
    );
    eprintln!("SKIPPED haproxy: {reason}");
}

/// The Python that has the openai package; `None` where it cannot be had.
fn python() -> Option<PathBuf> {
    let status = Command::new("bash")
        .arg(root().join("tests/clients/run.sh"))
        .arg("--prepare-python")
        .stdin(Stdio::null())
        .status()
        .expect("bash runs");
    let python = root().join("target/clients/venv/bin/python");
    (status.success() && python.exists()).then_some(python)
}

fn proxy(nodes: &Nodes) -> Option<(Ended, String)> {
    let bind = format!("127.0.0.1:{}", free_port());
    let host = |server: &hotspare_testkit::Server| {
        server.base_url().trim_start_matches("http://").to_owned()
    };
    let child = Command::new("haproxy")
        .args(["-q", "-db", "-f"])
        .arg(root().join("docs/deploy/haproxy.cfg"))
        .env("HAPROXY_BIND", &bind)
        .env("NODE_A", host(&nodes.a))
        .env("NODE_B", host(&nodes.b))
        .stdin(Stdio::null())
        .spawn()
        .ok()?;
    let proxy = Ended(child);
    let url = format!("http://{bind}");
    let client = Client::new(url.clone());
    wait_until("the proxy serves", PATIENCE, || {
        client
            .try_get("/v1/models")
            .is_ok_and(|reply| reply.status == 200)
    });
    Some((proxy, url))
}

#[test]
fn stock_clients_notice_no_death_of_the_primary() {
    let Some(python) = python() else {
        return skip("the openai package cannot be installed");
    };
    let mut nodes = Nodes::start(&[], ["slow-step-ms=5,engine=all"; 2]);
    let Some((_proxy, url)) = proxy(&nodes) else {
        return skip("haproxy not found");
    };
    let load = Command::new(python)
        .arg(root().join("tests/clients/python/pair_load.py"))
        .env("HOTSPARE_TEST_URL", &url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut load = Ended(load);
    let seconds = std::env::var("HOTSPARE_HAPROXY_SECONDS").ok();
    let seconds = seconds.map_or(USUAL_SECONDS, |text| text.parse().expect("seconds"));
    let start = Instant::now();
    let mut num_deaths = 0;
    let mut next = PERIOD / 2;
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(next.saturating_sub(start.elapsed()));
        next += PERIOD;
        let is_a = nodes.a.status()["role"]
            .as_str()
            .is_some_and(|role| role.starts_with("primary"));
        match is_a {
            true => kill_node(&mut nodes.a),
            false => kill_node(&mut nodes.b),
        }
        num_deaths += 1;
        let survivor = if is_a { &nodes.b } else { &nodes.a };
        wait_role(survivor, "primary-solo");
        match is_a {
            true => nodes.restart_a(),
            false => nodes.restart_b(),
        }
        let back = if is_a { &nodes.a } else { &nodes.b };
        wait_role(back, "standby");
        wait_linked(back);
    }
    drop(load.0.stdin.take());
    let mut text = String::new();
    let stdout = load.0.stdout.as_mut().expect("it was piped");
    stdout.read_to_string(&mut text).expect("text");
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(num_deaths >= 2);
    assert_eq!(told["failed"], Value::Array(Vec::new()), "{told}");
    assert!(told["answered"].as_u64() > Some(20), "{told}");
}
