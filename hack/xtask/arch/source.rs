//! A Rust file as the rules see it: code lines without comments, text in quotes and tests. Pure.

/// One file.
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// Lines of code, the first is number 1; comments, literals and tests are blank.
    pub code: Vec<String>,
    /// The same with literals.
    pub literals: Vec<String>,
    /// The same as `code` with tests.
    all: Vec<String>,
}

impl Source {
    /// Reads a file's text.
    pub fn new(path: &str, text: &str) -> Self {
        let all = blank(text, |_| true);
        let code = without_tests(&all);
        // Where a test is, is seen without literals.
        let kept = blank(text, |first| first == '/');
        let literals = code.iter().zip(kept.lines());
        let literals = literals.map(|(code, line)| {
            if code.is_empty() {
                String::new()
            } else {
                line.to_owned()
            }
        });
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            literals: literals.collect(),
            code,
            all: all.lines().map(str::to_owned).collect(),
        }
    }

    /// The code or its tests name `word`.
    pub fn names(&self, word: &str) -> bool {
        self.all.iter().any(|line| mentions(line, word))
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

    /// A file of unit tests, by its name or its folder's.
    pub fn is_test(&self) -> bool {
        self.stem().ends_with("tests")
            || (self.path.starts_with("controllers/") && self.path.contains("/tests/"))
    }

    /// Numbers of the lines of code that contain `word` as a whole word.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        numbers(&self.code, word)
    }

    /// The same in the code and its tests.
    pub fn lines_of_all_with(&self, word: &str) -> Vec<usize> {
        numbers(&self.all, word)
    }

    /// A line of a test inside a file with other code.
    pub fn is_test_line(&self, number: usize) -> bool {
        let line = |lines: &[String]| lines.get(number - 1).is_some_and(|line| !line.trim().is_empty());
        line(&self.all) && !line(&self.code)
    }
}

/// Numbers of the lines that contain `word` as a whole word.
fn numbers(lines: &[String], word: &str) -> Vec<usize> {
    let numbered = (1..).zip(lines);
    numbered
        .filter(|(_, line)| mentions(line, word))
        .map(|(number, _)| number)
        .collect()
}

/// `line` contains `word`, and not as part of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let bounded =
        |c: Option<char>, edge: Option<char>| !edge.is_some_and(part_of_name) || !c.is_some_and(part_of_name);
    line.match_indices(word).any(|(at, _)| {
        bounded(line[..at].chars().next_back(), word.chars().next())
            && bounded(line[at + word.len()..].chars().next(), word.chars().next_back())
    })
}

/// Paths that begin with `crate`, `self` or `super`, with the line where each begins; a group is one path a member.
pub fn paths(code: &[String]) -> Vec<(usize, Vec<String>)> {
    let text = code.join("\n");
    let mut found = Vec::new();
    for word in ["crate", "self", "super"] {
        for (at, _) in text.match_indices(&format!("{word}::")) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                let line = text[..at].matches('\n').count() + 1;
                let mut all = Vec::new();
                tree(&text[at..], &[], &mut all);
                found.extend(all.into_iter().map(|path| (line, path)));
            }
        }
    }
    found.sort();
    found
}

/// Reads a path or a tree of paths from the beginning of `text`; returns what follows it.
fn tree<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut rest = group.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = tree(rest, prefix, found).trim_start();
            // Past ` as name` and the comma.
            rest = rest[rest.find([',', '}']).unwrap_or(rest.len())..]
                .trim_start_matches(',')
                .trim_start();
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let mut path = prefix.to_vec();
    if end > 0 {
        path.push(text[..end].to_owned());
    }
    let rest = &text[end..];
    if let Some(more) = rest.strip_prefix("::").filter(|_| end > 0) {
        return tree(more, &path, found);
    }
    found.push(path);
    rest
}

/// The text with comments as spaces, and the inside of literals that `which` asks for by their first character; line
/// breaks stay.
fn blank(text: &str, which: impl Fn(char) -> bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        let hidden = end > at && which(chars[at]);
        let end = end.max(at + 1);
        out.extend(
            chars[at..end]
                .iter()
                .map(|c| if hidden && *c != '\n' { ' ' } else { *c }),
        );
        at = end;
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
    fn literals_are_kept_where_they_are_looked_for() {
        let text = "let a = \"x\"; // \"y\"\n#[cfg(test)]\nmod tests {\n    \"z\";\n}\n";
        let source = Source::new("x.rs", text);
        assert_eq!(source.literals, ["let a = \"x\";       ", "", "", "", ""]);
        assert!(source.names("tests") && !source.names("x"));
    }

    #[test]
    fn a_group_of_imports_is_one_path_a_member() {
        let code = "use crate::{\n    a,\n    b::{self as c, d::E},\n};\nself::f();\nlet x = my_crate::g(super::super::h::<T>());\n";
        let source = Source::new("x.rs", code);
        let found: Vec<_> = paths(&source.code)
            .into_iter()
            .map(|(line, path)| (line, path.join("::")))
            .collect();
        let found: Vec<_> = found.iter().map(|(line, path)| (*line, path.as_str())).collect();
        assert_eq!(
            found,
            [
                (1, "crate::a"),
                (1, "crate::b::d::E"),
                (1, "crate::b::self"),
                (5, "self::f"),
                (6, "super::super::h"),
            ]
        );
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
