//! A role's metrics and its liveness, on a port of plain HTTP.
//!
//! Invariant: numbers are read when they are asked for, from what the role counts anyway; nothing is done for
//! a scraper that never comes.

mod coordinator;
mod learner;
mod page;
mod reward;
mod worker;

pub use learner::LearnerPage;
pub use page::Page;
pub use reward::RewardPage;
pub use worker::WorkerPage;

use super::process::listen_flag;
use anyhow::Result;
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Pages, PagesListener, Text};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

/// Where metrics are shown, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsListen {
    /// Nowhere.
    Off,
    /// At an address of this machine.
    At(SocketAddr),
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At).map_err(|_| {
                format!("expected an address such as 127.0.0.1:9464, or off, found {text:?}")
            }),
        }
    }
}

/// A page that is being filled.
pub type Filled<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Page, String>> + Send + 'a>>;

/// What a role counts.
pub trait Source: Send + Sync + 'static {
    /// Its numbers now.
    fn page(&self) -> Filled<'_>;
}

/// A role's port for metrics.
pub struct Metrics {
    shown: Arc<Shown>,
    address: Option<SocketAddr>,
}

struct Shown {
    role: &'static str,
    source: OnceLock<Box<dyn Source>>,
    stop: CancellationToken,
}

impl Metrics {
    /// Binds the port and shows that the role is starting.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn begin(
        role: &'static str,
        at: MetricsListen,
        exposure: &Exposure,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let shown = Arc::new(Shown { role, source: OnceLock::new(), stop: stop.clone() });
        let MetricsListen::At(address) = at else { return Ok(Self { shown, address: None }) };
        let listener =
            listen_flag("--metrics-listen", PagesListener::bind(address, exposure).await)?;
        let address = Some(listener.address());
        // Until the process ends: also a role that drains has something to show.
        tokio::spawn(listener.serve(shown.clone(), CancellationToken::new()));
        Ok(Self { shown, address })
    }

    /// The role is ready, and this is what it counts.
    pub fn ready(&self, source: impl Source) {
        // Said once in a process.
        drop(self.shown.source.set(Box::new(source)));
    }
}

impl fmt::Display for Metrics {
    /// For the first line of a role.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "; metrics at http://{address}/metrics"),
            None => Ok(()),
        }
    }
}

impl Pages for Shown {
    fn metrics(&self) -> Text<'_> {
        Box::pin(async move {
            let mut page = match self.source.get() {
                Some(source) => source.page().await?,
                None => Page::default(),
            };
            page.gauge("octet_build_info", "The program's version.")
                .set(&[("version", env!("CARGO_PKG_VERSION")), ("role", self.role)], 1);
            page.text().map_err(|error| error.to_string())
        })
    }

    fn health(&self) -> Text<'_> {
        Box::pin(async move {
            if self.stop.is_cancelled() {
                return Err("stopping".to_owned());
            }
            match self.source.get() {
                // A role whose parts hang does not answer here either, and is late.
                Some(source) => source.page().await.map(|_| "ok".to_owned()),
                None => Err("starting".to_owned()),
            }
        })
    }
}
