//! MLflow's REST API, as far as a run needs it.
//!
//! Invariants: every call has a deadline. A call that is made twice shows once: what is created is looked for
//! first by a name that only this journal has, a batch carries its own times, and a file replaces itself.

mod bind;
mod credentials;
mod failure;
mod http;
mod send;

pub use bind::Binding;
pub use credentials::Credentials;
pub use failure::Failure;
pub use http::Server;

use std::net::IpAddr;
use std::path::PathBuf;

/// Which server, and how to speak to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its address, without a slash at the end.
    pub base: String,
    /// The host in the address.
    pub host: String,
    /// The experiment that the run belongs to.
    pub experiment: String,
    /// What to show it.
    pub credentials: Option<Credentials>,
    /// The certificates of the authorities to believe, in PEM, instead of the web's.
    pub authority: Option<PathBuf>,
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
