#![allow(clippy::unwrap_used)]
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// What was written, shared.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn log(options: &LogOptions, colour: bool) -> String {
    let screen = Screen::default();
    let out = screen.clone();
    let terminal = Terminal { around: options.around_write.clone(), out: move || out.clone() };
    let subscriber = subscriber(options, terminal, colour).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        let _run = tracing::info_span!("step", step = 3).entered();
        tracing::info!(group = 7, "delivered");
        tracing::debug!("not by default");
        tracing::info!(target: "h2::client", "chatter");
    });
    screen.text()
}

#[test]
fn people_get_lines_and_the_default_filter_keeps_the_transport_quiet() {
    let text = log(&LogOptions::default(), false);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("INFO step{step=3}: delivered group=7"), "{text}");
}

#[test]
fn machines_get_objects_with_the_spans_fields() {
    let options = LogOptions { format: LogFormat::Json, ..LogOptions::default() };
    let line: serde_json::Value = serde_json::from_str(&log(&options, false)).unwrap();
    assert_eq!(line["message"], "delivered");
    assert_eq!(line["group"], 7);
    assert_eq!(line["span"]["step"], 3);
}

#[test]
fn a_filter_is_obeyed_or_refused() {
    let options = LogOptions { filter: Some("debug".into()), ..LogOptions::default() };
    assert_eq!(log(&options, false).lines().count(), 3);
    let options = LogOptions { filter: Some("octet=loudly".into()), ..LogOptions::default() };
    let error = subscriber(&options, io::sink, false).err().unwrap().to_string();
    assert!(error.starts_with("OCTET_LOG=`octet=loudly`: "), "{error}");
    assert!(error.contains("expected e.g."), "{error}");
}

#[test]
fn the_file_gets_json_and_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.log");
    let options = LogOptions { file: Some(file.clone()), ..LogOptions::default() };
    for _ in 0..2 {
        assert!(log(&options, true).contains("\u{1b}["), "the screen has its colours");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let groups = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["group"].as_u64().unwrap()
    });
    assert_eq!(groups.collect::<Vec<_>>(), [7, 7]);

    let options = LogOptions { file: Some(folder.path().join("no/run.log")), ..options };
    let error = subscriber(&options, io::sink, false).err().unwrap().to_string();
    assert!(error.starts_with("cannot open the log file "), "{error}");
}

#[test]
fn every_line_is_written_through_the_hook_in_one_piece() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let around: AroundWrite = Arc::new(move |write| {
        counted.fetch_add(1, Ordering::SeqCst);
        write();
    });
    let filter = Some("debug".to_owned());
    let options = LogOptions { around_write: Some(around), filter, ..LogOptions::default() };
    assert_eq!(log(&options, false).lines().count(), 3);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
