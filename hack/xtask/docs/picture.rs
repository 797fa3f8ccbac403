//! Pictures of boxes and arrows: a text in `docs/src/pictures` becomes an SVG of the same name, the same bytes on every
//! machine. One command a line, `#` begins a comment:
//!
//! ```text
//! size COLUMNS ROWS                         cells of the picture
//! group COLUMN ROW WIDTH HEIGHT title       a frame around cells
//! box ID COLUMN ROW WIDTH title / more      a box; `/` begins a new line
//! anchor ID COLUMN ROW WIDTH                a box that is not drawn, for arrows
//! note COLUMN ROW WIDTH text / more         text without a frame
//! arrow FROM SIDE TO SIDE text / more       an arrow between two boxes; a side is n, e, s or w
//! ```
//!
//! Columns, rows, widths and heights are in cells and may be fractions such as `1.5`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use std::fmt::Write as _;

/// Pixels of a cell, and of what is around and inside it.
const CELL: (f64, f64) = (150.0, 110.0);
const BOX_HEIGHT: f64 = 58.0;
const MARGIN: f64 = 14.0;
const LINE: f64 = 15.0;

const STYLE: &str = "text{font:13px sans-serif;fill:#1b2733}.t{font-weight:bold}.s{font-size:12px;fill:#44525f}\
    .b{fill:#fff;stroke:#326ce5;stroke-width:1.5}.g{fill:#f2f5fa;stroke:#c5cfdd;stroke-dasharray:5 3}\
    .a{stroke:#44525f;stroke-width:1.3;fill:none;marker-end:url(#h)}";

/// A box's rectangle.
#[derive(Clone, Copy)]
struct Rect {
    x: f64,
    y: f64,
    width: f64,
}

impl Rect {
    fn side(self, side: &str) -> anyhow::Result<(f64, f64)> {
        let (middle, half) = (self.y + BOX_HEIGHT / 2.0, self.x + self.width / 2.0);
        Ok(match side {
            "n" => (half, self.y),
            "s" => (half, self.y + BOX_HEIGHT),
            "e" => (self.x + self.width, middle),
            "w" => (self.x, middle),
            other => bail!("side {other}: n, e, s or w"),
        })
    }
}

/// The SVG of a text.
pub fn render(text: &str) -> anyhow::Result<String> {
    let (mut size, mut boxes) = ((1.0, 1.0), BTreeMap::new());
    let (mut frames, mut arrows, mut front) = (String::new(), String::new(), String::new());
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        draw(
            &words,
            &mut size,
            &mut boxes,
            [&mut frames, &mut arrows, &mut front],
        )
        .with_context(|| format!("line {number}: {line}"))?;
    }
    let (width, height) = (size.0 * CELL.0, size.1 * CELL.1);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <!-- Made by `cargo xtask docs`; edit the .txt file of this name instead. -->\n\
         <style>{STYLE}</style>\n\
         <defs><marker id=\"h\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" fill=\"#44525f\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{frames}{arrows}{front}</svg>\n"
    ))
}

fn draw(
    words: &[&str],
    size: &mut (f64, f64),
    boxes: &mut BTreeMap<String, Rect>,
    [frames, arrows, front]: [&mut String; 3],
) -> anyhow::Result<()> {
    match words {
        [] => {}
        [first, ..] if first.starts_with('#') => {}
        ["size", columns, rows] => *size = (columns.parse()?, rows.parse()?),
        ["group", column, row, width, height, title @ ..] => {
            let at = rect(column, row, width)?;
            let height = height.parse::<f64>()? * CELL.1 - MARGIN;
            let (x, y) = (at.x - MARGIN / 2.0, at.y - MARGIN);
            writeln!(
                frames,
                "<rect class=\"g\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{height}\" rx=\"6\"/>",
                at.width + MARGIN,
            )?;
            writeln!(
                front,
                "<text class=\"s\" x=\"{}\" y=\"{}\" text-anchor=\"end\" paint-order=\"stroke\" stroke=\"#f2f5fa\" \
                 stroke-width=\"4\">{}</text>",
                x + at.width + MARGIN - 8.0,
                y + height - 8.0,
                escaped(&title.join(" "))
            )?;
        }
        ["box", id, column, row, width, title @ ..] => {
            let at = rect(column, row, width)?;
            writeln!(
                front,
                "<rect class=\"b\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{BOX_HEIGHT}\" rx=\"5\"/>",
                at.x, at.y, at.width
            )?;
            lines(front, at.x + at.width / 2.0, at.y + BOX_HEIGHT / 2.0, "t", title)?;
            boxes.insert((*id).to_owned(), at);
        }
        ["anchor", id, column, row, width] => {
            boxes.insert((*id).to_owned(), rect(column, row, width)?);
        }
        ["note", column, row, width, text @ ..] => {
            let at = rect(column, row, width)?;
            lines(front, at.x + at.width / 2.0, at.y + BOX_HEIGHT / 2.0, "s", text)?;
        }
        ["arrow", from, out, to, into, text @ ..] => {
            let rect = |id: &str| boxes.get(id).copied().with_context(|| format!("no box {id}"));
            let ((x1, y1), (x2, y2)) = (rect(from)?.side(out)?, rect(to)?.side(into)?);
            writeln!(arrows, "<path class=\"a\" d=\"M{x1} {y1}L{x2} {y2}\"/>")?;
            if !text.is_empty() {
                lines(front, f64::midpoint(x1, x2), f64::midpoint(y1, y2), "s", text)?;
            }
        }
        _ => bail!("no such command"),
    }
    Ok(())
}

fn rect(column: &str, row: &str, width: &str) -> anyhow::Result<Rect> {
    Ok(Rect {
        x: column.parse::<f64>()? * CELL.0 + MARGIN,
        y: row.parse::<f64>()? * CELL.1 + MARGIN * 1.5,
        width: width.parse::<f64>()? * CELL.0 - MARGIN * 2.0,
    })
}

/// Lines of text around a middle: the first in `class`, the others small. Text over an arrow gets a white edge.
fn lines(out: &mut String, x: f64, middle: f64, class: &str, words: &[&str]) -> anyhow::Result<()> {
    let text = words.join(" ");
    let parts: Vec<&str> = text.split(" / ").collect();
    let mut y = middle + 4.5;
    for _ in 1..parts.len() {
        y -= LINE / 2.0;
    }
    for (index, part) in parts.iter().enumerate() {
        let class = if index == 0 { class } else { "s" };
        writeln!(
            out,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" paint-order=\"stroke\" stroke=\"#fff\" \
             stroke-width=\"4\">{}</text>",
            escaped(part)
        )?;
        y += LINE;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_arrows_become_shapes() {
        let svg = render("size 2 1\nbox a 0 0 1 A & B / more\nbox b 1 0 1 C\narrow a e b w owns\n").unwrap();
        assert_eq!(svg.matches("class=\"b\"").count(), 2);
        assert!(
            svg.contains("A &amp; B</text>") && svg.contains("more</text>") && svg.contains("owns</text>")
        );
        assert!(svg.contains("d=\"M136 50L164 50\""), "{svg}");
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let error = |text| format!("{:#}", render(text).unwrap_err());
        assert_eq!(error("size 1 1\ncircle a"), "line 2: circle a: no such command");
        assert_eq!(error("arrow a e b w"), "line 1: arrow a e b w: no box a");
    }
}
