//! Mutual TLS 1.3 around the pair's TCP connections: each node shows a certificate of its CA.
//!
//! It comes on top of Noise, which runs inside with the pair's key and covers the TLS channel (its
//! exported key is part of the prologue): a peer needs a certificate and the key. Sessions are not
//! resumed, so that every connection verifies anew.
//!
//! Invariant: nothing is read as Noise before both certificates were verified against the CA and
//! bear a name of the peer.

use std::path::Path;
use std::sync::Arc;

use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::PairError;
use crate::tls_error::explain;

/// Of the key that binds Noise to the TLS channel.
pub(crate) const BINDING_BYTES: usize = 32;
const BINDING_LABEL: &[u8] = b"EXPORTER-hotspare-pair";

/// What a node shows its peer, and what it asks of it.
#[derive(Clone)]
pub struct PairTls {
    client: TlsConnector,
    server: TlsAcceptor,
    /// The names of which the peer's certificate must bear one, where not those of its addresses.
    peer_name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for PairTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PairTls({:?})", self.peer_name)
    }
}

impl PairTls {
    /// Reads this node's certificate chain and private key, and the CA's certificates, all PEM.
    ///
    /// `peer_name`: the DNS name or address that the peer's certificate must bear; without it, the
    /// host of one of the peer's addresses.
    ///
    /// # Errors
    /// A file cannot be read, holds nothing of the kind, or can be changed (the key: read) by
    /// others than its owner; the key is not the certificate's.
    pub fn from_files(
        cert: &Path,
        key: &Path,
        ca: &Path,
        peer_name: Option<&str>,
    ) -> Result<Self, PairError> {
        let refuse = |path: &Path, reason: String| PairError::TlsFile {
            path: path.to_owned(),
            reason,
        };
        check_mode(cert, 0o022, "lets others change it: chmod go-w")?;
        check_mode(key, 0o077, "lets others read it: chmod 600")?;
        check_mode(ca, 0o022, "lets others change it: chmod go-w")?;
        let chain = certificates(cert)?;
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| refuse(key, format!("no private key in it: {error}")))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots
                .add(certificate)
                .map_err(|error| refuse(ca, error.to_string()))?;
        }
        let peer_name = peer_name
            .map(|name| server_name(name).ok_or_else(|| bad_name(name)))
            .transpose()?;
        Self::new(roots, chain, &private, peer_name).map_err(|error| refuse(cert, explain(&error)))
    }

    fn new(
        roots: RootCertStore,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        peer_name: Option<ServerName<'static>>,
    ) -> Result<Self, rustls::Error> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let of_clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let versions = &[&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(of_clients)
            .with_single_cert(chain, key.clone_key())?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            client: TlsConnector::from(Arc::new(client)),
            server: TlsAcceptor::from(Arc::new(server)),
            peer_name,
        })
    }

    /// Whether a peer at these addresses (`host:port`) has a name that a certificate could bear.
    ///
    /// # Errors
    /// One has none.
    pub(crate) fn check_names(&self, peers: &[String]) -> Result<(), PairError> {
        for peer in peers {
            self.name_of(peer).ok_or_else(|| bad_name(peer))?;
        }
        Ok(())
    }

    /// What the certificate of the peer at this address must bear.
    fn name_of(&self, address: &str) -> Option<ServerName<'static>> {
        let host = || server_name(host(address));
        self.peer_name.clone().or_else(host)
    }

    /// Dials: verifies who answers at `address`, and is verified.
    ///
    /// # Errors
    /// One sentence, of what this side saw.
    pub(crate) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        address: &str,
    ) -> Result<(TlsStream<S>, [u8; BINDING_BYTES]), std::io::Error> {
        let name = self.name_of(address);
        let name = name.ok_or_else(|| std::io::Error::other(bad_name(address)))?;
        let stream = self.client.connect(name, stream).await?;
        let binding =
            stream
                .get_ref()
                .1
                .export_keying_material([0; BINDING_BYTES], BINDING_LABEL, None);
        Ok((stream.into(), binding.map_err(std::io::Error::other)?))
    }

    /// Answers: verifies who dialled, and that he bears a name of one of the peer's addresses.
    ///
    /// # Errors
    /// One sentence, of what this side saw.
    pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peers: &[String],
    ) -> Result<(TlsStream<S>, [u8; BINDING_BYTES]), std::io::Error> {
        let stream = self.server.accept(stream).await?;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().unwrap_or_default().first();
        self.check_bearer(shown, peers)
            .map_err(std::io::Error::other)?;
        let binding = session.export_keying_material([0; BINDING_BYTES], BINDING_LABEL, None);
        let binding = binding.map_err(std::io::Error::other)?;
        Ok((stream.into(), binding))
    }

    fn check_bearer(
        &self,
        shown: Option<&CertificateDer<'_>>,
        peers: &[String],
    ) -> Result<(), rustls::Error> {
        let shown = shown.ok_or(rustls::Error::NoCertificatesPresented)?;
        let shown = ParsedCertificate::try_from(shown)?;
        let mut result = Err(rustls::Error::General("no name is expected".to_owned()));
        for peer in peers {
            if let Some(name) = self.name_of(peer) {
                result = verify_server_name(&shown, &name);
            }
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

/// `host` of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}

fn bad_name(name: &str) -> PairError {
    PairError::Config(format!(
        "{name:?} is no name that a certificate could bear (--ha-tls-peer-name)"
    ))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let refuse = |reason: String| PairError::TlsFile {
        path: path.to_owned(),
        reason,
    };
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(error.to_string()))?;
    match read.is_empty() {
        true => Err(refuse("no certificate in it".to_owned())),
        false => Ok(read),
    }
}

fn check_mode(path: &Path, forbidden: u32, why: &str) -> Result<(), PairError> {
    let refuse = |reason: String| PairError::TlsFile {
        path: path.to_owned(),
        reason,
    };
    let meta = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
    match mode & forbidden {
        0 => Ok(()),
        _ => Err(refuse(format!("mode {:o} {why}", mode & 0o777))),
    }
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
