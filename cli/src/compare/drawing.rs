//! A comparison, drawn: the rewards while training, and the accuracy afterwards by what rows want.
//!
//! Invariant: SVG and PNG show the same drawing.

use super::numbers::{Contest, Group};
use crate::evaluation::charts::{COLOURS, Marks, draw_whiskers};
use crate::plot::{Line, chart, register_font};
use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// Width and height in pixels.
const SIZE: (u32, u32) = (1280, 460);

/// Writes `compare.svg` and `compare.png` into a directory.
///
/// # Errors
/// A file cannot be written.
pub fn write(directory: &Path, contest: &Contest) -> Result<()> {
    register_font()?;
    let svg = directory.join("compare.svg");
    draw(SVGBackend::new(&svg, SIZE).into_drawing_area(), contest)
        .with_context(|| format!("drawing {}", svg.display()))?;
    let png = directory.join("compare.png");
    draw(BitMapBackend::new(&png, SIZE).into_drawing_area(), contest)
        .with_context(|| format!("drawing {}", png.display()))
}

fn draw<B: DrawingBackend>(area: DrawingArea<B, Shift>, contest: &Contest) -> Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0 as i32 / 2);
    let lines = contest.methods.iter().enumerate().map(|(at, method)| Line {
        name: method.name.clone(),
        colour: COLOURS[at % COLOURS.len()],
        points: method.curve.clone(),
    });
    chart(
        &left,
        "mean reward of sampled completions, over the seeds",
        lines.collect(),
        Some((0.0, 1.0)),
    )?;
    let groups = contest.methods.first().map_or(&[][..], |method| &method.groups);
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    let marks = contest.methods.iter().map(|method| {
        // A behaviour that only another recipe's rows have cannot be: the rows are the same.
        let point = |(at, group): (usize, &Group)| Some((at, group.estimate?));
        Marks {
            model: &method.name,
            points: method.groups.iter().enumerate().filter_map(point).collect(),
        }
    });
    draw_whiskers(
        right,
        "accuracy on held-out rows afterwards",
        &names,
        &marks.collect::<Vec<_>>(),
    )?;
    area.present()?;
    Ok(())
}
