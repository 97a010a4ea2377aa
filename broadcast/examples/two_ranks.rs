//! Two processes on a machine with a GPU: a station over NCCL, and what it does when a rank does not come.
//!
//! This process hands orders to two of its own kind through their standard input, as a convener would,
//! and reads from their standard output what became of them. It prints what it saw and how long it
//! took; it ends with an error when a promise was not kept.
//!
//! On a machine with one GPU both ranks share it, which NCCL allows from 2.30 on when told to:
//! `NCCL_MULTI_RANK_GPU_ENABLE=1`. `OCTET_DEVICES=0,1` names the ranks' devices; both are 0 otherwise.
#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use octet_broadcast::{
    Epoch, Order, Orders, Patience, Place, Report, State, Station, Store, UniqueId, nccl,
};

/// What a version has.
const BYTES: usize = 64 << 20;
/// What one has that is not to arrive. The library's buffers take more than 64 MiB in between, so that a root may be done
/// with a small version before anybody receives it.
const MANY_BYTES: usize = 1 << 30;
/// The versions that are not to arrive.
const LOST: [u64; 2] = [6, 9];
/// How long the library may take where nothing is wrong.
const LONG: Duration = Duration::from_secs(60);
/// The deadline where somebody does not come.
const SHORT: Duration = Duration::from_secs(3);
/// How late an abort may be. One that comes from outside, and one that does not help at all, come later: they
/// are waited for too, and then said.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("member") => member(),
        _ => script(),
    }
}

/// What happens, in order.
fn script() -> Result<()> {
    let devices = std::env::var("OCTET_DEVICES").unwrap_or_default();
    let device = |rank: usize| {
        let named = devices.split(',').nth(rank).filter(|device| !device.is_empty());
        named.unwrap_or("0").to_owned()
    };
    let mut root = Process::start("rank 0", &device(0))?;
    let mut other = Process::start("rank 1", &device(1))?;
    for process in [&mut root, &mut other] {
        let (version, _) = process.expect("nccl", LONG)?;
        println!("{}: NCCL {version}", process.name);
    }

    println!("epoch 1: both form, {} MiB are broadcast five times", BYTES >> 20);
    let id = root.name(1)?;
    form(&mut [&mut root, &mut other], 1, &id)?;
    for version in 1..=5 {
        broadcast(&mut root, &mut other, 1, &id, version)?;
    }

    println!("epoch 1: rank 1 does not take part in version 6");
    root.tell(&format!("send 1 {id} 0 2 6 {}", SHORT.as_millis()))?;
    // The convener sees the same deadline pass and tells everybody. Within a machine NCCL's abort may wait for
    // the other ranks' aborts (nccl issue 863).
    std::thread::sleep(SHORT);
    other.tell("stand")?;
    root.gives_up(1)?;

    println!("epoch 2: rank 1 never comes");
    let id = root.name(2)?;
    root.tell(&format!("sit 2 {id} 0 2 {}", SHORT.as_millis()))?;
    root.gives_up(2)?;

    println!("epoch 3: rank 0 alone");
    let id = root.name(3)?;
    form(&mut [&mut root], 3, &id)?;
    root.tell(&format!("send 3 {id} 0 1 7 {}", LONG.as_millis()))?;
    root.expect("done 3 7", LONG)?;

    println!("epoch 4: both again");
    let id = root.name(4)?;
    form(&mut [&mut root, &mut other], 4, &id)?;
    broadcast(&mut root, &mut other, 4, &id, 8)?;

    println!("epoch 4: rank 1 is killed, then version 9 is sent");
    other.child.kill().context("kill rank 1")?;
    other.child.wait().context("wait for rank 1")?;
    root.tell(&format!("send 4 {id} 0 2 9 {}", SHORT.as_millis()))?;
    let (fault, after) = root.expect("failed 4", SHORT + GRACE)?;
    println!("  rank 0 gave up after {:.2} s: {fault}", after.as_secs_f64());

    println!("epoch 5: rank 0 alone");
    let id = root.name(5)?;
    form(&mut [&mut root], 5, &id)?;
    root.tell("quit")?;
    println!("OK");
    Ok(())
}

