//! A seat on a thread of its own, which a library may hold up for as long as it likes.
//!
//! Invariants: telling it something and hearing from it never wait; what it decided is said before it is
//! done; of what it is told only the newest counts, since orders are states; it ends by itself once it is
//! dropped and the library lets it; a call that does not return is aborted by a guard, and said to be lost if
//! that does not help. What time it is comes from a clock that is handed in.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::guard::{Clock, Guard, Patience};
use crate::seat::Seat;
use crate::store::{Factory, Store};
use crate::transport::{Fault, Transport};
use crate::words::{Order, Orders, State};

/// How often the transport is asked while something is under way.
const BUSY: Duration = Duration::from_millis(2);
/// How often it is asked whether an idle communicator is still whole.
const IDLE: Duration = Duration::from_millis(100);

/// What a member's seat says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What to tell the coordinator.
    pub state: State,
    /// What is being done, and when it is given up.
    pub doing: Option<(String, Duration)>,
    /// The last fault.
    pub fault: Option<String>,
}

/// A seat that is being driven.
#[derive(Debug)]
pub struct Station {
    desk: Arc<Desk>,
}

/// What the thread is to hear of.
struct Desk {
    slip: Mutex<Slip>,
    news: Condvar,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Slip {
    /// The newest orders, and when they came.
    orders: Option<(Duration, Orders)>,
    over: bool,
}

impl Station {
    /// Starts the thread. `heard` is told of each change of what the seat says, or why there is no transport
    /// to be had, or none any more, which is the end of it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        factory: Factory,
        store: Box<dyn Store>,
        patience: Patience,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        heard: impl FnMut(Result<Report, Fault>) + Send + 'static,
    ) -> io::Result<Self> {
        let clock = Arc::new(clock);
        let desk = Arc::new(Desk { slip: Mutex::default(), news: Condvar::new(), clock });
        let own = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("octet-broadcast".to_owned());
        thread.spawn(move || drive(&own, factory, store, patience, heard))?;
        Ok(Self { desk })
    }

    /// Hands over orders; older ones that were not read yet are forgotten.
    pub fn tell(&self, orders: Orders) {
        let now = (self.desk.clock)();
        self.desk.slip().orders = Some((now, orders));
        self.desk.news.notify_all();
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.desk.slip().over = true;
        self.desk.news.notify_all();
    }
}

impl Desk {
    fn slip(&self) -> MutexGuard<'_, Slip> {
        // Nothing panics while it holds the lock.
        self.slip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written since the last look, after a pause unless there is something.
    fn read(&self, pause: Duration) -> Slip {
        let idle = |slip: &mut Slip| slip.orders.is_none() && !slip.over;
        let waited = self.news.wait_timeout_while(self.slip(), pause, idle);
        let (mut slip, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *slip)
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

fn drive(
    desk: &Desk,
    factory: Factory,
    store: Box<dyn Store>,
    patience: Patience,
    heard: impl FnMut(Result<Report, Fault>) + Send + 'static,
) {
    // Either thread says something, one at a time.
    let heard = Arc::new(Mutex::new(heard));
    let for_guard = Arc::clone(&heard);
    let say = |news| (heard.lock().unwrap_or_else(PoisonError::into_inner))(news);
    let seat = factory.make(store).and_then(|transport| {
        let lost = move |fault| {
            (for_guard.lock().unwrap_or_else(PoisonError::into_inner))(Err(fault));
        };
        let guard = Guard::start(desk.clock.clone(), patience, transport.abort_handle(), lost);
        let unguarded = |error: io::Error| Fault { doing: "start", problem: error.to_string() };
        Ok(Seat::guarded(transport, guard.map_err(unguarded)?))
    });
    let mut seat = match seat {
        Ok(seat) => seat,
        Err(fault) => return say(Err(fault)),
    };
    // Now it is known that it can take part.
    let mut said = Report::default();
    say(Ok(said.clone()));
    loop {
        let pause = if seat.deadline().is_some() { BUSY } else { IDLE };
        let slip = desk.read(pause);
        if slip.over {
            break;
        }
        if let Some((at, orders)) = slip.orders {
            seat.heed(at, &orders);
            follow(&mut seat, &mut said, &say);
        }
        seat.ask((desk.clock)());
        follow(&mut seat, &mut said, &say);
        if seat.is_lost() {
            // That was said; what the library did meanwhile is not worth anything.
            return;
        }
    }
    seat.order((desk.clock)(), &Orders { order: Order::Stand, within: IDLE, catch_up: None });
}

/// Does what the seat decided, and says first what it is then.
fn follow<T: Transport>(
    seat: &mut Seat<T>,
    said: &mut Report,
    say: &impl Fn(Result<Report, Fault>),
) {
    loop {
        let now = Report {
            state: seat.state(),
            doing: seat.doing().zip(seat.deadline()),
            fault: seat.last_fault().map(ToString::to_string),
        };
        if now != *said && !seat.is_lost() {
            said.clone_from(&now);
            say(Ok(now));
        }
        if !seat.act() {
            return;
        }
    }
}
