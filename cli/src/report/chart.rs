//! The geometry of a line chart: from numbers to what a template writes as SVG.
//!
//! Invariant: whatever is drawn is inside of the plot, and every number that is not finite is a gap.

use serde::Serialize;

/// Steps that a chart has room for; more are averaged.
pub const MOST_POINTS: usize = 240;
/// Points that are drawn as dots, too: few, so that single steps are seen.
const MOST_DOTS: usize = 40;

/// How large a chart is, in its own units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Frame {
    /// Width of the drawing.
    pub width: f64,
    /// Its height.
    pub height: f64,
    /// The plot's left edge; right, top and bottom likewise.
    pub left: f64,
    /// The plot's right edge.
    pub right: f64,
    /// Its upper edge.
    pub top: f64,
    /// Its lower edge.
    pub bottom: f64,
}

/// One line: a name, and a value for each step or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// Its column in the table of numbers.
    pub column: usize,
    /// Its values.
    pub values: Vec<Option<f64>>,
}

/// A height that the lines are to be compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// The letter beside it.
    pub letter: char,
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// Something that happened before a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// The first step after it.
    pub step: u64,
    /// A sign or two.
    pub label: String,
    /// What it is.
    pub name: String,
}

/// A chart, ready to be written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// Its sizes.
    pub frame: Frame,
    /// The steps at the plot's left and right edges.
    pub first: f64,
    /// As above.
    pub last: f64,
    /// Marks of the axes.
    pub y_ticks: Vec<Tick>,
    /// As above.
    pub x_ticks: Vec<Tick>,
    /// The lines.
    pub lines: Vec<Drawn>,
    /// Heights, with the place of their letters.
    pub levels: Vec<Placed>,
    /// What happened.
    pub marks: Vec<Tick>,
}

/// A place on an axis with its text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tick {
    /// Where.
    pub at: f64,
    /// What.
    pub text: String,
}

/// A level, placed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placed {
    /// Where its line is.
    pub at: f64,
    /// Where its letter is, so that none covers another.
    pub beside: f64,
    /// The letter.
    pub letter: char,
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A line, drawn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drawn {
    /// What it is called.
    pub name: String,
    /// Its column in the table of numbers.
    pub column: usize,
    /// SVG path data.
    pub path: String,
    /// Single points.
    pub dots: Vec<[f64; 2]>,
    /// Its last value.
    pub last: String,
}

/// The frame of a chart that takes a column of the page, or two.
pub fn frame(wide: bool, with_levels: bool) -> Frame {
    let (width, height) = if wide { (640.0, 290.0) } else { (400.0, 210.0) };
    let right = if with_levels { 26.0 } else { 12.0 };
    Frame { width, height, left: 50.0, right: width - right, top: 16.0, bottom: height - 26.0 }
}

impl Chart {
    /// Draws lines over steps; `range` is the least that the vertical axis shows.
    pub fn new(
        frame: Frame,
        steps: &[u64],
        lines: &[Line],
        levels: &[Level],
        marks: &[Mark],
        range: Option<(f64, f64)>,
    ) -> Self {
        let (first, last) = match (steps.first(), steps.last()) {
            (Some(first), Some(last)) if last > first => (*first as f64, *last as f64),
            (Some(only), _) => (*only as f64 - 0.5, *only as f64 + 0.5),
            _ => (0.0, 1.0),
        };
        let values = lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        let values = values.chain(levels.iter().map(|level| level.value));
        let (low, high, ticks) = span(values.filter(|value| value.is_finite()), range);
        let x =
            |step: f64| frame.left + (step - first) / (last - first) * (frame.right - frame.left);
        let y =
            |value: f64| frame.bottom - (value - low) / (high - low) * (frame.bottom - frame.top);
        let inside = |tick: &f64| *tick >= low - 1e-9 && *tick <= high + 1e-9;
        let tick = |value: f64| Tick { at: round(y(value)), text: axis(value, ticks) };
        let first_tick = (low / ticks).ceil();
        let y_ticks = (0..12).map(|i| (first_tick + f64::from(i)) * ticks).filter(inside).map(tick);
        Self {
            frame,
            first,
            last,
            y_ticks: y_ticks.collect(),
            x_ticks: step_ticks(steps, |step| round(x(step as f64))),
            lines: lines.iter().map(|line| draw(line, steps, &x, &y)).collect(),
            levels: place(levels, frame, &y),
            marks: marks
                .iter()
                .map(|mark| (mark.step as f64 - 0.5, mark))
                .filter(|(at, _)| *at >= first - 0.5 && *at <= last)
                .map(|(at, mark)| Tick { at: round(x(at.max(first))), text: mark.label.clone() })
                .collect(),
        }
    }
}

