//! A node's certificate, and what it believes of others.
//!
//! Invariants: both sides show a certificate of the one authority of the run, and nothing older than
//! TLS 1.3 is spoken. What is wrong with a peer or a file is said in one line with what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
};

/// The authority's certificate in a node's TLS directory.
pub const CA_FILE: &str = "ca.pem";
/// The node's certificate there.
pub const CERT_FILE: &str = "cert.pem";
/// The node's private key there.
pub const KEY_FILE: &str = "key.pem";

/// Where a node's certificate is, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the authority that signs every node's.
    pub ca: PathBuf,
    /// The node's certificate, the authority's after it or not.
    pub cert: PathBuf,
    /// The node's private key.
    pub key: PathBuf,
}

/// A node's certificate, ready to listen and to dial with. Clones share it.
#[derive(Clone)]
pub struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

/// Why a node's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that holds no such thing.
    #[error("{}: expected {expected} in PEM, found {found}; `octet certs` makes such files", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong with it.
        found: String,
    },
    /// Files that do not belong together.
    #[error("{} and {}: expected a certificate and its private key, found: {problem}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl TlsFiles {
    /// The files of a directory as `octet certs issue` makes it.
    pub fn in_directory(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Self { ca: file(CA_FILE), cert: file(CERT_FILE), key: file(KEY_FILE) }
    }
}

impl Tls {
    /// Reads a node's certificate.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, or certificate and key do not belong together.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca)? {
            roots.add(root).map_err(|error| TlsError::File {
                path: files.ca.clone(),
                expected: "an authority's certificate",
                found: error.to_string(),
            })?;
        }
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::File {
            path: files.key.clone(),
            expected: "a private key",
            found: error.to_string(),
        })?;
        Self::build(provider, Arc::new(roots), chain, key).map_err(|problem| TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            problem,
        })
    }

    fn build(
        provider: Arc<CryptoProvider>,
        roots: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let text = |error: Error| error.to_string();
        let of_clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| error.to_string())?;
        let of_servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(text)?
            .with_client_cert_verifier(of_clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(text)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(text)?
            .with_webpki_verifier(of_servers)
            .with_client_auth_cert(chain, key)
            .map_err(text)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(certificate and key)")
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad =
        |found: String| TlsError::File { path: path.to_owned(), expected: "a certificate", found };
    let all = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
    if all.is_empty() { Err(bad("none".to_owned())) } else { Ok(all) }
}

/// What is wrong between this node and `peer`, in words; nothing when TLS is not to blame.
pub(super) fn explain(error: &io::Error, peer: &str) -> Option<String> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())?;
    let other_authority = "both need certificates of one authority (`octet certs issue`)";
    Some(match tls {
        Error::InvalidMessage(_) => {
            format!("{peer} does not speak TLS: give both sides --tls-dir, or neither")
        }
        Error::NoCertificatesPresented => format!(
            "{peer} showed no certificate: give it one with --tls-dir (`octet certs issue`)"
        ),
        Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {peer} has expired: make it anew (`octet certs issue`)")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {peer} is not valid yet: compare the two clocks")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the certificate of {peer} is for other names ({problem}): issue it with --san and the name that is dialled"
                )
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("the certificate of {peer} is of another authority: {other_authority}")
            }
            other => format!("the certificate of {peer} is not accepted: {other}"),
        },
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!("{peer} demands a certificate: give this node one with --tls-dir")
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => format!(
            "{peer} refuses this node's certificate, which has expired: make it anew (`octet certs issue`)"
        ),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        ) => format!("{peer} refuses this node's certificate ({tls}): {other_authority}"),
        other => format!("TLS with {peer} failed: {other}"),
    })
}
