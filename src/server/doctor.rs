//! `doctor`: what this machine, its settings and its services lack, and how to mend it.
//!
//! Each check gives one [`Finding`]. The causes and their mends are those that a failed start prints.
//! What the kernel says is read below a folder given by the caller, so that every machine can be
//! tested on this one.

mod host;
mod services;

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::Config;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The server runs, but worse than it could.
    Warning,
    /// The server does not run, or does not do its work.
    Failure,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub level: Level,
    /// What was seen.
    pub text: String,
    /// What to do about it; empty when nothing is to be done.
    pub mend: String,
}

impl Finding {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, text, "")
    }

    fn new(
        name: &'static str,
        level: Level,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            name,
            level,
            text: text.into(),
            mend: mend.into(),
        }
    }

    /// A cause and its mend, as they stand on the lines of an error.
    fn told(name: &'static str, level: Level, told: &str) -> Self {
        let (text, mend) = told.split_once('\n').unwrap_or((told, ""));
        Self::new(name, level, text, mend)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<8} {:<18} {}",
            self.level.as_str(),
            self.name,
            self.text
        )?;
        for line in self.mend.lines() {
            write!(f, "\n{:28}{line}", "")?;
        }
        Ok(())
    }
}

/// Everything that was found, the worst exit code with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One for each check, the host's first.
    pub findings: Vec<Finding>,
}

/// Checks of the host: when one fails, the server cannot start here at all.
const OF_THE_HOST: &[&str] = &["kernel", "io_uring", "memlock"];

impl Report {
    /// Looks at the host, and at the services that the settings name if there are settings.
    #[must_use]
    pub fn make(config: Result<&Config, &str>) -> Self {
        let host = host::Host::here();
        let shards = config.ok().and_then(|config| config.shards);
        let mut findings = host.check(shards);
        match config {
            Ok(config) => {
                findings.push(Finding::ok("settings", "they can be used"));
                findings.extend(services::check(config));
            }
            Err(problems) => findings.push(Finding::new(
                "settings",
                Level::Failure,
                problems.replace('\n', "; "),
                "`project-yum config doc` describes every setting.",
            )),
        }
        Self { findings }
    }

    /// The worst of all, of those that `which` takes.
    fn worst(&self, which: impl Fn(&Finding) -> bool) -> Level {
        let levels = self.findings.iter().filter(|finding| which(finding));
        levels
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Ok)
    }

    /// Whether this host cannot run the server.
    #[must_use]
    pub fn host_fails(&self) -> bool {
        self.worst(|finding| OF_THE_HOST.contains(&finding.name)) == Level::Failure
    }

    /// Whether anything is a failure.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.worst(|_| true) == Level::Failure
    }

    /// The findings as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "name": finding.name,
                "level": finding.level.as_str(),
                "text": finding.text,
                "mend": finding.mend,
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "level": self.worst(|_| true).as_str(),
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        f.write_str(match self.worst(|_| true) {
            Level::Ok => "All is well.",
            Level::Warning => "It runs; see the warnings.",
            Level::Failure => "Something is to be mended first.",
        })
    }
}

/// The text of a file below a folder that stands for `/`.
fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(below(root, path)).ok()
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_finding() {
        let good = Finding::ok("kernel", "6.1");
        let poor = Finding::new("clock", Level::Warning, "slow", "use another");
        let bad = Finding::told("database", Level::Failure, "cannot connect\nStart it.");
        let report = |findings: &[&Finding]| Report {
            findings: findings.iter().map(|finding| (*finding).clone()).collect(),
        };
        assert!(!report(&[&good, &poor]).fails());
        let all = report(&[&good, &poor, &bad]);
        assert!(all.fails() && !all.host_fails());
        assert_eq!(all.json()["level"], "failure");
        assert_eq!(all.json()["findings"][2]["mend"], "Start it.");
        let text = all.to_string();
        assert!(
            text.contains("failure  database           cannot connect\n"),
            "{text}"
        );
        assert!(
            text.contains("\n                            Start it.\n"),
            "{text}"
        );
    }
}