fn draw(line: &Line, steps: &[u64], x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> Drawn {
    let (mut path, mut points, mut drawing) = (String::new(), Vec::new(), false);
    for (step, value) in steps.iter().zip(&line.values) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            drawing = false;
            continue;
        };
        let point = [round(x(*step as f64)), round(y(value))];
        path.push_str(&format!("{}{} {}", if drawing { "L" } else { "M" }, point[0], point[1]));
        points.push(point);
        drawing = true;
    }
    let last = line.values.iter().rev().flatten().next();
    Drawn {
        name: line.name.clone(),
        column: line.column,
        path,
        dots: if points.len() <= MOST_DOTS { points } else { Vec::new() },
        last: last.map_or_else(|| "–".into(), |value| super::text::number(*value)),
    }
}

/// Letters stand one below the other where their levels are closer than a letter is high.
fn place(levels: &[Level], frame: Frame, y: &impl Fn(f64) -> f64) -> Vec<Placed> {
    const APART: f64 = 14.0;
    let mut placed: Vec<Placed> = levels
        .iter()
        .map(|level| Placed {
            at: round(y(level.value)),
            beside: round(y(level.value)),
            letter: level.letter,
            name: level.name.clone(),
            value: super::text::reward(level.value),
        })
        .collect();
    placed.sort_by(|one, other| other.at.total_cmp(&one.at));
    // From the lowest up, and back down from the upper edge where that was reached.
    let mut floor = frame.bottom;
    for level in &mut placed {
        level.beside = level.beside.min(floor);
        floor = level.beside - APART;
    }
    let mut ceiling = frame.top + 4.0;
    for level in placed.iter_mut().rev() {
        level.beside = level.beside.max(ceiling);
        ceiling = level.beside + APART;
    }
    placed.sort_by_key(|level| level.letter);
    placed
}

/// The least and largest value of an axis, and the distance of its ticks.
fn span(values: impl Iterator<Item = f64>, range: Option<(f64, f64)>) -> (f64, f64, f64) {
    let start = range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
    let (low, high) = values.fold(start, |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = match (low.is_finite() && high.is_finite(), high - low) {
        (false, _) => (0.0, 1.0),
        (true, d) if d <= f64::EPSILON * high.abs() => {
            let half = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
            (low - half, high + half)
        }
        // An axis that could begin at nought does.
        (true, d) if low > 0.0 && low < d => (0.0, high),
        _ => (low, high),
    };
    let ticks = nice((high - low) / 5.0);
    // To the next tick, unless the range was given and holds everything.
    if range == Some((low, high)) {
        return (low, high, ticks);
    }
    ((low / ticks).floor() * ticks, (high / ticks).ceil() * ticks, ticks)
}

/// The next of 1, 2 and 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let part = value / power;
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| part <= *digit + 1e-9);
    digit.unwrap_or(10.0) * power
}

