//! Where a setting's value comes from: flags, then the environment, then `.env`, then the file.
//!
//! An empty value counts as absent. This file does no I/O of its own; the file that a `NAME_FILE`
//! names is read through a function given by the caller.

use std::collections::BTreeMap;
use std::path::Path;

use super::Problem;
use super::settings::{SETTINGS, find};

/// Bytes of `.env`, of the file of settings, and of a file that holds one secret. The `toml` crate takes up to
/// 140 times its text while it reads.
pub const FILE_BYTES_MAX: usize = 64 << 10;
/// Mistakes from which on a file is not read further.
pub(super) const PROBLEMS_MAX: usize = 100;

/// Reads a whole file; the error says why not.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// Names and values of one source.
pub type Vars = BTreeMap<String, String>;

/// A value and its source, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: String,
    pub(super) source: &'static str,
}

/// Takes the first source that has each setting.
pub(super) fn resolve(
    layers: &[(&'static str, &Vars)],
    read: Read<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<&'static str, Found> {
    let mut found = BTreeMap::new();
    for setting in SETTINGS {
        for (source, vars) in layers {
            let value = present(vars, setting.name);
            let file = setting
                .from_file
                .then(|| present(vars, &format!("{}_FILE", setting.name)))
                .flatten();
            let value = match (value, file) {
                (None, None) => continue,
                (Some(_), Some(_)) => {
                    let text = format!("set either it or {}_FILE, not both", setting.name);
                    problems.push(Problem::new(setting.name, text));
                    break;
                }
                (Some(value), None) => value.to_owned(),
                (None, Some(path)) => match read(Path::new(path)).and_then(checked) {
                    Ok(content) => content.trim_end_matches(['\r', '\n']).to_owned(),
                    Err(error) => {
                        let key = format!("{}_FILE", setting.name);
                        problems.push(Problem::new(key, format!("cannot read {path}: {error}")));
                        break;
                    }
                },
            };
            found.insert(setting.name, Found { value, source });
            break;
        }
    }
    found
}

/// A file's text, if it is no longer than any that is meant.
pub(super) fn fitting<'a>(
    name: &str,
    text: Option<&'a str>,
    problems: &mut Vec<Problem>,
) -> Option<&'a str> {
    match checked(text?) {
        Ok(text) => Some(text),
        Err(error) => {
            problems.push(Problem::new(name, error));
            None
        }
    }
}

fn checked<T: AsRef<str>>(text: T) -> Result<T, String> {
    if text.as_ref().len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn present<'a>(vars: &'a Vars, name: &str) -> Option<&'a str> {
    vars.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

/// Reads the TOML file into the names of the environment. A key that is no setting is refused.
pub(super) fn parse_file(text: &str, problems: &mut Vec<Problem>) -> Vars {
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            // Only the place: the error's text quotes the line, which may hold a secret.
            let offset = error.span().map_or(0, |span| span.start);
            let line = text[..offset.min(text.len())].lines().count().max(1);
            let text = format!("line {line} is not TOML: {}", error.message());
            problems.push(Problem::new("--config", text));
            return Vars::new();
        }
    };
    let mut vars = Vars::new();
    for (key, value) in table {
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
        match (key.as_str(), value) {
            ("listen", toml::Value::Table(listen)) => {
                for (key, value) in listen {
                    match key.as_str() {
                        "address" => insert(&mut vars, "listen.address", "HOST", &value, problems),
                        "port" => insert(&mut vars, "listen.port", "PORT", &value, problems),
                        _ => unknown(&format!("listen.{key}"), problems),
                    }
                }
            }
            ("metrics", toml::Value::Table(metrics)) => file_metrics(&metrics, &mut vars, problems),
            ("host" | "port" | "metrics_addr", _) => {
                let text = "in the file this is [listen] address, port or [metrics] address, port";
                problems.push(Problem::new(key, text));
            }
            (_, value) => {
                let name = key.to_ascii_uppercase();
                let base = name.strip_suffix("_FILE").unwrap_or(&name);
                let known =
                    find(&name).is_some() || find(base).is_some_and(|setting| setting.from_file);
                if known && key == name.to_ascii_lowercase() {
                    insert(&mut vars, &key, &name, &value, problems);
                } else {
                    unknown(&key, problems);
                }
            }
        }
    }
    vars
}

fn file_metrics(table: &toml::Table, vars: &mut Vars, problems: &mut Vec<Problem>) {
    let (mut address, mut port) = ("127.0.0.1".to_owned(), "9464".to_owned());
    for (key, value) in table {
        match (key.as_str(), scalar(value)) {
            ("address", Some(value)) => address = value,
            ("port", Some(value)) => port = value,
            _ => unknown(&format!("metrics.{key}"), problems),
        }
    }
    let value = match address.as_str() {
        "none" => address,
        v6 if v6.contains(':') && !v6.starts_with('[') => format!("[{v6}]:{port}"),
        _ => format!("{address}:{port}"),
    };
    vars.insert("METRICS_ADDR".to_owned(), value);
}

fn insert(
    vars: &mut Vars,
    key: &str,
    name: &str,
    value: &toml::Value,
    problems: &mut Vec<Problem>,
) {
    match scalar(value) {
        Some(value) => {
            vars.insert(name.to_owned(), value);
        }
        None => problems.push(Problem::new(
            key,
            "must be a text, a number or a list of texts",
        )),
    }
}

fn unknown(key: &str, problems: &mut Vec<Problem>) {
    problems.push(Problem::new(key, "no such setting in the file"));
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(values) => values
            .iter()
            .map(toml::Value::as_str)
            .collect::<Option<Vec<_>>>()
            .map(|texts| texts.join(",")),
        _ => None,
    }
}
