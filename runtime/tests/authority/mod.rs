//! Authorities and certificates for the network's tests, good and bad.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part")]

use std::path::Path;

use octet_runtime::net::{Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority, with a directory for what it makes.
pub struct Authority {
    pub directory: TempDir,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Valid {
    Now,
    Past,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { directory: tempfile::tempdir().unwrap(), pem, issuer: Issuer::new(params, key) }
    }

    /// Files of a node that others know by these names.
    pub fn issue(&self, node: &str, names: &[&str], valid: Valid) -> TlsFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let (from, until) = match valid {
            Valid::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1)),
            Valid::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        };
        (params.not_before, params.not_after) = (from, until);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let directory = self.directory.path().join(node);
        std::fs::create_dir(&directory).unwrap();
        let files = TlsFiles::in_directory(&directory);
        write(&files.ca, &self.pem);
        write(&files.cert, &certificate.pem());
        write(&files.key, &key.serialize_pem());
        files
    }

    /// As [`Authority::issue`] for this machine, loaded.
    pub fn node(&self, node: &str) -> Tls {
        Tls::load(&self.issue(node, &["localhost", "127.0.0.1"], Valid::Now)).unwrap()
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
