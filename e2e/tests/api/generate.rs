//! Values that a schema of a definition accepts, as far as it says so, with a liking for the edges: what is just inside a
//! bound, what a format permits and nobody writes, null. Rules in CEL are left to the API server.

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    string::string_regex,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

/// Levels of a generated value; below it only what is required.
const DEEP: u32 = 5;
const WORDS: [&str; 18] = [
    "",
    "a",
    "0",
    "-1",
    "true",
    "null",
    "1h",
    "1h30m",
    "1.5Gi",
    "100m",
    "50%",
    "10.0.0.1",
    "::1",
    "a/b",
    "v1.36.3",
    "Ä\u{1f600}",
    "2026-01-02T03:04:05Z",
    "*",
];
const TIMES: [&str; 8] = [
    "2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05+01:00",
    "2026-01-02T03:04:05.123456789Z",
    "2026-01-02T03:04:05.1-23:59",
    "2016-12-31T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "2026-01-02t03:04:05z",
];
const DURATIONS: [&str; 8] = [
    "0",
    "0s",
    "1h30m",
    "1.5h",
    "-3m",
    "1ns",
    "1d",
    "2562047h47m16.854775807s",
];
const INTEGERS: [i64; 14] = [
    0,
    1,
    -1,
    7,
    255,
    256,
    65_535,
    65_536,
    i32::MAX as i64,
    i32::MAX as i64 + 1,
    i32::MIN as i64,
    i32::MIN as i64 - 1,
    i64::MAX,
    i64::MIN,
];

/// `base` with one part of it generated anew, at a random place of the schema.
pub fn changed(base: Option<&Value>, schema: &Value, random: &mut StdRng) -> Value {
    let properties = schema["properties"].as_object().filter(|all| !all.is_empty());
    if let Some(properties) = properties.filter(|_| random.random_bool(0.9)) {
        let mut object = match base {
            Some(Value::Object(object)) => object.clone(),
            _ => required(schema, random),
        };
        let names: Vec<&String> = properties.keys().collect();
        for _ in 0..random.random_range(1..=2) {
            if let Some(name) = names.choose(random) {
                let value = changed(object.get(*name), &properties[*name], random);
                object.insert((*name).clone(), value);
            }
        }
        return Value::Object(object);
    }
    if schema["items"].is_object() && random.random_bool(0.7) {
        return json!([changed(None, &schema["items"], random)]);
    }
    value(schema, random, 0)
}

/// An object with what is required.
fn required(schema: &Value, random: &mut StdRng) -> Map<String, Value> {
    let names = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    names
        .map(|name| (name.to_owned(), value(&schema["properties"][name], random, DEEP)))
        .collect()
}

fn value(schema: &Value, random: &mut StdRng, level: u32) -> Value {
    if random.random_bool(if schema["nullable"] == true { 0.2 } else { 0.03 }) {
        return Value::Null;
    }
    if let Some(choice) = schema["enum"].as_array().and_then(|all| all.choose(random)) {
        return choice.clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return if random.random_bool(0.5) {
            integer(schema, random)
        } else {
            string(schema, random)
        };
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, random, level),
        Some("array") => array(schema, random, level),
        Some("string") => string(schema, random),
        Some("integer") => integer(schema, random),
        Some("number") => json!([0.0, -0.5, 1e3, 1e300, 3.0].choose(random)),
        Some("boolean") => json!(random.random_bool(0.5)),
        _ => json!([json!({}), json!(1), json!("a"), json!([]), json!(true)].choose(random)),
    }
}

fn object(schema: &Value, random: &mut StdRng, level: u32) -> Value {
    let mut object = required(schema, random);
    if level >= DEEP {
        return Value::Object(object);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if random.random_bool(0.15) {
            object.insert(name.clone(), value(inner, random, level + 1));
        }
    }
    let inner = &schema["additionalProperties"];
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if inner.is_object() || free {
        for _ in 0..random.random_range(0..3) {
            let key = *["a", "a.b/c", "0", "memory", "cpu"]
                .choose(random)
                .unwrap_or(&"a");
            let inner = if inner.is_object() { inner } else { &Value::Null };
            object.insert(key.to_owned(), value(inner, random, level + 1));
        }
    }
    Value::Object(object)
}

