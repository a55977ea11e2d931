//! The table as a picture: our figure as a share of the best peer's, a bar for each.

use std::fmt::Write as _;

use crate::number::number;
use crate::rows::Goal;
use crate::table::{Line, Table};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 400.0;
const BAR: f64 = 26.0;
/// Pixels of the best peer's figure.
const UNIT: f64 = 300.0;

/// Draws the chart. Shorter is better throughout: where more is better the share is turned round.
pub(crate) fn draw(table: &Table) -> String {
    let lines: Vec<(&Line, f64)> = table
        .lines
        .iter()
        .filter_map(|line| {
            let ratio = line.ratio()?;
            Some((
                line,
                if matches!(line.goal, Goal::Above(_)) {
                    1.0 / ratio
                } else {
                    ratio
                },
            ))
        })
        .collect();
    let mut y = 56.0;
    let mut bars = String::new();
    for (line, share) in &lines {
        let goal = match line.goal {
            Goal::Below(share) => share,
            Goal::Above(times) => 1.0 / times,
            Goal::AtMost(most) => most / line.best().unwrap_or(most),
            Goal::Shown => 1.0,
        };
        let colour = if *share <= goal { "#2f855a" } else { "#c05621" };
        let (length, mark) = (UNIT * share.min(1.4), LEFT + UNIT * goal);
        let text = format!("{}: {}", line.row, line.figure);
        let ours = line.ours.map_or(0.0, |(_, spread)| spread.median);
        let best = line.best().unwrap_or(0.0);
        let _ = write!(
            bars,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{text}</text><rect x="{LEFT}" y="{y}" width="{length:.1}" height="18" rx="2" fill="{colour}"/><path d="M{mark:.1} {y}v18" stroke="black" stroke-width="2"/><text x="{:.1}" y="{:.0}" class="figure">{} · best peer {}</text>"#,
            LEFT - 8.0,
            y + 13.0,
            LEFT + length.max(UNIT * goal) + 8.0,
            y + 13.0,
            number(ours),
            number(best),
        );
        bars.push('\n');
        y += BAR;
    }
    let height = y + 16.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<style>text{{font:12px system-ui,sans-serif;fill:#222}}.figure{{fill:#555}}.title{{font-weight:600;font-size:14px}}</style>
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="12" y="22" class="title">project-yum as a share of the best peer of the same run (shorter is better)</text>
<text x="12" y="42" class="figure">dashed: the best peer · black mark: the goal · green: goal met</text>
<path d="M{line} 50V{end}" stroke="#999" stroke-dasharray="4 3"/>
{bars}</svg>
"##,
        line = LEFT + UNIT,
        end = height - 12.0,
    )
}
