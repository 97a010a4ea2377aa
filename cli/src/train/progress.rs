//! Progress on the screen: bars for what takes longer than two seconds.
//!
//! Invariant: bars are drawn on standard error and only on a terminal; elsewhere each step is a line.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use octet_learner::metrics::StepMetrics;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The screen of a run.
#[derive(Clone)]
pub struct Screen {
    bars: MultiProgress,
    terminal: bool,
}

impl Screen {
    /// Bars on a terminal, lines elsewhere.
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// The bars, so that log lines can be written between them.
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Whether bars are drawn.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a line above the bars.
    pub fn line(&self, text: &str) {
        if self.terminal {
            // Printing fails only when the terminal went away.
            drop(self.bars.println(text));
        } else {
            drop(writeln!(std::io::stderr().lock(), "{text}"));
        }
    }

    /// A bar of `length` items.
    pub fn bar(&self, name: &str, length: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = self.bars.add(ProgressBar::new(length));
        let style = "{prefix:10} {bar:30} {pos:>4}/{len}  {msg}  {eta_precise} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }

    /// A bar of so many bytes.
    pub fn bytes(&self, name: &str, length: u64) -> ProgressBar {
        let bar = self.bar(name, length);
        let style = "{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta_precise} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar
    }
}

/// The steps of a run as they are committed. Its bar goes away with it.
pub struct Steps {
    screen: Screen,
    bar: ProgressBar,
    begin: Instant,
    first: Option<u64>,
    total: u64,
}

impl Steps {
    /// For a run of `total` steps.
    pub fn new(screen: &Screen, total: u64) -> Self {
        let bar = screen.bar("training", total);
        Self { screen: screen.clone(), bar, begin: Instant::now(), first: None, total }
    }

    /// Shows a step that was just committed.
    pub fn show(&mut self, m: &StepMetrics) {
        let text =
            format!("reward {:.3} ({})", m.rollout.reward_mean, by(&m.rollout.reward_by_behavior));
        let first = *self.first.get_or_insert(m.step - 1);
        let done = (m.step - first) as f64;
        let left = self.begin.elapsed().as_secs_f64() / done * (self.total - m.step) as f64;
        self.bar.set_position(m.step);
        self.bar.set_message(text.clone());
        if !self.screen.terminal {
            self.screen.line(&format!(
                "step {:>4}/{}  {text}  entropy {:.3}  {:.0} tokens/s  {left:.0} s left",
                m.step, self.total, m.rollout.entropy_estimate, m.timing.tokens_per_second
            ));
        }
    }
}

fn by(behaviours: &BTreeMap<String, f64>) -> String {
    let parts: Vec<String> = behaviours.iter().map(|(name, r)| format!("{name} {r:.2}")).collect();
    parts.join(", ")
}
