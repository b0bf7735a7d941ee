//! Mutual TLS over pipes in memory: who is refused, by whom, and in what words.

use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const PEER: &str = "127.0.0.1:7946";

/// A CA of its own, and what it has issued.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let authority = Self {
            dir,
            issuer: Issuer::new(params, key),
        };
        authority.write("ca.pem", &certificate.pem(), 0o644);
        authority
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
    }

    /// A certificate for `name`, as files `cert.pem` and `key.pem`.
    fn issue(&self, name: &str, is_expired: bool) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        if is_expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        self.write("cert.pem", &certificate.pem(), 0o644);
        self.write("key.pem", &key.serialize_pem(), 0o600);
    }

    /// With the certificate issued last, trusting `of`.
    fn load(&self, of: &Self, peer_name: Option<&str>) -> Result<PairTls, PairError> {
        let at = |name: &str| self.dir.path().join(name);
        let ca = of.dir.path().join("ca.pem");
        PairTls::from_files(&at("cert.pem"), &at("key.pem"), &ca, peer_name)
    }

    fn node(&self, name: &str, is_expired: bool, of: &Self) -> PairTls {
        self.issue(name, is_expired);
        self.load(of, None).expect("files in order")
    }
}

type Side = Result<[u8; BINDING_BYTES], String>;

/// What either side says, after a byte of each was read by the other one.
async fn shake(dialler: &PairTls, answerer: &PairTls) -> (Side, Side) {
    let (a, b) = duplex(1 << 16);
    let peers = [PEER.to_owned()];
    let dial = async {
        let (mut stream, binding) = dialler.dial(a, PEER).await?;
        stream.write_all(b"a").await?;
        stream.flush().await?;
        assert_eq!(stream.read_u8().await?, b'b');
        Ok(binding)
    };
    let answer = async {
        let (mut stream, binding) = answerer.answer(b, &peers).await?;
        assert_eq!(stream.read_u8().await?, b'a');
        stream.write_all(b"b").await?;
        stream.flush().await?;
        Ok(binding)
    };
    let (a, b) = tokio::join!(dial, answer);
    (a.map_err(text), b.map_err(text))
}

fn text(error: std::io::Error) -> String {
    crate::noise::HandshakeError::Io(error).of_tls().to_string()
}

#[tokio::test]
async fn both_verify_each_other_and_name_the_same_channel() {
    let authority = Authority::new();
    let one = authority.node("127.0.0.1", false, &authority);
    let two = authority.node("127.0.0.1", false, &authority);
    let (a, b) = shake(&one, &two).await;
    let binding = a.expect("dialled");
    assert_eq!(Ok(binding), b);
    let (again, _) = shake(&one, &two).await;
    assert_ne!(Ok(binding), again, "each channel has its own");
}

#[tokio::test]
async fn whoever_is_wrong_is_refused_by_the_other_one_in_plain_words() {
    let (ours, other) = (Authority::new(), Authority::new());
    let right = ours.node("127.0.0.1", false, &ours);
    for (name, expired, by, expected) in [
        ("127.0.0.1", false, &other, "not of this pair's CA"),
        ("127.0.0.1", true, &ours, "has expired"),
        ("other.example", false, &ours, "another node's"),
    ] {
        let wrong = by.node(name, expired, &ours);
        let (dialler, _) = shake(&right, &wrong).await;
        let seen = dialler.expect_err("the dialler verifies");
        assert!(seen.contains(expected), "{seen}");
        let (told, answerer) = shake(&wrong, &right).await;
        let seen = answerer.expect_err("the answerer verifies");
        assert!(seen.contains(expected), "{seen}");
        assert!(told.is_err(), "a dialler that is refused hears of it");
    }
}

#[tokio::test]
async fn without_a_certificate_or_without_tls_nobody_comes_in() {
    let authority = Authority::new();
    let right = authority.node("127.0.0.1", false, &authority);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority.dir.path().join("ca.pem")).expect("a CA") {
        roots.add(certificate).expect("added");
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let nobody = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let nobody = PairTls {
        client: TlsConnector::from(Arc::new(nobody)),
        ..right.clone()
    };
    let (told, answerer) = shake(&nobody, &right).await;
    assert_eq!(answerer, Err("it shows no certificate".to_owned()));
    let told = told.expect_err("refused");
    assert!(told.contains("is missing"), "{told}");
    let (mut plain, server) = duplex(1 << 10);
    plain.write_all(b"HSPR\x01abcd").await.expect("written");
    let error = right.answer(server, &[PEER.to_owned()]).await.err();
    let seen = text(error.expect("it is no TLS"));
    assert!(seen.contains("does not speak TLS"), "{seen}");
}

#[tokio::test]
async fn a_name_that_is_set_stands_in_for_the_address() {
    let authority = Authority::new();
    authority.issue("node.pair.example", false);
    let named = authority.load(&authority, Some("node.pair.example"));
    let named = named.expect("files in order");
    let (a, b) = shake(&named, &named).await;
    assert!(a.is_ok() && a == b, "{a:?}");
    let by_address = authority.load(&authority, None).expect("files in order");
    let (a, _) = shake(&by_address, &named).await;
    assert!(a.expect_err("no such address").contains("another node's"));
    assert!(authority.load(&authority, Some("no name")).is_err());
    assert!(by_address.check_names(&["[::1]:7946".to_owned()]).is_ok());
    assert!(by_address.check_names(&["a b:1".to_owned()]).is_err());
}

#[test]
fn files_that_others_can_read_or_change_are_refused() {
    let authority = Authority::new();
    authority.issue("127.0.0.1", false);
    let set = |name: &str, mode| {
        let path = authority.dir.path().join(name);
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode");
    };
    for (name, bad, good) in [
        ("key.pem", 0o640, 0o400),
        ("cert.pem", 0o664, 0o644),
        ("ca.pem", 0o646, 0o444),
    ] {
        set(name, bad);
        let error = authority.load(&authority, None).expect_err(name);
        assert!(error.to_string().contains("chmod"), "{name}: {error}");
        set(name, good);
        assert!(authority.load(&authority, None).is_ok(), "{name}");
    }
    // A key that is not the certificate's, and a file that holds no certificate.
    authority.write(
        "key.pem",
        &KeyPair::generate().expect("a key").serialize_pem(),
        0o600,
    );
    let error = authority.load(&authority, None).expect_err("another key");
    assert!(
        error.to_string().contains("not this certificate's"),
        "{error}"
    );
    authority.write("cert.pem", "", 0o644);
    let error = authority.load(&authority, None).expect_err("an empty file");
    assert!(error.to_string().contains("no certificate"), "{error}");
}