/// All of them form an epoch's communicator.
fn form(processes: &mut [&mut Process], epoch: u64, id: &str) -> Result<()> {
    let world = processes.len();
    for (rank, process) in processes.iter_mut().enumerate() {
        process.tell(&format!("sit {epoch} {id} {rank} {world} {}", LONG.as_millis()))?;
    }
    for process in processes {
        let (_, took) = process.expect(&format!("seated {epoch}"), LONG)?;
        println!("  {} is seated after {:.2} s", process.name, took.as_secs_f64());
    }
    Ok(())
}

/// A version goes from rank 0 to rank 1, which has compared it when it says that it is done.
fn broadcast(
    root: &mut Process,
    other: &mut Process,
    epoch: u64,
    id: &str,
    version: u64,
) -> Result<()> {
    for (rank, process) in [&mut *root, &mut *other].into_iter().enumerate() {
        let within = LONG.as_millis();
        process.tell(&format!("send {epoch} {id} {rank} 2 {version} {within}"))?;
    }
    let done = format!("done {epoch} {version}");
    root.expect(&done, LONG)?;
    let (_, took) = other.expect(&done, LONG)?;
    let speed = BYTES as f64 / took.as_secs_f64() / 1e9;
    let seconds = took.as_secs_f64();
    println!(
        "  version {version}: rank 1 has the right bytes after {seconds:.3} s, {speed:.2} GB/s with both copies and the comparison"
    );
    Ok(())
}

/// A member's process as seen from here.
struct Process {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    lines: Receiver<(Instant, String)>,
    told: Instant,
}