fn array(schema: &Value, random: &mut StdRng, level: u32) -> Value {
    let bound = |key: &str, default: u64| schema[key].as_u64().unwrap_or(default);
    let least = bound("minItems", 0);
    let most = bound("maxItems", 3).min(3).max(least);
    let count = if level >= DEEP {
        least
    } else {
        random.random_range(least..=most)
    };
    (0..count)
        .map(|_| value(&schema["items"], random, level + 1))
        .collect()
}

fn integer(schema: &Value, random: &mut StdRng) -> Value {
    let bound = |key: &str| schema[key].as_f64();
    let fits = |number: &i64| {
        #[expect(clippy::cast_precision_loss, reason = "bounds in schemas are small")]
        let number = *number as f64;
        bound("minimum").is_none_or(|least| number >= least)
            && bound("maximum").is_none_or(|most| number <= most)
    };
    #[expect(clippy::cast_possible_truncation, reason = "bounds in schemas are small")]
    let edges = [bound("minimum"), bound("maximum")]
        .into_iter()
        .flatten()
        .map(|edge| edge as i64);
    let numbers: Vec<i64> = INTEGERS.into_iter().chain(edges).filter(fits).collect();
    let number = numbers.choose(random).copied().unwrap_or_default();
    // The same number, as some programs write it.
    #[expect(clippy::cast_precision_loss, reason = "a float is what is wanted")]
    if random.random_bool(0.1) && number.unsigned_abs() < 1 << 50 {
        return json!(number as f64);
    }
    json!(number)
}

fn string(schema: &Value, random: &mut StdRng) -> Value {
    let pattern = schema["pattern"].as_str();
    let format = schema["format"].as_str().unwrap_or_default();
    let words: &[&str] = match format {
        "date-time" => &TIMES,
        "duration" => &DURATIONS,
        "byte" => &["", "YQ==", "YWI="],
        _ => &WORDS,
    };
    let text = match pattern.and_then(|pattern| matching(pattern, random)) {
        Some(text) => text,
        None => (*words.choose(random).unwrap_or(&"")).to_owned(),
    };
    let length = |key: &str| {
        schema[key]
            .as_u64()
            .and_then(|length| usize::try_from(length).ok())
    };
    let least = length("minLength").unwrap_or(0).min(4096);
    let most = length("maxLength").unwrap_or(4096);
    if pattern.is_some() {
        return json!(text);
    }
    let mut text: String = text.chars().take(most).collect();
    while text.chars().count() < least {
        text.push('x');
    }
    json!(text)
}

/// A text that a pattern matches, if the pattern can be turned around.
fn matching(pattern: &str, random: &mut StdRng) -> Option<String> {
    let strategy = string_regex(&without_anchors(pattern)).ok()?;
    let seed: [u8; 32] = random.random();
    let source = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), source);
    Some(strategy.new_tree(&mut runner).ok()?.current())
}

/// The pattern for the text from its beginning to its end, with classes of ASCII as Go takes them.
fn without_anchors(pattern: &str) -> String {
    let (mut plain, mut in_class, mut characters) = (String::new(), false, pattern.chars().peekable());
    while let Some(c) = characters.next() {
        match (c, in_class) {
            ('\\', _) => match (characters.next(), in_class) {
                (Some('d'), true) => plain.push_str("0-9"),
                (Some('d'), false) => plain.push_str("[0-9]"),
                (Some('w'), true) => plain.push_str("0-9A-Za-z_"),
                (Some('w'), false) => plain.push_str("[0-9A-Za-z_]"),
                (Some(other), _) => plain.extend(['\\', other]),
                (None, _) => {}
            },
            ('[', false) => {
                in_class = true;
                plain.push(c);
                plain.extend(characters.next_if_eq(&'^'));
            }
            (']', true) => {
                in_class = false;
                plain.push(c);
            }
            ('^' | '$', false) => {}
            _ => plain.push(c),
        }
    }
    plain
}
