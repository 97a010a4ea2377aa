//! One Python process: frames in and out, each with a deadline, and the last that it complained of.
//!
//! Invariants: no call waits longer than it was told to, whatever the process does; a process that is
//! dropped is killed and waited for; no frame is longer than [`LONGEST_FRAME`].

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{PythonSettings, RUNNER};

/// The most bytes that an answer may have.
const LONGEST_FRAME: usize = 4 << 20;
/// How many of the last lines on standard error are kept for a failure's message.
const KEPT_LINES: usize = 20;
/// The most bytes of such a line.
const LONGEST_LINE: u64 = 2000;

/// Why a process gave no answer. It is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It took too long and was killed.
    #[error("gave no answer within {0:?} and was killed")]
    Late(Duration),
    /// It ended.
    #[error("ended{0}")]
    Ended(String),
    /// It could not be started.
    #[error("could not be started: {0}")]
    Start(io::Error),
    /// It is not what the first one was.
    #[error(
        "found other files than the service was started with: restart the service, which makes a new revision of the reward"
    )]
    Changed,
}

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A process that is up.
pub(super) struct Process {
    child: Child,
    requests: SyncSender<Vec<u8>>,
    answers: Receiver<io::Result<Value>>,
    complaints: Lines,
}

impl Process {
    /// Starts one and hands it the file: what it says of it comes back.
    pub(super) fn start(
        settings: &PythonSettings,
        begin: &Value,
    ) -> Result<(Self, Value), Trouble> {
        let mut command = Command::new(&settings.interpreter);
        command
            .args(["-B", "-c", RUNNER])
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONIOENCODING", "utf-8");
        // The run's token is no business of user code.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OCTET_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Trouble::Start)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(Trouble::Start(io::Error::other("it has no pipes")));
        };
        let (requests, taken) = sync_channel(1);
        let (given, answers) = sync_channel(1);
        let complaints = Lines::default();
        let (kept, show) = (Arc::clone(&complaints), Arc::clone(&settings.show));
        thread::spawn(move || write_frames(input, &taken));
        thread::spawn(move || read_frames(output, &given));
        thread::spawn(move || read_lines(errors, &kept, &*show));
        let mut process = Self { child, requests, answers, complaints };
        let told = process.ask(begin, settings.start_limit)?;
        Ok((process, told))
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, request: &Value, within: Duration) -> Result<Value, Trouble> {
        let body = request.to_string().into_bytes();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let frame = [length.as_slice(), body.as_slice()].concat();
        // One request at a time, so there is room unless the process does not read at all.
        if self.requests.try_send(frame).is_err() {
            return Err(self.ended());
        }
        match self.answers.recv_timeout(within) {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => Err(Trouble::Late(within)),
        }
    }

    fn ended(&mut self) -> Trouble {
        // It has closed its output; whatever it still does, it is of no use.
        let grace = Duration::from_millis(20);
        let mut status = None;
        for _ in 0..10 {
            status = self.child.try_wait().ok().flatten();
            if status.is_some() {
                break;
            }
            thread::sleep(grace);
        }
        // Its last words may still be on the way.
        thread::sleep(grace);
        let lines = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let how = status.map_or_else(String::new, |status| format!(" ({status})"));
        let last: Vec<&str> = lines.iter().map(String::as_str).collect();
        let said = if last.is_empty() { String::new() } else { format!(": {}", last.join("\n")) };
        Trouble::Ended(format!("{how}{said}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn write_frames(mut input: ChildStdin, frames: &Receiver<Vec<u8>>) {
    while let Ok(frame) = frames.recv() {
        if input.write_all(&frame).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

fn read_frames(mut output: ChildStdout, answers: &SyncSender<io::Result<Value>>) {
    loop {
        let frame = read_frame(&mut output);
        let broken = frame.is_err();
        if answers.send(frame).is_err() || broken {
            return;
        }
    }
}

/// Reads one frame.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Value> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

fn read_lines(errors: ChildStderr, kept: &Lines, show: &dyn Fn(&str)) {
    let mut errors = BufReader::new(errors);
    loop {
        let mut line = Vec::new();
        match errors.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            continue;
        }
        show(&line);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
