//! The server: connections in, the drain at the end.
//!
//! Invariants: after `stop` new requests are turned away with 503 while those under way finish, and all is over
//! within the drain. Connections are bounded in number and in age.

use crate::counters::Counters;
use crate::desk::{Desk, Settings};
use crate::engine::{Engine, EngineLost};
use crate::loaded::Loaded;
use crate::routes::router;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::mailbox;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The most connections at once.
const MOST_CONNECTIONS: usize = 1024;
/// How long a request's head may take, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(60);
/// How old a connection may get; what it is answering then, it finishes.
const AGE: Duration = Duration::from_secs(3600);
/// How long to pause after a failed accept: most causes, such as too many open files, last a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long last words may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A server that has not begun.
pub struct Server {
    desk: Arc<Desk>,
    engine: Engine,
}

/// How a server ended that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was under way any more.
    Drained,
    /// So many requests were cut off at the end of the drain.
    Cut(usize),
}

impl Server {
    /// A server of `loaded`.
    pub fn new(settings: Settings, loaded: Loaded) -> Self {
        let counters = Arc::new(Counters::default());
        let (address, inbox) = mailbox("requests", settings.queue.max(1));
        let engine = Engine { inbox, counters: Arc::clone(&counters), rows: settings.rows };
        Self { desk: Arc::new(Desk::new(settings, loaded, address, counters)), engine }
    }

    /// Where another policy can take over.
    pub fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Serves until `stop`, and then what is under way.
    ///
    /// # Errors
    /// The engine's thread ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<Ended, EngineLost> {
        let Self { desk, engine } = self;
        let (cut, over) = (CancellationToken::new(), CancellationToken::new());
        let mut engine = tokio::spawn(engine.run(cut.clone()));
        let mut door = Door {
            listener,
            router: router(Arc::clone(&desk)),
            room: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            connections: JoinSet::new(),
            timeout: desk.settings.timeout,
            over: over.clone(),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            lost = &mut engine => return lost.unwrap_or(Err(EngineLost)).and(Err(EngineLost)),
            () = door.let_in() => {}
        }
        desk.closing.cancel();
        desk.open.close();
        let drained = tokio::select! {
            drained = timeout(desk.settings.drain, desk.open.wait()) => drained.is_ok(),
            () = door.let_in() => false,
        };
        let open = desk.open.len();
        cut.cancel();
        over.cancel();
        // Whoever comes now is refused at once: nobody would answer.
        let Door { listener, mut connections, .. } = door;
        drop(listener);
        // Those that were cut off are told so, and streams get their last line.
        let last = async { while connections.join_next().await.is_some() {} };
        let _those_who_do_not_read = timeout(FAREWELL, last).await;
        let _a_step_that_takes_longer = timeout(FAREWELL, engine).await;
        Ok(if drained { Ended::Drained } else { Ended::Cut(open) })
    }
}

struct Door {
    listener: TcpListener,
    router: Router,
    room: Arc<Semaphore>,
    connections: JoinSet<()>,
    timeout: Duration,
    over: CancellationToken,
}

impl Door {
    /// Lets connections in, for ever.
    async fn let_in(&mut self) {
        loop {
            tokio::select! {
                _ = self.connections.join_next(), if !self.connections.is_empty() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // One too many is hung up on.
                        if let Ok(place) = Arc::clone(&self.room).try_acquire_owned() {
                            self.speak(stream, place);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn speak(&mut self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // The pieces of a stream must not wait for more to send.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was lost before its first word");
            return;
        }
        let service = TowerToHyperService::new(self.router.clone());
        let (over, longest) = (self.over.clone(), self.timeout + FAREWELL);
        self.connections.spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // Who goes away or talks nonsense is no news.
                _ended = connection.as_mut() => return,
                () = over.cancelled() => {}
                () = sleep(AGE) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ended = timeout(longest, connection).await;
        });
    }
}
