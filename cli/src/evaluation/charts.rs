//! The plots of a study: accuracy with its interval by facet, models side by side; pass@k; and what was done.
//!
//! Invariant: each plot is written as SVG and as PNG, which show the same drawing.

use std::path::Path;

use anyhow::{Context, Result};
use octet_reward_service::measure::Deed;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::interval::Estimate;
use super::study::{ModelStudy, Study};

/// Width and height in pixels.
const SIZE: (u32, u32) = (900, 420);

/// The models' colours, in their order.
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
];

/// One model's marks: the group's index, and the share there.
pub struct Marks<'a> {
    /// The model.
    pub model: &'a str,
    /// Its groups' places, and the share in each.
    pub points: Vec<(usize, Estimate)>,
}

/// Writes the plots into a directory; gives back how many there are.
pub fn write(directory: &Path, study: &Study) -> Result<usize> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("making {}", directory.display()))?;
    crate::plot::register_font()?;
    let Some(first) = study.models.first() else { return Ok(0) };
    let mut written = 0;
    for (i, facet) in first.facets.iter().enumerate() {
        let names: Vec<String> = facet.groups.iter().map(|(name, _)| name.clone()).collect();
        let marks = study.models.iter().map(|model| Marks {
            model: &model.model,
            points: (model.facets[i].groups.iter().enumerate())
                .filter_map(|(at, (_, numbers))| Some((at, numbers.accuracy?)))
                .collect(),
        });
        let title = format!("accuracy by: {}", facet.title.to_lowercase());
        whiskers(
            &directory.join(format!("by_{}", facet.key)),
            &title,
            &names,
            &marks.collect::<Vec<_>>(),
        )?;
        written += 1;
    }
    if !first.pass_at.is_empty() {
        let names: Vec<String> =
            first.pass_at.iter().map(|pass| format!("k = {}", pass.k)).collect();
        let marks = study.models.iter().map(|model| Marks {
            model: &model.model,
            points: model.pass_at.iter().map(|pass| pass.chance).enumerate().collect(),
        });
        whiskers(&directory.join("pass_at_k"), "pass@k", &names, &marks.collect::<Vec<_>>())?;
        written += 1;
    }
    for (i, model) in study.models.iter().enumerate() {
        let name = if study.models.len() == 1 {
            "confusion".to_owned()
        } else {
            format!("confusion_{}", i + 1)
        };
        confusion(&directory.join(name), model)?;
        written += 1;
    }
    Ok(written)
}

fn whiskers(path: &Path, title: &str, names: &[String], models: &[Marks]) -> Result<()> {
    both(
        path,
        |area| draw_whiskers(area, title, names, models),
        |area| draw_whiskers(area, title, names, models),
    )
}

fn confusion(path: &Path, model: &ModelStudy) -> Result<()> {
    both(path, |area| draw_confusion(area, model), |area| draw_confusion(area, model))
}

/// The same drawing on both kinds of file. Two closures, since each backend is a type of its own.
fn both(
    path: &Path,
    svg: impl Fn(DrawingArea<SVGBackend, Shift>) -> Result<()>,
    png: impl Fn(DrawingArea<BitMapBackend, Shift>) -> Result<()>,
) -> Result<()> {
    let file = path.with_extension("svg");
    svg(SVGBackend::new(&file, SIZE).into_drawing_area())
        .with_context(|| format!("drawing {}", file.display()))?;
    let file = path.with_extension("png");
    png(BitMapBackend::new(&file, SIZE).into_drawing_area())
        .with_context(|| format!("drawing {}", file.display()))
}

/// Draws shares with their intervals, group by group, models side by side.
pub fn draw_whiskers<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    title: &str,
    names: &[String],
    models: &[Marks],
) -> Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let groups = names.len().max(1);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(48)
        .build_cartesian_2d(-0.5..groups as f64 - 0.5, 0.0..1.0)?;
    let label = |x: &f64| {
        let at = x.round();
        let name = names.get(at as usize).filter(|_| at >= 0.0 && (x - at).abs() < 1e-6);
        name.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(2 * groups + 1)
        .x_label_formatter(&label)
        .y_label_formatter(&|y| format!("{:.0}%", 100.0 * y))
        .draw()?;
    for (i, marks) in models.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let shift = (i as f64 - (models.len() as f64 - 1.0) / 2.0) * 0.6 / models.len() as f64;
        let place = |at: usize| at as f64 + shift;
        chart.draw_series(marks.points.iter().map(|(at, share)| {
            let [low, high] = share.interval;
            PathElement::new([(place(*at), low), (place(*at), high)], colour.stroke_width(2))
        }))?;
        let dots = marks
            .points
            .iter()
            .map(|(at, share)| Circle::new((place(*at), share.value), 5, colour.filled()));
        let drawn = chart.draw_series(dots)?;
        if models.len() > 1 {
            drawn
                .label(marks.model)
                .legend(move |(x, y)| Circle::new((x + 8, y), 5, colour.filled()));
        }
    }
    if models.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// Shares of each wanted behaviour's completions, darker where there are more.
fn draw_confusion<B: DrawingBackend>(area: DrawingArea<B, Shift>, model: &ModelStudy) -> Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let text = |size: u32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new("wanted (rows) and done", (12, 12), text(18)))?;
    let (left, top, width, height) = (110, 80, 125, 70);
    for (column, deed) in Deed::ALL.iter().enumerate() {
        let at = (left + column as i32 * width + 8, top - 24);
        area.draw(&Text::new(deed.name(), at, text(14)))?;
    }
    for (row, (wanted, counts)) in model.confusion.wanted.iter().enumerate() {
        let y = top + row as i32 * height;
        area.draw(&Text::new(*wanted, (12, y + height / 2 - 8), text(14)))?;
        let all = counts.iter().sum::<usize>().max(1) as f64;
        for (column, count) in counts.iter().enumerate() {
            let x = left + column as i32 * width;
            let share = *count as f64 / all;
            let cell = [(x, y), (x + width - 4, y + height - 4)];
            area.draw(&Rectangle::new(cell, COLOURS[0].mix(0.08 + 0.72 * share).filled()))?;
            let name = format!("{count} ({:.0}%)", 100.0 * share);
            area.draw(&Text::new(name, (x + 10, y + height / 2 - 8), text(14)))?;
        }
    }
    area.present()?;
    Ok(())
}
