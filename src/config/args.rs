//! The command line: which command, and settings as flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use super::Vars;
use super::settings::SETTINGS;
use super::values::duration;

/// What the program is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve,
    /// Print a token.
    Token {
        /// Whose it is.
        sub: String,
        /// The rooms it allows; `None`: every room.
        rooms: Option<Vec<String>>,
        /// How long it holds.
        ttl: Duration,
    },
    /// Say whether a token is valid, and for whom.
    TokenCheck(String),
    /// Check the settings.
    ConfigCheck,
    /// Print the settings.
    ConfigPrint,
    /// Print the settings reference.
    ConfigDoc,
    /// Say what this machine, its settings and its services lack.
    Doctor {
        /// As one JSON object.
        json: bool,
    },
    /// Bring the database's tables up to date.
    Migrate {
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Drive a running server and print what came of it.
    Bench(Bench),
}

/// What `bench` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    /// Where the server listens: `http://HOST:PORT`.
    pub url: String,
    /// Which load.
    pub scenario: String,
    /// What differs from the scenario's own numbers, by name.
    pub numbers: BTreeMap<String, u64>,
}

/// The loads of `bench`.
pub const SCENARIOS: [&str; 9] = [
    "idle",
    "handshake",
    "fanout",
    "rooms",
    "stored",
    "health",
    "history",
    "churn",
    "polling",
];

/// The numbers of `bench`, with what they are.
const BENCH_NUMBERS: [(&str, &str); 6] = [
    (
        "connections",
        "Connections, or how often a short life is lived",
    ),
    ("rooms", "Rooms; when idle, those of each connection"),
    ("members", "Members of a room"),
    (
        "rate",
        "Messages a second over all rooms; without it as many as are delivered",
    ),
    ("seconds", "How long is measured"),
    (
        "pid",
        "The server's process on this machine, for its CPU and memory",
    ),
];

/// The command line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// The file of `--config`.
    pub config: Option<PathBuf>,
    /// Settings given as flags.
    pub flags: Vars,
}

/// Takes the command line apart. The error prints itself (`--help` and `--version` are such).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command_line().try_get_matches_from(args)?;
    let mut flags = Vars::new();
    let mut config = None;
    gather(&matches, &mut flags, &mut config);
    let command = match matches.subcommand() {
        None | Some(("serve", _)) => Command::Serve,
        Some(("doctor", doctor)) => Command::Doctor {
            json: doctor.get_flag("json"),
        },
        Some(("token", token)) => token_command(token),
        Some(("config", sub)) => match sub.subcommand_name() {
            Some("print") => Command::ConfigPrint,
            Some("doc") => Command::ConfigDoc,
            _ => Command::ConfigCheck,
        },
        Some(("bench", bench)) => bench_command(bench),
        Some((_, migrate)) => Command::Migrate {
            dry_run: migrate.get_flag("dry-run"),
        },
    };
    Ok(Invocation {
        command,
        config,
        flags,
    })
}

fn token_command(token: &ArgMatches) -> Command {
    if let Some(("check", check)) = token.subcommand() {
        let token = check.get_one::<String>("token").cloned();
        return Command::TokenCheck(token.unwrap_or_default());
    }
    Command::Token {
        sub: token.get_one::<String>("sub").cloned().unwrap_or_default(),
        rooms: token
            .get_many::<String>("rooms")
            .map(|rooms| rooms.cloned().collect()),
        ttl: token
            .get_one::<Duration>("ttl")
            .copied()
            .unwrap_or(Duration::from_hours(1)),
    }
}

fn bench_command(bench: &ArgMatches) -> Command {
    let text = |name| bench.get_one::<String>(name).cloned().unwrap_or_default();
    let numbers = BENCH_NUMBERS.iter().filter_map(|(name, _)| {
        let number = bench.get_one::<u64>(name)?;
        Some(((*name).to_owned(), *number))
    });
    Command::Bench(Bench {
        url: text("url"),
        scenario: text("scenario"),
        numbers: numbers.collect(),
    })
}

fn gather(matches: &ArgMatches, flags: &mut Vars, config: &mut Option<PathBuf>) {
    for setting in SETTINGS {
        for name in [setting.name.to_owned(), format!("{}_FILE", setting.name)] {
            if let Ok(Some(value)) = matches.try_get_one::<String>(&name) {
                flags.insert(name, value.clone());
            }
        }
    }
    if let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config-file") {
        *config = Some(path.clone());
    }
    if let Some((_, sub)) = matches.subcommand() {
        gather(sub, flags, config);
    }
}

/// The version, and the commit if the build was told it: a build in a sandbox cannot ask git.
fn version() -> &'static str {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("PROJECT_YUM_REVISION") {
        // clap wants a text that lives as long as the program.
        Some(revision) if !revision.is_empty() => format!("{version} ({revision})").leak(),
        _ => version,
    }
}

