//! The README's table of bounds: each row names what counts it, and that is counted; each has its tests.

use std::collections::BTreeSet;
use std::path::Path;

use super::case;
use super::support::server::Server;

/// Not met by any case of the suite, but by the tests that `bounds.toml` names.
const ELSEWHERE: [&str; 11] = [
    "write_time",
    "replay",
    "presence",
    "absent_users",
    "answer_time",
    "farewell_time",
    "host_time",
    "hosts",
    "linger_time",
    "nodes",
    "subscriptions",
];

/// How the last column begins where nothing is counted; it says why.
const UNCOUNTED: [&str; 2] = ["nothing: ", "exit code "];

/// The words in backticks of the last column of each row.
fn counted() -> Vec<(String, Vec<String>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    let (_, table) = text.split_once("## Bounds").expect("the chapter");
    let (table, _) = table.split_once("\n## ").expect("another chapter follows");
    let rows = table.lines().filter(|line| line.starts_with("| "));
    rows.skip(1)
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            let last = cells.last().expect("a cell");
            let words: Vec<_> = last.split('`').skip(1).step_by(2).collect();
            let is_counted = !words.is_empty();
            let says_why = UNCOUNTED.iter().any(|begin| last.starts_with(begin));
            assert!(is_counted || says_why, "nothing counts: {row}");
            let words = words.into_iter().map(str::to_owned);
            (cells[0].trim().to_owned(), words.collect())
        })
        .collect()
}

/// Every word of `bounds.increment("…")` in the server's code.
fn in_the_code(folder: &Path, words: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            in_the_code(&path, words);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        for part in text.split("bounds.increment(\"").skip(1) {
            words.extend(part.split('"').next().map(str::to_owned));
        }
    }
}

#[test]
fn every_bound_is_counted_and_every_count_is_in_the_table() {
    let rows = counted();
    assert!(rows.len() > 30, "{} rows", rows.len());
    let known: Vec<&str> = project_yum::metrics::TABLE
        .iter()
        .map(|row| row.name)
        .collect();
    let mut told = BTreeSet::new();
    for (row, words) in rows {
        for word in words {
            match word.strip_prefix("bound=\"") {
                Some(bound) => assert!(told.insert(bound.trim_end_matches('"').to_owned())),
                None => assert!(known.contains(&word.as_str()), "{row}: no figure {word}"),
            }
        }
    }
    let mut used = BTreeSet::new();
    in_the_code(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut used,
    );
    // Those that an error names, and those that a variable does.
    for other in [
        "request_line",
        "head",
        "trailers",
        "body",
        "first_byte_time",
        "keep_alive_time",
        "head_time",
        "body_time",
    ] {
        used.insert(other.to_owned());
    }
    assert_eq!(told, used);
}

#[test]
fn every_bound_has_its_tests() {
    let mut tests = case::bounds();
    for (row, _) in counted() {
        let tests = tests.remove(&row).unwrap_or_default();
        assert!(!tests.is_empty(), "bounds.toml names no test of: {row}");
        for test in tests {
            assert!(case::is_known(&test), "{test} is missing");
        }
    }
    assert!(tests.is_empty(), "no such rows: {:?}", tests.keys());
}

/// After all cases: each bound that a case meets was counted.
pub(super) fn check_counts(server: &Server) -> Vec<String> {
    let scrape = server.scrape();
    let bounds = counted().into_iter().flat_map(|(_, words)| words);
    bounds
        .filter(|word| word.starts_with("bound=") && !ELSEWHERE.iter().any(|e| word.contains(e)))
        .filter(|word| {
            let mut lines = scrape.lines();
            !lines.any(|line| {
                line.starts_with("yum_bounds_total{")
                    && line.contains(word)
                    && !line.ends_with(" 0")
            })
        })
        .map(|word| format!("no case met {word}"))
        .collect()
}
