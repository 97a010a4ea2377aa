//! The curves of a run, as SVG and PNG.
//!
//! Invariant: both files show the same drawing; the font is bundled, so a bare machine draws them too.

use anyhow::{Context, Result, anyhow};
use octet_learner::metrics::StepMetrics;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 680);

/// One line of a chart.
pub struct Line {
    /// What it is called, where there are several.
    pub name: String,
    /// Its colour.
    pub colour: RGBColor,
    /// Steps and values.
    pub points: Vec<(f64, f64)>,
}

/// Writes `curves.svg` and `curves.png` into a directory.
pub fn write(directory: &Path, steps: &[StepMetrics]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    register_font()?;
    let svg = directory.join("curves.svg");
    draw(SVGBackend::new(&svg, SIZE).into_drawing_area(), steps)
        .with_context(|| format!("drawing {}", svg.display()))?;
    let png = directory.join("curves.png");
    draw(BitMapBackend::new(&png, SIZE).into_drawing_area(), steps)
        .with_context(|| format!("drawing {}", png.display()))
}

/// Makes the bundled font known to what draws.
pub fn register_font() -> Result<()> {
    let font = include_bytes!("../../assets/fonts/DejaVuSans-subset.ttf");
    plotters::style::register_font("sans-serif", FontStyle::Normal, font)
        .map_err(|_| anyhow!("the bundled font cannot be read"))
}

fn draw<B: DrawingBackend>(area: DrawingArea<B, Shift>, steps: &[StepMetrics]) -> Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let parts = area.split_evenly((2, 2));
    let curve = |name: &str, colour, value: &dyn Fn(&StepMetrics) -> Option<f64>| Line {
        name: name.into(),
        colour,
        points: steps.iter().filter_map(|s| Some((s.step as f64, value(s)?))).collect(),
    };
    let behaviour = |name: &str, colour| {
        curve(name, colour, &|s: &StepMetrics| s.rollout.reward_by_behavior.get(name).copied())
    };
    let rewards = vec![
        curve("all", BLACK, &|s| Some(s.rollout.reward_mean)),
        behaviour("execute", RGBColor(31, 119, 180)),
        behaviour("clarify", RGBColor(255, 127, 14)),
        behaviour("refuse", RGBColor(44, 160, 44)),
    ];
    chart(&parts[0], "mean reward of sampled completions", rewards, Some((0.0, 1.0)))?;
    let entropy =
        curve("nats per token", RGBColor(148, 103, 189), &|s| Some(s.rollout.entropy_estimate));
    chart(&parts[1], "entropy", vec![entropy], None)?;
    let norm = curve("before clipping", RGBColor(214, 39, 40), &|s| Some(s.gradient_norm));
    chart(&parts[2], "gradient norm", vec![norm], None)?;
    let length =
        curve("tokens", RGBColor(140, 86, 75), &|s| Some(s.rollout.completion_length_mean));
    chart(&parts[3], "completion length", vec![length], None)?;
    area.present()?;
    Ok(())
}

/// Draws lines over steps; without a range, from 0 to what is needed.
pub fn chart<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    lines: Vec<Line>,
    range: Option<(f64, f64)>,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let points = || lines.iter().flat_map(|l| &l.points);
    let last = points().map(|p| p.0).fold(1.0, f64::max);
    let top = points().map(|p| p.1).fold(0.0, f64::max);
    let (low, high) = range.unwrap_or((0.0, if top > 0.0 { top * 1.1 } else { 1.0 }));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(44)
        .build_cartesian_2d(1.0..last.max(2.0), low..high)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .light_line_style(WHITE)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    let many = lines.len() > 1;
    for Line { name, colour, points } in lines {
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        if many {
            drawn.label(name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
            });
        }
    }
    if many {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
    }
    Ok(())
}
