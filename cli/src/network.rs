//! How a node meets the network: the flags that every role shares.
//!
//! Invariant: without TLS and without `--insecure-network` a node speaks to its own machine alone.

use anyhow::{Result, bail};
use clap::Args;
use octet_runtime::net::{CA_FILE, CERT_FILE, Exposure, KEY_FILE, Tls, TlsFiles};
use std::path::PathBuf;

/// Encryption between nodes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// A directory with ca.pem, cert.pem and key.pem, as `octet certs issue` makes it: mutual TLS.
    #[arg(long, env = "OCTET_TLS_DIR", value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// The authority's certificate, where it is not in --tls-dir.
    #[arg(long, env = "OCTET_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The node's certificate, where it is not in --tls-dir.
    #[arg(long, env = "OCTET_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The node's private key, where it is not in --tls-dir.
    #[arg(long, env = "OCTET_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Speak to other machines in plain text: everybody on the way can read the join token.
    #[arg(long, env = "OCTET_INSECURE_NETWORK")]
    insecure_network: bool,
}

impl NetworkArgs {
    /// What to listen with (`octet_runtime::net::bind`) and what to dial with (it is a `Dial`).
    ///
    /// # Errors
    /// The flags contradict each other, or the certificate cannot be used.
    pub fn exposure(&self) -> Result<Exposure> {
        let Some(files) = self.files()? else {
            let insecure = self.insecure_network;
            return Ok(if insecure { Exposure::InsecureNetwork } else { Exposure::Loopback });
        };
        if self.insecure_network {
            bail!(
                "--insecure-network and a certificate contradict each other: leave one of them out"
            );
        }
        Ok(Exposure::MutualTls(Tls::load(&files)?))
    }

    fn files(&self) -> Result<Option<TlsFiles>> {
        let file = |given: &Option<PathBuf>, name: &str| {
            given.clone().or_else(|| self.tls_dir.as_ref().map(|dir| dir.join(name)))
        };
        let ca = file(&self.tls_ca, CA_FILE);
        let cert = file(&self.tls_cert, CERT_FILE);
        let key = file(&self.tls_key, KEY_FILE);
        match (ca, cert, key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), Some(key)) => Ok(Some(TlsFiles { ca, cert, key })),
            (ca, cert, key) => {
                let given = [("--tls-ca", ca), ("--tls-cert", cert), ("--tls-key", key)];
                let missing = given.iter().filter(|(_, path)| path.is_none());
                let missing: Vec<&str> = missing.map(|(flag, _)| *flag).collect();
                bail!(
                    "TLS needs an authority, a certificate and its key: give {} too, or --tls-dir",
                    missing.join(" and ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_that_make_no_sense_together_are_refused_with_what_to_do() {
        let file = || Some(PathBuf::from("nowhere.pem"));
        let half = NetworkArgs { tls_ca: file(), tls_key: file(), ..NetworkArgs::default() };
        assert!(half.exposure().unwrap_err().to_string().contains("give --tls-cert too"));
        let both =
            NetworkArgs { insecure_network: true, tls_dir: file(), ..NetworkArgs::default() };
        assert!(both.exposure().unwrap_err().to_string().contains("contradict"));
        let missing = NetworkArgs { tls_dir: file(), ..NetworkArgs::default() };
        let error = missing.exposure().unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("octet certs"), "{error}");
        assert!(matches!(NetworkArgs::default().exposure(), Ok(Exposure::Loopback)));
        let insecure = NetworkArgs { insecure_network: true, ..NetworkArgs::default() };
        assert!(matches!(insecure.exposure(), Ok(Exposure::InsecureNetwork)));
    }
}
