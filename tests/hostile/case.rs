//! The cases: lines of data, each with the rule it is for, its name and its steps.
//!
//! A file of `cases/` holds groups; a case is `[rule, name, step, …]`, and its group's `before` and
//! `after` stand around its steps. `play` says what the steps mean. Bytes are written with the escapes
//! `\r \n \t \0 \\ \xNN`, repetitions `{9000*a}`, and variables `$name`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// File, rule and name.
    pub(crate) name: String,
    /// A rule of `rules.toml`.
    pub(crate) rule: String,
    pub(crate) steps: Vec<String>,
    /// Most of it is waiting for one of the server's deadlines.
    pub(crate) slow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    before: Vec<String>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    slow: bool,
    cases: Vec<Vec<String>>,
}

/// One rule of the design, and where it is tested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) id: String,
    #[expect(dead_code, reason = "for people")]
    says: String,
    /// Tests elsewhere, `file::test`, where no case can show it.
    #[serde(default)]
    pub(crate) tests: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile")
}

/// All cases, in the order of their files.
pub(crate) fn all() -> Vec<Case> {
    let entries = std::fs::read_dir(folder().join("cases")).expect("the folder of cases");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of cases");
        let area = file.file_stem().expect("a name").to_string_lossy();
        let table: Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{area}: {error}"));
        for group in table.group {
            for mut line in group.cases {
                assert!(line.len() > 2, "{area}: a case without steps: {line:?}");
                let steps = line.split_off(2);
                let [rule, name] = <[String; 2]>::try_from(line).expect("two are left");
                let steps = [group.before.clone(), steps, group.after.clone()].concat();
                cases.push(Case {
                    name: format!("{area} {rule}: {name}"),
                    rule,
                    steps,
                    slow: group.slow,
                });
            }
        }
    }
    cases
}

/// All rules.
pub(crate) fn rules() -> Vec<Rule> {
    #[derive(Deserialize)]
    struct Rules {
        rule: Vec<Rule>,
    }
    let text = std::fs::read_to_string(folder().join("rules.toml")).expect("the rules");
    toml::from_str::<Rules>(&text).expect("rules").rule
}

/// Whether there is a test `file::name`: a function, a row of a table of tests, or a case.
pub(crate) fn is_known(test: &str) -> bool {
    let (file, name) = test.split_once("::").expect("file::test");
    assert!(!name.is_empty(), "{test} names no test");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let known = if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        vec![format!("\", \"{name}\", ")]
    } else {
        ["(", ":", ","].map(|end| format!("{name}{end}")).to_vec()
    };
    known.iter().any(|known| source.contains(known))
}

/// The tests of each row of the README's table of bounds, by its first cell.
pub(crate) fn bounds() -> BTreeMap<String, Vec<String>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        what: String,
        tests: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Rows {
        row: Vec<Row>,
    }
    let text = std::fs::read_to_string(folder().join("bounds.toml")).expect("the rows");
    let rows = toml::from_str::<Rows>(&text).expect("rows").row;
    rows.into_iter().map(|row| (row.what, row.tests)).collect()
}

/// The bytes that a text of a step stands for.
pub(crate) fn bytes(text: &str, variables: &HashMap<&'static str, String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '\\' => escape(after, &mut bytes),
            '$' if let Some(after) = variable(after, variables, &mut bytes) => after,
            '{' if let Some((count, part, after)) = repetition(after) => {
                bytes.extend(self::bytes(part, variables).repeat(count));
                after
            }
            _ => {
                bytes.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
                after
            }
        };
    }
    bytes
}

/// Takes a variable behind its `$`. A value may have variables of its own.
fn variable<'a>(
    after: &'a str,
    variables: &HashMap<&'static str, String>,
    bytes: &mut Vec<u8>,
) -> Option<&'a str> {
    let mut known = variables.iter();
    let (name, value) = known.find(|(name, _)| after.starts_with(**name))?;
    bytes.extend(self::bytes(value, variables));
    Some(&after[name.len()..])
}

/// Takes one escape behind its backslash. An unknown one stays as it is: JSON has its own.
fn escape<'a>(after: &'a str, bytes: &mut Vec<u8>) -> &'a str {
    let simple = match after.as_bytes().first() {
        Some(b'r') => Some(b'\r'),
        Some(b'n') => Some(b'\n'),
        Some(b't') => Some(b'\t'),
        Some(b'0') => Some(0),
        Some(b'\\') => Some(b'\\'),
        _ => None,
    };
    if let Some(byte) = simple {
        bytes.push(byte);
        return &after[1..];
    }
    let hex = after.strip_prefix('x').and_then(|hex| hex.get(..2));
    if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        bytes.push(byte);
        return &after[3..];
    }
    bytes.push(b'\\');
    after
}

/// `9000*a}…`: the count, the part, and what follows.
fn repetition(after: &str) -> Option<(usize, &str, &str)> {
    let (count, rest) = after.split_once('*')?;
    let count = count.parse().ok()?;
    let mut depth = 0;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            // Only a repetition within this one has an end of its own.
            b'{' if rest[at + 1..]
                .trim_start_matches(|c: char| c.is_ascii_digit())
                .starts_with('*') =>
            {
                depth += 1;
            }
            b'}' if depth == 0 => return Some((count, &rest[..at], &rest[at + 1..])),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}