fn axis(value: f64, ticks: f64) -> String {
    let value = if value.abs() < ticks * 1e-6 { 0.0 } else { value };
    let size = value.abs().max(ticks);
    if !(1e-3..1e9).contains(&size) {
        return if value == 0.0 { "0".into() } else { format!("{value:.0e}") };
    }
    for (unit, sign) in [(1e6, "M"), (1e3, "k")] {
        if size >= unit && ticks >= unit / 10.0 {
            let digits = usize::from(ticks < unit);
            return if value == 0.0 {
                "0".into()
            } else {
                format!("{:.digits$}{sign}", value / unit)
            };
        }
    }
    let digits = (-ticks.log10()).ceil().clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

fn step_ticks(steps: &[u64], x: impl Fn(u64) -> f64) -> Vec<Tick> {
    let (Some(&first), Some(&last)) = (steps.first(), steps.last()) else { return Vec::new() };
    let distance = nice(((last - first) as f64 / 6.0).max(1.0)) as u64;
    let mut at = vec![first];
    let near = |one: u64, other: u64| one.abs_diff(other) * 2 < distance;
    at.extend(
        (1..)
            .map(|i| (first / distance + i) * distance)
            .take_while(|at| *at < last)
            .filter(|at| !near(*at, first) && !near(*at, last)),
    );
    if last > first {
        at.push(last);
    }
    at.into_iter().map(|step| Tick { at: x(step), text: super::text::count(step) }).collect()
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(values: &[Option<f64>]) -> Line {
        Line { name: "line".into(), column: 1, values: values.to_vec() }
    }

    #[test]
    fn a_line_goes_from_edge_to_edge_and_a_gap_stays_one() {
        let frame = frame(false, false);
        let lines = [line(&[Some(0.0), None, Some(1.0)])];
        let chart = Chart::new(frame, &[1, 2, 3], &lines, &[], &[], Some((0.0, 1.0)));
        assert_eq!(chart.lines[0].path, "M50 184M388 16");
        let texts: Vec<&str> = chart.y_ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(texts, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let texts: Vec<&str> = chart.x_ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(texts, ["1", "2", "3"]);
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (low, high, ticks) in [(0.0, 1.0, 0.2), (0.0, 37.0, 10.0), (0.0, 1e-4, 2e-5)] {
            assert!((span([low, high].into_iter(), None).2 - ticks).abs() < 1e-12);
        }
        assert_eq!(axis(12_000.0, 2000.0), "12k");
        assert_eq!(axis(1500.0, 500.0), "1.5k");
        assert_eq!(axis(0.25, 0.05), "0.25");
        assert_eq!(axis(5e-5, 5e-5), "5e-5");
        let steps: Vec<u64> = (1..=140).collect();
        let ticks: Vec<String> =
            step_ticks(&steps, |s| s as f64).into_iter().map(|t| t.text).collect();
        assert_eq!(ticks, ["1", "50", "100", "140"]);
    }

    #[test]
    fn letters_do_not_cover_each_other() {
        let level = |letter, value| Level { letter, name: String::new(), value };
        let levels =
            [level('a', 0.4), level('b', 0.4), level('c', 0.41), level('d', 0.0), level('e', 0.0)];
        let chart = Chart::new(frame(true, true), &[1, 2], &[], &levels, &[], Some((0.0, 1.0)));
        for (at, one) in chart.levels.iter().enumerate() {
            assert!(one.beside >= chart.frame.top && one.beside <= chart.frame.bottom, "{one:?}");
            for other in &chart.levels[at + 1..] {
                assert!((one.beside - other.beside).abs() >= 13.9, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_happened_before_the_first_step_or_after_the_last_is_not_drawn() {
        let mark = |step| Mark { step, label: step.to_string(), name: String::new() };
        let marks = [mark(1), mark(5), mark(10), mark(11)];
        let steps: Vec<u64> = (1..=10).collect();
        let chart = Chart::new(frame(true, false), &steps, &[], &[], &marks, None);
        let texts: Vec<&str> = chart.marks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(texts, ["1", "5", "10"]);
    }

    proptest! {
        #[test]
        fn everything_is_inside(
            values in proptest::collection::vec(proptest::option::of(-1e12f64..1e12), 1..50),
            level in -1e12f64..1e12,
        ) {
            let steps: Vec<u64> = (1..=values.len() as u64).collect();
            let frame = frame(true, true);
            let level = Level { letter: 'a', name: String::new(), value: level };
            let chart = Chart::new(frame, &steps, &[line(&values)], &[level], &[], None);
            let points = chart.lines[0].dots.iter().map(|dot| (dot[0], dot[1]));
            let points = points.chain(chart.levels.iter().map(|level| (frame.left, level.at)));
            for (x, y) in points.chain(chart.y_ticks.iter().map(|tick| (frame.left, tick.at))) {
                prop_assert!(x >= frame.left - 0.1 && x <= frame.right + 0.1, "{x}");
                prop_assert!(y >= frame.top - 0.1 && y <= frame.bottom + 0.1, "{y}");
            }
            prop_assert!(!chart.y_ticks.is_empty());
        }
    }
}
