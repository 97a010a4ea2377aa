//! `octet certs`: a development authority, certificates for nodes, and a look whether they work.
//!
//! Invariants: a private key is readable by its owner alone from its first byte on; an authority is
//! never overwritten, since that would turn every node's certificate into a stranger's.

use crate::network::NetworkArgs;
use crate::screen::say;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use octet_proto::error::{describe, is_transport_failure};
use octet_proto::reward::{DescribeRequest, reward_client};
use octet_proto::transport::ClientOptions;
use octet_runtime::net::{CA_FILE, CERT_FILE, Dial, KEY_FILE};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The authority's private key; it stays where it was made.
const CA_KEY_FILE: &str = "ca-key.pem";
/// What the authority calls itself, in every certificate that it signs.
const AUTHORITY: &str = "octet development authority";
/// Clocks differ: what is issued now is valid since yesterday.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Make certificates for mutual TLS between nodes, and check them.
///
/// For development and closed clusters: one authority in a directory, one directory for each node. An
/// authority of your own does as well: a node needs ca.pem, cert.pem and key.pem.
#[derive(Args, Debug)]
pub struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Subcommand, Debug)]
enum CertsCommand {
    /// Make an authority: DIR/ca.pem, and DIR/ca-key.pem, which stays there.
    Init {
        /// Where the authority is kept.
        #[arg(long)]
        dir: PathBuf,
        /// For how long it is valid.
        #[arg(long, default_value_t = 3650)]
        days: u32,
    },
    /// Sign a certificate for a node: DIR/NAME with all that `--tls-dir` wants.
    Issue {
        /// Where the authority is kept.
        #[arg(long)]
        dir: PathBuf,
        /// The node; also a name that it can be dialled by.
        #[arg(long)]
        name: String,
        /// A further host name or address that others dial it by; localhost is always one.
        #[arg(long = "san", value_name = "HOST")]
        sans: Vec<String>,
        /// For how long it is valid.
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
    /// Dial a node with this node's certificate, and say what is wrong if something is.
    Check {
        /// The node, e.g. https://learner:5000.
        address: String,
        #[command(flatten)]
        network: NetworkArgs,
    },
}

/// Runs the command.
pub fn run(args: &CertsArgs) -> Result<()> {
    match &args.command {
        CertsCommand::Init { dir, days } => init(dir, *days),
        CertsCommand::Issue { dir, name, sans, days } => issue(dir, name, sans, *days),
        CertsCommand::Check { address, network } => check(address, network),
    }
}

fn init(dir: &Path, days: u32) -> Result<()> {
    for file in [CA_FILE, CA_KEY_FILE] {
        if dir.join(file).exists() {
            bail!(
                "{} holds an authority already ({file}): issue certificates with it, or choose another --dir",
                dir.display()
            );
        }
    }
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let key = KeyPair::generate().context("drawing a key")?;
    let certificate = authority(days)?.self_signed(&key).context("signing the authority")?;
    write_private(&dir.join(CA_KEY_FILE), &key.serialize_pem())?;
    write(&dir.join(CA_FILE), &certificate.pem())?;
    say(format!(
        "authority in {}; next: octet certs issue --dir {} --name NODE --san HOST",
        dir.display(),
        dir.display()
    ));
    Ok(())
}

fn issue(dir: &Path, name: &str, sans: &[String], days: u32) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        bail!("--name: expected letters, digits, `.`, `-` and `_`, found `{name}`");
    }
    let at = dir.join(CA_KEY_FILE);
    let pem = fs::read_to_string(&at).with_context(|| {
        format!("reading {}; make the authority with octet certs init", at.display())
    })?;
    let key = KeyPair::from_pem(&pem).with_context(|| format!("reading {}", at.display()))?;
    let ca = fs::read_to_string(dir.join(CA_FILE))
        .with_context(|| format!("reading {}", dir.join(CA_FILE).display()))?;
    let issuer = Issuer::new(authority(days)?, key);

    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend([name.to_owned()].into_iter().chain(sans.iter().cloned()));
    names.dedup();
    let mut params = CertificateParams::new(names.clone())
        .with_context(|| format!("the names {}", names.join(", ")))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid(&mut params, days)?;
    let key = KeyPair::generate().context("drawing a key")?;
    let certificate = params.signed_by(&key, &issuer).context("signing the certificate")?;

    let node = dir.join(name);
    fs::create_dir_all(&node).with_context(|| format!("making {}", node.display()))?;
    write_private(&node.join(KEY_FILE), &key.serialize_pem())?;
    write(&node.join(CERT_FILE), &certificate.pem())?;
    write(&node.join(CA_FILE), &ca)?;
    say(format!(
        "{} for {}, {days} days; use it with --tls-dir {}",
        name,
        names.join(", "),
        node.display()
    ));
    Ok(())
}

fn check(address: &str, network: &NetworkArgs) -> Result<()> {
    let exposure = network.exposure()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(async {
        let mut client = reward_client(exposure.dial(address, &ClientOptions::default())?);
        match client.describe(DescribeRequest {}).await {
            Err(status) if is_transport_failure(&status) => bail!("{}", describe(&status)),
            // Any answer shows that the two understand each other, that of another service too.
            _ => Ok(()),
        }
    })?;
    say(format!("{address} answers, and each side accepts the other's certificate"));
    Ok(())
}

/// The authority as it is written into certificates; its key makes it another one.
fn authority(days: u32) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("the authority")?;
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, days)?;
    Ok(params)
}

fn valid(params: &mut CertificateParams, days: u32) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = date_time_ymd(1970, 1, 1) + now.context("the clock is before 1970")?;
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes what only the owner may read, in one piece.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let staged = path.with_extension("pem.new");
    let writing = || {
        if staged.exists() {
            fs::remove_file(&staged)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    writing().with_context(|| format!("writing {}", path.display()))
}
