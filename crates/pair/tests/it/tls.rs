//! Pairs with certificates over real sockets: who has the right ones meets, nobody else.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use hotspare_failover::Mode;
use hotspare_pair::{PairKeys, PairTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::nodes::{Node, Places, bounded, settled};

/// More than a TLS record, and more than the buffers between.
const MANY: usize = 1 << 20;

/// A CA and what it issues.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("written");
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for `name`, trusting the CA `of`.
    fn node(&self, name: &str, is_expired: bool, of: &Self) -> PairTls {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        if is_expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let [cert_path, key_path] = ["cert.pem", "key.pem"].map(|name| self.dir.path().join(name));
        std::fs::write(&cert_path, certificate.pem()).expect("written");
        std::fs::write(&key_path, key.serialize_pem()).expect("written");
        for path in [&cert_path, &key_path, &of.ca()] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("mode");
        }
        PairTls::from_files(&cert_path, &key_path, &of.ca(), None).expect("files in order")
    }
}

async fn start(places: &Places, index: usize, tls: Option<PairTls>) -> Node {
    let mut config = places.config(index, Mode::Available);
    config.tls = tls;
    // Without datagrams whatever is heard came through TLS.
    config.bounds.udp = false;
    Node::start(config, &places.of[index], None).await
}

fn host(places: &Places, index: usize) -> String {
    places.of[index].pair.ip().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_with_certificates_meets_takes_over_and_carries_engine_traffic() {
    let places = Places::new();
    let authority = Authority::new();
    let [one, two] = [0, 1].map(|i| authority.node(&host(&places, i), false, &authority));
    let a = start(&places, 0, Some(one)).await;
    let mut b = start(&places, 1, Some(two)).await;
    settled(&a, &b).await;
    // The stream is opened in the pair's runtime and used in this one.
    let sent: Vec<u8> = (0..MANY).map(|at| (at as u8).wrapping_mul(7)).collect();
    let expected = sent.clone();
    let send = async {
        let mut stream = a.pair.connect().await.expect("connected");
        stream.write_all(&sent).await.expect("written");
        stream.shutdown().await.expect("ended");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    };
    let receive = async {
        let mut stream = b.streams.next().await.expect("a stream");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.expect("read");
        stream.write_all(b"all of it").await.expect("written");
        stream.shutdown().await.expect("ended");
        got
    };
    let (answer, got) = bounded("an echo", async { tokio::join!(send, receive) }).await;
    assert!(got == expected && answer == "all of it", "{}", got.len());
    a.crash().await;
    b.wait_role(&["primary-solo"]).await;
}

/// Waits until both have refused each other a few times, and have not met.
async fn strangers(nodes: [&Node; 2]) {
    for node in nodes {
        for _ in 0..10_000 {
            if node.pair.view().counters.num_unauthenticated >= 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let view = node.pair.view();
        assert!(view.counters.num_unauthenticated >= 3, "{view:#?}");
        assert_eq!((view.num_links, &view.peer), (0, &None));
        assert!(node.pair.connect().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_ca_expired_missing_and_misnamed_certificates_never_connect() {
    let (ours, other) = (Authority::new(), Authority::new());
    for (what, expired, by, name) in [
        ("another CA", false, &other, None),
        ("expired", true, &ours, None),
        ("another name", false, &ours, Some("192.0.2.1")),
    ] {
        let places = Places::new();
        let name = name.map_or_else(|| host(&places, 1), str::to_owned);
        let right = ours.node(&host(&places, 0), false, &ours);
        let wrong = by.node(&name, expired, &ours);
        let a = start(&places, 0, Some(right)).await;
        let b = start(&places, 1, Some(wrong)).await;
        let error = bounded(what, a.pair.connect()).await.expect_err(what);
        assert!(error.to_string().contains("its certificate"), "{error}");
        strangers([&a, &b]).await;
    }
    // Only one of them has certificates.
    let places = Places::new();
    let a = start(&places, 0, Some(ours.node(&host(&places, 0), false, &ours))).await;
    let b = start(&places, 1, None).await;
    strangers([&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_the_pairs_key_is_not_enough() {
    let places = Places::new();
    let authority = Authority::new();
    let a = start(
        &places,
        0,
        Some(authority.node(&host(&places, 0), false, &authority)),
    )
    .await;
    let mut config = places.config(1, Mode::Available);
    config.tls = Some(authority.node(&host(&places, 1), false, &authority));
    config.bounds.udp = false;
    config.keys = PairKeys::new(&[[8; 32]]).expect("a key");
    let b = Node::start(config, &places.of[1], None).await;
    strangers([&a, &b]).await;
}
