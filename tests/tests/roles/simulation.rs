//! Runs in which everything goes wrong that a seed can draw: hosts crash and come back with their files,
//! links break, stall and slow down, groups are delivered twice and out of order. Every run ends with the
//! state of the undisturbed one, to the bit.
//!
//! A seed that fails is printed. `OCTET_SIMULATION_SEED=17 cargo test --release -p octet-tests --test
//! roles simulation` runs that one alone, in the same way.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::simulated::faults::{Dice, Faults};
use crate::simulated::observer::{Echoes, Seen};
use crate::simulated::roles::{hosts, stage};
use crate::simulated::verdict::{Left, check_status};
use crate::simulated::{Cast, Disk, Shape, network, on_one_thread};
use octet_proto::coordinator::GetStatusResponse;

/// Runs one seed instead of all.
const SEED: &str = "OCTET_SIMULATION_SEED";
/// How many seeds there are; a multiple of the shapes, which take turns.
const SEEDS: u64 = 204;
/// How long the longest run may take, of the simulated time.
const LONGEST: Duration = Duration::from_secs(180);

/// Lag 0 and lag 1, with a reward that changes half-way and without.
fn shape(seed: u64) -> Shape {
    let lag = seed % 2;
    let swap_at = (seed % 4 >= 2).then_some(5);
    Shape { steps: 12, batch: 4, lag, swap_at }
}

/// What came of a run.
struct Run {
    left: Left,
    statuses: Vec<(Duration, GetStatusResponse)>,
    took: Duration,
    echoes: u64,
}

fn run(seed: u64, shape: Shape, faults: &mut Faults) -> Run {
    let (disk, cast) = (Disk::new(), Cast::default());
    let mut sim = network(seed, LONGEST);
    stage(&mut sim, &disk, shape, &cast);
    let echoes = Echoes::spread(&mut sim, &disk, shape.steps * shape.batch, seed);
    let seen = Seen::watch(&mut sim);
    while !sim.step().unwrap_or_else(|error| panic!("{error}; last seen {}", seen.waits())) {
        faults.at(&mut sim);
    }
    let took = sim.elapsed();
    // The hosts let go of their files.
    drop(sim);
    let left = Left::read(&disk, shape);
    left.check(shape);
    let statuses = seen.all();
    check_progress(&statuses);
    check_status(&seen.last().unwrap(), shape);
    let echoes = *echoes.taken.lock().unwrap();
    Run { left, statuses, took, echoes }
}

/// What was seen while the run went on.
fn check_progress(statuses: &[(Duration, GetStatusResponse)]) {
    let mut committed = 0;
    for (at, status) in statuses {
        // A coordinator that has just come back does not know yet.
        if status.learner.is_some() {
            assert!(status.committed_steps >= committed, "at {at:?}: steps went back");
            committed = status.committed_steps;
        }
        let complete = status.committed_steps == status.total_steps;
        assert_eq!(status.waits.is_empty(), complete, "at {at:?}: a wait has a name");
        for worker in &status.workers {
            assert!(worker.leases <= 2 * worker.capacity, "at {at:?}: {worker:?}");
            assert!(worker.allowance <= 2 * worker.capacity, "at {at:?}: {worker:?}");
        }
    }
}

/// The undisturbed runs, by shape.
type Undisturbed = Mutex<BTreeMap<Shape, Arc<Left>>>;

fn undisturbed(known: &Undisturbed, shape: Shape) -> Arc<Left> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let left = known.entry(shape).or_insert_with(|| {
        let left = run(0, shape, &mut Faults::default()).left;
        // Or the comparison would say nothing.
        let mut digests = left.weights();
        digests.dedup();
        assert_eq!(digests.len() as u64, shape.steps, "every step changes the weights");
        Arc::new(left)
    });
    Arc::clone(left)
}

fn disturbed(seed: u64, known: &Undisturbed) -> Run {
    let shape = shape(seed);
    let expected = undisturbed(known, shape);
    let mut faults = Faults::draw(&mut Dice(seed), &hosts(&Cast::default()));
    eprintln!("seed {seed}: {shape:?}\n{faults}");
    let run = run(seed, shape, &mut faults);
    run.left.assert_is(&expected);
    run
}

#[test]
fn whatever_happens_a_run_ends_in_the_same_state() {
    let known = Undisturbed::default();
    if let Ok(seed) = std::env::var(SEED) {
        let seed = seed.parse().expect("a seed is a number");
        on_one_thread(|| {
            let run = disturbed(seed, &known);
            eprintln!("seed {seed} took {:?} of simulated time", run.took);
        });
        return;
    }
    let (began, next) = (Instant::now(), Mutex::new(0..SEEDS));
    let (failed, sums) = (Mutex::new(Vec::new()), Mutex::new((Duration::ZERO, 0)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                on_one_thread(|| {
                    loop {
                        let Some(seed) = next.lock().unwrap().next() else { return };
                        match catch_unwind(AssertUnwindSafe(|| disturbed(seed, &known))) {
                            Ok(run) => {
                                let mut sums = sums.lock().unwrap();
                                *sums = (sums.0 + run.took, sums.1 + run.echoes);
                            }
                            Err(_told) => {
                                eprintln!("FAILED: replay with {SEED}={seed}");
                                failed.lock().unwrap().push(seed);
                            }
                        }
                    }
                });
            });
        }
    });
    let (simulated, echoes) = *sums.lock().unwrap();
    eprintln!(
        "{SEEDS} seeds: {:.0} s of simulated time in {:.0} s, {echoes} groups delivered again",
        simulated.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "seeds {failed:?} failed: replay each with {SEED}=…");
    assert!(echoes > SEEDS, "groups were delivered again");
}

#[test]
fn a_seed_repeats_to_the_last_status() {
    let known = Undisturbed::default();
    for seed in [3, 6] {
        let mut seen = (0..2).map(|_| on_one_thread(|| disturbed(seed, &known)).statuses);
        let (one, other) = (seen.next().unwrap(), seen.next().unwrap());
        let differ = one.iter().zip(&other).find(|(one, other)| one != other);
        assert!(differ.is_none(), "seed {seed}: {differ:#?}");
        assert_eq!(one.len(), other.len());
    }
}
