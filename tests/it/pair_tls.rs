//! A pair with certificates: two real nodes, their command line, and what they log.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hotspare_testkit::wait_until;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::pair_nodes::{CHAT, Nodes, kill_node, wait_role};
use crate::support::{PATIENCE, chat};

/// A CA, whose certificate lies in `ca.pem`.
fn authority(dir: &Path) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    Issuer::new(params, key)
}

/// Writes a certificate for loopback and its key; the options that name them.
fn issue(dir: &Path, node: &str, issuer: &Issuer<'static, KeyPair>) -> Vec<String> {
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let file = |name: &str, text: String| -> PathBuf {
        let path = dir.join(format!("{node}.{name}"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let cert = file("cert", certificate.pem());
    let key = file("key", key.serialize_pem());
    let ca = dir.join("ca.pem");
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o644)).unwrap();
    [("cert", cert), ("key", key), ("ca", ca)]
        .map(|(what, path)| format!("--ha-tls-{what}={}", path.display()))
        .to_vec()
}

#[test]
fn nodes_with_certificates_are_a_pair_and_one_of_another_ca_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = authority(dir.path());
    let args = ["a", "b"].map(|node| issue(dir.path(), node, &issuer));
    let mut nodes = Nodes::start_each(args);
    assert_eq!(nodes.b.client().post(CHAT, &chat("Hello")).status, 200);
    kill_node(&mut nodes.a);
    wait_role(&nodes.b, "primary-solo");

    // Node a comes back with a certificate that somebody else gave it.
    let elsewhere = tempfile::tempdir().unwrap();
    issue(dir.path(), "a", &authority(elsewhere.path()));
    nodes.restart_a();
    wait_until("b says whom it refused, and why", PATIENCE, || {
        nodes.b.log_lines().iter().any(|line| {
            line.contains("a connection was refused") && line.contains("not of this pair's CA")
        })
    });
    assert_eq!(nodes.a.status()["peer_engine"], false);
}
