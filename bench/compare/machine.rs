//! What the figures were measured on, and with which versions.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What belongs to the results. What cannot be found out is `unknown`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Of this project; `-dirty` when files differ from it.
    commit: String,
    date: String,
    /// Of the services, the peers and the compiler, as far as they are here.
    versions: BTreeMap<&'static str, String>,
}

/// Packages of the peers, which say their versions.
const PACKAGES: [&str; 4] = [
    "socket.io",
    "@socket.io/bun-engine",
    "@trufflesuite/uws-js-unofficial",
    "bun",
];

impl Machine {
    /// Looks at this one; `postgres` is the program of PostgreSQL, which need not lie in the `PATH`.
    pub(crate) fn look(postgres: &mut Command) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut git = Command::new("git");
        git.args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ]);
        let date = OffsetDateTime::now_utc()
            .truncate_to_second()
            .format(&Rfc3339)
            .ok();
        Self {
            cpu: known(cpu_model(&read("/proc/cpuinfo"))),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_mib: memory_kib(&read("/proc/meminfo")).unwrap_or_default() / 1024,
            kernel: known(Some(read("/proc/sys/kernel/osrelease").trim().to_owned())),
            commit: known(said(git.current_dir(root))),
            date: known(date),
            versions: versions(root, postgres),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, {} MiB; Linux {}; commit {}; {}",
            self.cpu, self.cores, self.memory_mib, self.kernel, self.commit, self.date
        )?;
        let mut versions = self.versions.iter();
        versions.try_for_each(|(name, version)| write!(f, "; {name} {version}"))
    }
}

fn versions(root: &Path, postgres: &mut Command) -> BTreeMap<&'static str, String> {
    let peers = root.join("bench/peers");
    let mut found = BTreeMap::new();
    let mut note = |name, version: Option<String>| {
        found.extend(version.map(|version| (name, version)));
    };
    let version = |command: &mut Command| number_in(&said(command.arg("--version"))?);
    note("node", version(&mut Command::new("node")));
    note("postgres", version(postgres));
    note("redis", version(&mut Command::new("redis-server")));
    // Which one it is depends on the folder.
    note("rustc", version(Command::new("rustc").current_dir(root)));
    for name in PACKAGES {
        let file = peers.join("node_modules").join(name).join("package.json");
        let text = fs::read_to_string(file).unwrap_or_default();
        note(name, package_version(&text));
    }
    let lock = fs::read_to_string(peers.join("socketioxide/Cargo.lock")).unwrap_or_default();
    note("socketioxide", locked_version(&lock, "socketioxide"));
    found
}

fn known(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The first line that a command prints, if it is there and succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.to_owned();
    output.status.success().then_some(line)
}

/// The model in `/proc/cpuinfo`.
pub(crate) fn cpu_model(text: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, model) = fields.find(|(name, _)| name.trim() == "model name")?;
    Some(model.trim().to_owned())
}

/// All memory by `/proc/meminfo`.
pub(crate) fn memory_kib(text: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The version among the words of a line, such as `v20.1.0` and `v=7.0.15`.
pub(crate) fn number_in(line: &str) -> Option<String> {
    let words = line
        .split_whitespace()
        .map(|word| word.trim_start_matches(['v', '=']));
    let mut versions = words.filter(|word| {
        word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit())
    });
    versions.next().map(str::to_owned)
}

/// The version that a `package.json` says.
fn package_version(text: &str) -> Option<String> {
    let package: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(package["version"].as_str()?.to_owned())
}

/// The version of a crate in a `Cargo.lock`.
pub(crate) fn locked_version(lock: &str, name: &str) -> Option<String> {
    let head = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = lock.split_once(&head)?;
    Some(rest.split_once('"')?.0.to_owned())
}