impl Process {
    fn start(name: &'static str, device: &str) -> Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(this);
        command.args(["member", device]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let orders = input.context("its standard input")?;
        let output = output.context("its standard output")?;
        let (sender, lines) = sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, orders, lines, told: Instant::now() })
    }

    fn tell(&mut self, order: &str) -> Result<()> {
        self.told = Instant::now();
        writeln!(self.orders, "{order}").with_context(|| format!("tell {}: {order}", self.name))
    }

    /// What it says beyond `what`, and how long after the last order.
    fn expect(&mut self, what: &str, within: Duration) -> Result<(String, Duration)> {
        let until = Instant::now() + within;
        let failed = format!("failed {}", what.split(' ').nth(1).unwrap_or_default());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (at, line) = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{}: expected `{what}` within {within:?}", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{}: expected `{what}`, and it is gone", self.name)
                }
            };
            // The library may write to the same output.
            match line.strip_prefix("> ") {
                Some(said) if said.starts_with(what) => {
                    let rest = said.get(what.len()..).unwrap_or_default().trim().to_owned();
                    return Ok((rest, at.saturating_duration_since(self.told)));
                }
                Some(said) if said.starts_with("done") && what.starts_with("failed") => {
                    bail!("{}: expected `{what}`, found `{said}`: nobody received it", self.name)
                }
                // Of an epoch that is over, that is no news.
                Some(said) if said.starts_with(&failed) || said.starts_with("lost") => {
                    let after = at.saturating_duration_since(self.told).as_secs_f64();
                    bail!("{}: expected `{what}`, found `{said}` after {after:.2} s", self.name)
                }
                _ => {}
            }
        }
    }

    fn name(&mut self, epoch: u64) -> Result<String> {
        self.tell(&format!("name {epoch} {}", LONG.as_millis()))?;
        Ok(self.expect(&format!("named {epoch}"), LONG)?.0)
    }

    /// It aborts at its deadline: not earlier, and not long after it.
    fn gives_up(&mut self, epoch: u64) -> Result<()> {
        let patience = Patience::default();
        let longest = SHORT + patience.grace + patience.lost + GRACE;
        let (fault, after) = self.expect(&format!("failed {epoch}"), longest)?;
        println!(
            "  {} gave up after {:.2} s of {SHORT:?}: {fault}",
            self.name,
            after.as_secs_f64()
        );
        ensure!(after >= SHORT, "{} gave up after {after:?}, before its deadline", self.name);
        ensure!(after <= SHORT + GRACE, "{} gave up after {after:?}, too late", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After an error it may wait for orders for ever.
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// One rank: follows the orders on its standard input.
fn member() -> Result<()> {
    let device = std::env::args().nth(2).context("a device")?.parse().context("a device")?;
    let begun = Instant::now();
    let mut before = State::default();
    let mut opened = false;
    let station = Station::start(
        nccl::factory(device),
        Box::new(Pattern),
        Patience::default(),
        move || begun.elapsed(),
        move |heard| match heard {
            Ok(report) if opened => tell_changes(&mut before, &report),
            Ok(_) => {
                opened = true;
                let version = nccl::library_version().map(|version| version.to_string());
                say(&format!("nccl {}", version.unwrap_or_else(|fault| fault.to_string())));
            }
            Err(fault) => say(&format!("lost {fault}")),
        },
    )?;
    for line in std::io::stdin().lines() {
        let line = line?;
        if line == "quit" {
            return Ok(());
        }
        station.tell(parse(&line).with_context(|| format!("an order: {line}"))?);
    }
    Ok(())
}

fn tell_changes(before: &mut State, report: &Report) {
    let state = report.state;
    if let Some((epoch, UniqueId(id))) = state.named.filter(|named| before.named != Some(*named)) {
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        say(&format!("named {epoch} {id}"));
    }
    if let Some(epoch) = state.seated.filter(|epoch| before.seated != Some(*epoch)) {
        say(&format!("seated {epoch}"));
    }
    if let Some((epoch, version)) = state.done.filter(|done| before.done != Some(*done)) {
        say(&format!("done {epoch} {version}"));
    }
    if let Some(epoch) = state.failed.filter(|epoch| before.failed != Some(*epoch)) {
        say(&format!("failed {epoch} {}", report.fault.clone().unwrap_or_default()));
    }
    *before = state;
}

fn say(line: &str) {
    println!("> {line}");
}

fn parse(line: &str) -> Result<Orders> {
    let words: Vec<&str> = line.split(' ').collect();
    let number =
        |at: usize| -> Result<u64> { Ok(words.get(at).context("too short")?.parse::<u64>()?) };
    let place = || -> Result<Place> {
        let hex = words.get(2).context("too short")?;
        let mut id = [0; 128];
        for (at, byte) in id.iter_mut().enumerate() {
            let digits = hex.get(2 * at..2 * at + 2).context("an identifier of 256 digits")?;
            *byte = u8::from_str_radix(digits, 16)?;
        }
        let (rank, world) = (number(3)? as usize, number(4)? as usize);
        Ok(Place { epoch: Epoch(number(1)?), id: UniqueId(id), rank, world })
    };
    let (order, within) = match words.first().copied() {
        Some("name") => (Order::Name(Epoch(number(1)?)), number(2)?),
        Some("sit") => (Order::Sit(place()?), number(5)?),
        Some("send") => (Order::Send(place()?, number(5)?), number(6)?),
        Some("stand") => (Order::Stand, 0),
        _ => bail!("expected name, sit, send or stand"),
    };
    Ok(Orders { order, within: Duration::from_millis(within), catch_up: None })
}

/// Bytes that differ from place to place and from version to version.
struct Pattern;

impl Pattern {
    fn size(version: u64) -> usize {
        if LOST.contains(&version) { MANY_BYTES } else { BYTES }
    }

    fn bytes(version: u64) -> Vec<u8> {
        let mut state = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = vec![0; Self::size(version)];
        for word in bytes.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        bytes
    }
}

impl Store for Pattern {
    fn outgoing(&mut self, version: u64) -> Result<Vec<Bytes>, String> {
        let bytes = Bytes::from(Self::bytes(version));
        // In two pieces, of which the first has an odd length.
        Ok(vec![bytes.slice(..1_000_003), bytes.slice(1_000_003..)])
    }

    fn expected(&mut self, version: u64) -> Result<usize, String> {
        Ok(Self::size(version))
    }

    fn arrived(&mut self, version: u64, bytes: Bytes) -> Result<(), String> {
        match bytes == Self::bytes(version) {
            true => Ok(()),
            false => Err(format!("version {version} has other bytes than were sent")),
        }
    }
}
