//! What the checks and the pages need of Markdown: headings with their anchors, links and code outside code blocks,
//! and cells of tables. Pure.

/// A line outside code blocks, with its number (the first is 1).
pub fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (Some(open), Some(close)) if open == close => {
                fence = None;
                false
            }
            (None, Some(open)) => {
                fence = Some(open);
                false
            }
            (open, _) => open.is_none(),
        }
    })
}

/// A heading.
#[derive(Debug, PartialEq, Eq)]
pub struct Heading<'a> {
    /// Number of its line.
    pub line: usize,
    /// 1 to 6.
    pub level: usize,
    /// Its text, with the marks of code and emphasis.
    pub text: &'a str,
}

/// The headings of a page, in order.
pub fn headings(text: &str) -> impl Iterator<Item = Heading<'_>> {
    prose(text).filter_map(|(line, text)| {
        let level = text.chars().take_while(|c| *c == '#').count();
        let title = text.get(level..)?.strip_prefix(' ')?;
        (1..=6).contains(&level).then(|| Heading {
            line,
            level,
            text: title.trim(),
        })
    })
}

/// The anchors of a page's headings, as mdBook makes them: letters, digits, `-` and `_` in lower case, a dash for each
/// space, and a number behind what is used already.
pub fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for heading in headings(text) {
        let base: String = heading
            .text
            .chars()
            .filter_map(|c| match c {
                c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
                c if c.is_whitespace() => Some('-'),
                _ => None,
            })
            .collect();
        let mut anchor = base.clone();
        let mut next = 1;
        while found.contains(&anchor) {
            anchor = format!("{base}-{next}");
            next += 1;
        }
        found.push(anchor);
    }
    found
}

/// The targets of the links and images of a line.
pub fn targets(line: &str) -> Vec<&str> {
    let plain = without_code(line);
    let mut found = Vec::new();
    for (at, _) in plain.match_indices("](") {
        let rest = &line[at + 2..];
        if let Some(end) = rest.find([')', ' ']) {
            found.push(&rest[..end]);
        }
    }
    found
}

/// The code in a line, between backticks.
pub fn code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The line with the code in it as blanks of the same length in bytes.
fn without_code(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for (index, part) in line.split('`').enumerate() {
        if index > 0 {
            out.push('`');
        }
        if index % 2 == 0 {
            out.push_str(part);
        } else {
            out.extend(std::iter::repeat_n(' ', part.len()));
        }
    }
    out
}

/// Appends to a page.
pub fn add(page: &mut String, text: &str) {
    page.push_str(text);
}

/// Text as the cell of a table: one line, with no bar that would end the cell and no tag.
pub fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::with_capacity(line.len());
    for (index, part) in line.split('`').enumerate() {
        if index > 0 {
            out.push('`');
        }
        let part = part.replace('|', "\\|");
        out.push_str(&if index % 2 == 0 {
            part.replace('<', "&lt;")
        } else {
            part
        });
    }
    out
}

/// The line that every generated page has below its title.
pub fn made_by(from: &str) -> String {
    format!("<!-- Made by `cargo xtask docs` from {from}; edit that instead. -->\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n```sh\n# no heading [x](y)\n```\n## `Ready` and *more*!\n## A page\n";

    #[test]
    fn headings_in_code_blocks_are_none() {
        let found: Vec<_> = headings(PAGE)
            .map(|heading| (heading.line, heading.level))
            .collect();
        assert_eq!(found, [(1, 1), (5, 2), (6, 2)]);
    }

    #[test]
    fn anchors_are_those_of_mdbook() {
        assert_eq!(anchors(PAGE), ["a-page", "ready-and-more", "a-page-1"]);
    }

    #[test]
    fn links_in_code_are_none() {
        assert_eq!(
            targets("see [a](b.md#c), `[d](e)` and ![f](g.svg \"title\")"),
            ["b.md#c", "g.svg"]
        );
        assert_eq!(code("run `a b` or `c`"), ["a b", "c"]);
    }

    #[test]
    fn a_cell_has_one_line_and_no_bar() {
        assert_eq!(cell("a\n  b | `c|<d>` <e>"), "a b \\| `c\\|<d>` &lt;e>");
    }
}