/// The whole command line, for `--help`.
#[must_use]
pub fn command_line() -> Clap {
    let mut clap = Clap::new("project-yum")
        .version(version())
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(after_help())
        .arg(
            Arg::new("config-file")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .global(true)
                .help("Settings in a TOML file, below flags, environment and .env"),
        )
        .subcommand(Clap::new("serve").about("Run the server (what happens without a command)"))
        .subcommand(token())
        .subcommand(bench())
        .subcommand(
            Clap::new("config")
                .about("Look at the settings")
                .subcommand_required(true)
                .subcommand(Clap::new("check").about("Say what is wrong with the settings"))
                .subcommand(
                    Clap::new("print").about("Print the settings and where each comes from"),
                )
                .subcommand(Clap::new("doc").about("Print the reference of settings as Markdown")),
        )
        .subcommand(
            Clap::new("doctor")
                .about(
                    "Say what this machine, its settings and its services lack, and how to mend it",
                )
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("As one JSON object"),
                ),
        )
        .subcommand(
            Clap::new("migrate")
                .about("Bring the database's tables up to date")
                .arg(
                    Arg::new("dry-run")
                        .long("dry-run")
                        .action(ArgAction::SetTrue)
                        .help("Only say what would be done"),
                ),
        );
    for setting in SETTINGS {
        if setting.flag {
            clap = clap.arg(flag(
                setting.name.to_owned(),
                setting.help.to_owned(),
                setting.default,
            ));
        }
        if setting.from_file {
            let help = format!("File that holds the value of {}", setting.name);
            clap = clap.arg(flag(format!("{}_FILE", setting.name), help, ""));
        }
    }
    clap
}

/// What `--help` says of exit codes, and of the settings that are no flags.
fn after_help() -> String {
    let mut text = String::from(
        "Every setting may also be an environment variable of its name in capitals, or a line of .env.\n\
         Only there, or in a file named by NAME_FILE, since every user of a machine sees flags:\n",
    );
    for setting in SETTINGS.iter().filter(|setting| !setting.flag) {
        let _ = writeln!(text, "  {}: {}", setting.name, setting.help);
    }
    text.push_str(
        "Exit codes: 0 clean, 1 failure, 2 wrong usage or settings, 3 this host cannot run it.",
    );
    text
}

fn flag(name: String, help: String, default: &str) -> Arg {
    let help = if default.is_empty() {
        help
    } else {
        format!("{help} [default: {default}]")
    };
    // clap wants names that live as long as the program; the table has a few dozen.
    let long: &'static str = name.to_ascii_lowercase().replace('_', "-").leak();
    let name: &'static str = name.leak();
    Arg::new(name)
        .long(long)
        .value_name("VALUE")
        .global(true)
        .help_heading("Settings")
        .help(help)
}

fn bench() -> Clap {
    let bench = Clap::new("bench")
        .about("Drive a running server, check every delivery, and print figures as JSON")
        .arg(
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("Where it listens: http://HOST:PORT. Its JWT_SECRET must be ours, too"),
        )
        .arg(
            Arg::new("scenario")
                .value_name("SCENARIO")
                .required(true)
                .value_parser(SCENARIOS)
                .help("Which load"),
        );
    let number = |(name, help): (&'static str, &'static str)| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(clap::value_parser!(u64))
            .help(help)
    };
    bench.args(BENCH_NUMBERS.map(number))
}

fn token() -> Clap {
    Clap::new("token")
        .about("Print a token signed with the first secret")
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .arg(
            Arg::new("sub")
                .long("sub")
                .value_name("USER")
                .required(true)
                .value_parser(clap::builder::NonEmptyStringValueParser::new())
                .help("Whose token it is"),
        )
        .arg(
            Arg::new("rooms")
                .long("rooms")
                .value_name("ROOM,…")
                .value_delimiter(',')
                .help("The only rooms it allows; a trailing * stands for every ending"),
        )
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("TIME")
                .value_parser(duration)
                .help("How long it holds: 90s, 15m, 1h, 7d [default: 1h]"),
        )
        .subcommand(
            Clap::new("check")
                .about("Say whether a token is valid, and for whom")
                .arg(
                    Arg::new("token")
                        .value_name("TOKEN")
                        .required(true)
                        .help("The token"),
                ),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Invocation, clap::error::ErrorKind> {
        let args = std::iter::once("project-yum").chain(args.iter().copied());
        parse(args.map(OsString::from)).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn serves_when_no_command_is_given() {
        let invocation = run(&["--port", "0", "--log-format", "json"]).expect("flags alone");
        assert_eq!(invocation.command, Command::Serve);
        assert_eq!(invocation.flags["PORT"], "0");
        assert_eq!(run(&["serve"]).map(|it| it.command), Ok(Command::Serve));
    }

    #[test]
    fn settings_may_stand_before_or_behind_the_command() {
        for args in [["--port", "1", "serve"], ["serve", "--port", "1"]] {
            assert_eq!(
                run(&args).map(|it| it.flags["PORT"].clone()),
                Ok("1".to_owned())
            );
        }
    }

    #[test]
    fn tokens_have_an_owner_rooms_and_an_end() {
        let token = run(&["token", "--sub", "ann", "--rooms", "a,b*", "--ttl", "15m"]);
        let expected = Command::Token {
            sub: "ann".to_owned(),
            rooms: Some(vec!["a".to_owned(), "b*".to_owned()]),
            ttl: Duration::from_mins(15),
        };
        assert_eq!(token.map(|it| it.command), Ok(expected));
        assert!(run(&["token"]).is_err());
        assert!(run(&["token", "--sub", "ann", "--ttl", "x"]).is_err());
        let check = run(&["token", "check", "a.b.c"]).map(|it| it.command);
        assert_eq!(check, Ok(Command::TokenCheck("a.b.c".to_owned())));
    }

    #[test]
    fn a_secret_is_no_flag() {
        assert!(run(&["--jwt-secret", "x"]).is_err());
        assert!(run(&["--database-url", "memory:"]).is_ok());
        assert!(run(&["--jwt-secret-file", "x"]).is_ok());
    }
}
