//! A Rust file as the rules see it: code lines without comments, text in quotes and tests. Pure.

/// One file.
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// Lines of code, the first is number 1; comments, literals and tests are blank.
    pub code: Vec<String>,
}

impl Source {
    /// Reads a file's text.
    pub fn new(path: &str, text: &str) -> Self {
        let code = without_tests(&without_literals(text));
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    /// File name without `.rs`; that of the folder for `mod.rs`.
    pub fn stem(&self) -> &str {
        let mut parts = self.path.trim_end_matches(".rs").rsplit('/');
        match parts.next() {
            Some("mod") => parts.next().unwrap_or_default(),
            Some(stem) => stem,
            None => "",
        }
    }

    /// Numbers of the lines in which `word` stands as a word of its own.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        (1..)
            .zip(&self.code)
            .filter(|(_, line)| mentions(line, word))
            .map(|(number, _)| number)
            .collect()
    }
}

/// `word` stands in `line` and is no part of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let bounded =
        |c: Option<char>, edge: Option<char>| !edge.is_some_and(part_of_name) || !c.is_some_and(part_of_name);
    line.match_indices(word).any(|(at, _)| {
        bounded(line[..at].chars().next_back(), word.chars().next())
            && bounded(line[at + word.len()..].chars().next(), word.chars().next_back())
    })
}

/// The text with comments and the inside of literals as spaces; line breaks stay.
fn without_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let is = |offset: usize, c: char| chars.get(at + offset) == Some(&c);
    let find = |from: usize, end: &[char]| {
        (from..chars.len())
            .find(|i| chars[*i..].starts_with(end))
            .map_or(chars.len(), |i| i + end.len())
    };
    match chars[at] {
        '/' if is(1, '/') => find(at, &['\n']) - 1,
        '/' if is(1, '*') => find(at + 2, &['*', '/']),
        '"' => quoted_end(chars, at + 1),
        'r' if (is(1, '"') || is(1, '#')) && !chars[..at].last().is_some_and(|c| c.is_alphanumeric()) => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if !is(1 + hashes, '"') {
                return at;
            }
            let mut end = vec!['"'];
            end.extend(vec!['#'; hashes]);
            find(at + 2 + hashes, &end)
        }
        '\'' if is(1, '\\') => find(at + 3, &['\'']),
        '\'' if is(2, '\'') => at + 3,
        _ => at,
    }
}

fn quoted_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Lines, with what follows `#[cfg(test)]` blank: one item, up to the brace or semicolon that ends it.
fn without_tests(code: &str) -> Vec<String> {
    let mut lines: Vec<String> = code.lines().map(str::to_owned).collect();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim() != "#[cfg(test)]" {
            at += 1;
            continue;
        }
        let indent = lines[at].len() - lines[at].trim_start().len();
        let brace = format!("{}}}", " ".repeat(indent));
        let mut opened = false;
        while at < lines.len() {
            let line = std::mem::take(&mut lines[at]);
            at += 1;
            opened |= line.contains('{');
            if line.trim_end() == brace || (!opened && line.trim_end().ends_with(';')) {
                break;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_counts() {
        let text = "//! Client\nlet a = \"Client \\\" x\"; /* Client */ let c = 'C';\nlet r = r#\"Client\"#;\n\
                    fn f<'a>(x: &'a Client) {}\n#[cfg(test)]\nmod tests {\n    use Client;\n}\nuse MyClient;\n";
        let source = Source::new("controllers/k8s/names.rs", text);
        assert_eq!(source.lines_with("Client"), [4]);
        assert_eq!(source.code.len(), text.lines().count());
    }

    #[test]
    fn words_end_where_names_end() {
        assert!(mentions("let x: Api<Secret>", "Api<"));
        assert!(!mentions("MyApi<Secret>", "Api<"));
        assert!(mentions("rand::rng()", "rand"));
        assert!(!mentions("operand", "rand"));
        assert!(mentions("std::env::var", "std::env"));
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_ends_at_its_semicolon() {
        let source = Source::new("x.rs", "#[cfg(test)]\nmod tests;\nuse tokio;\n");
        assert_eq!(source.lines_with("tokio"), [3]);
    }

    #[test]
    fn the_stem_of_a_module_file_is_its_folder() {
        assert_eq!(
            Source::new("controllers/hosting/tenantcontrolplane/desired/mod.rs", "").stem(),
            "desired"
        );
        assert_eq!(Source::new("controllers/hosting/plan.rs", "").stem(), "plan");
    }
}
