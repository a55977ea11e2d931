//! The layers of the crate, read off its source: who names whom, what stays pure, how long files are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module and layer. A file names its own module and lower layers, nothing else.
const LAYERS: &[(&str, u8)] = &[
    ("dial", 0),
    ("env", 0),
    ("hashed", 0),
    ("metrics", 0),
    ("planted", 0),
    ("sorted", 0),
    ("sync", 0),
    ("wire", 0),
    ("engine", 1),
    ("limit", 1),
    ("hub", 2),
    ("auth", 3),
    ("bus", 3),
    ("store", 3),
    ("chat", 4),
    ("net", 4),
    ("commands", 5),
    ("config", 5),
    ("load", 5),
    ("log", 5),
    ("report", 5),
    ("server", 5),
];

/// Files and folders that decide and never wait: no I/O, no clock, no randomness, no `await`.
const PURE: &[&str] = &[
    "auth.rs",
    "bus/heads.rs",
    "bus/redis/convert.rs",
    "bus/redis/hosts.rs",
    "bus/redis/link.rs",
    "bus/redis/news.rs",
    "bus/redis/reply.rs",
    "bus/redis/subscriptions.rs",
    "bus/redis/target.rs",
    "bus/usage.rs",
    "chat/event.rs",
    "chat/expiry.rs",
    "chat/member.rs",
    "chat/owed.rs",
    "config/dotenv.rs",
    "config/live.rs",
    "config/mod.rs",
    "config/settings.rs",
    "config/sources.rs",
    "config/values.rs",
    "dial/backoff.rs",
    "dial/verifier.rs",
    "engine/session.rs",
    "engine/table.rs",
    "hub/client.rs",
    "hub/order.rs",
    "hub/rooms.rs",
    "hub/window.rs",
    "limit.rs",
    "load/frames.rs",
    "load/ledger.rs",
    "sorted.rs",
    "wire/",
];

/// What a pure file never says.
const IMPURE: &[&str] = &[
    ".await",
    "async fn",
    "async move",
    "async {",
    "Instant::now",
    "SystemTime::now",
    "OffsetDateTime::now",
    "getrandom",
    "thread::spawn",
    "thread::sleep",
    "thread::Builder",
    "std::fs",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::env::",
    "stdout()",
    "stderr()",
];

/// Where the runtime may be named.
const RUNTIME: &[&str] = &["dial/", "net/", "bus/", "store/", "server/"];

/// Lines of a file, its unit tests not counted.
const LINES_MAX: usize = 600;
/// Lines of a file of unit tests, or of code and unit tests together.
const LINES_WITH_TESTS_MAX: usize = 1000;

struct Source {
    /// Below `src/`.
    path: String,
    text: String,
    /// Without comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 20, "the source is where it is looked for");
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a source file is text");
            let path = file.strip_prefix(&root).expect("it lies below the root");
            Source {
                path: path.to_string_lossy().into_owned(),
                code: without_comments(&text),
                text,
            }
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| {
            let start = line.trim_start();
            // `://` is part of an address, not a comment.
            match line.find(" // ") {
                _ if start.starts_with("//") => "",
                Some(at) => &line[..at],
                None => line,
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The modules that follow `crate::` in a text, also in `crate::{a::B, c::D}`.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            names.push(word);
        } else {
            names.push(rest.to_owned());
        }
    }
    names
        .iter()
        .map(|name| {
            let name = name.trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
            name[..end.unwrap_or(name.len())].to_owned()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn module_of(path: &str) -> &str {
    let first = path.split('/').next().expect("a path has a first part");
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn a_file_names_its_own_module_and_lower_layers_only() {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let own = module_of(&source.path);
        if own == "lib" || own == "main" {
            continue;
        }
        let Some(own_layer) = layers.get(own) else {
            panic!(
                "{}: say in LAYERS where the module `{own}` stands",
                source.path
            );
        };
        for name in named(&source.code) {
            match layers.get(name.as_str()) {
                // The top layer is the program: its parts know each other.
                Some(layer)
                    if name == own || layer < own_layer || (*layer, *own_layer) == (5, 5) => {}
                _ => wrong.push(format!(
                    "{} (layer {own_layer}) names crate::{name}",
                    source.path
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the code holds these words, not only as the beginning of a longer name.
fn says(code: &str, words: &str) -> bool {
    code.match_indices(words).any(|(at, _)| {
        let next = code[at + words.len()..].chars().next();
        let name = |c: char| c.is_alphanumeric() || c == '_';
        !(words.ends_with(name) && next.is_some_and(name))
    })
}

#[test]
fn pure_files_wait_for_nothing_and_read_nothing() {
    let sources = sources();
    let mut wrong = Vec::new();
    for pure in PURE {
        let folder = pure.strip_suffix(".rs").map(|folder| format!("{folder}/"));
        let files: Vec<_> = sources
            .iter()
            .filter(|source| {
                source.path == *pure
                    || pure.ends_with('/') && source.path.starts_with(pure)
                    || folder
                        .as_ref()
                        .is_some_and(|folder| source.path.starts_with(folder))
            })
            .collect();
        assert!(!files.is_empty(), "{pure} is there to be checked");
        for source in files {
            // Tests may wait and use whatever they like.
            let code = source.code.split("#[cfg(test)]").next().unwrap_or_default();
            if source.path.ends_with("tests.rs") {
                continue;
            }
            for word in IMPURE.iter().filter(|word| says(code, word)) {
                wrong.push(format!("{} says `{word}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_runtime_is_named_only_where_something_waits() {
    for source in sources() {
        let allowed = RUNTIME.iter().any(|folder| source.path.starts_with(folder));
        assert!(
            allowed || !source.code.contains("glommio"),
            "{} names the runtime",
            source.path
        );
    }
}

#[test]
fn a_file_has_a_head_and_fits_a_sitting() {
    let mut wrong = Vec::new();
    for source in sources() {
        let own = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        let bounds = [
            (source.text.lines().count(), LINES_WITH_TESTS_MAX),
            (own.lines().count(), LINES_MAX),
        ];
        for (lines, most) in bounds {
            if lines > most && !(most == LINES_MAX && source.path.ends_with("tests.rs")) {
                wrong.push(format!(
                    "{} has {lines} lines, more than {most}",
                    source.path
                ));
            }
        }
        let is_test = source.path.ends_with("tests.rs");
        if !is_test && !source.text.starts_with("//!") {
            wrong.push(format!("{} has no head", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_sees_paths() {
    let code = "use crate::{net::{self, Site}, chat::Chat};\nlet x = crate::hub::Hub::new();";
    assert_eq!(named(code), ["net", "chat", "hub"]);
    assert_eq!(
        without_comments("// crate::net\nlet a = 1; // crate::net\n"),
        "\nlet a = 1;"
    );
}
