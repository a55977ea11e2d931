//! What the program can be asked to do, and with which exit code it ends.
//!
//! What is meant for people and scripts goes to standard output; what went wrong goes to standard
//! error, with what to do next.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::auth::{self, AuthOptions, Claims, Keys, Verifier};
use crate::config::args::{self, Bench, Command, Invocation};
use crate::config::{Config, Database, Inputs, Vars, files, settings};
use crate::load;
use crate::server::doctor::Report;
use crate::server::{self, ServerError, demo, probe};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;

/// All went well.
pub const OK: u8 = 0;
/// It did not.
pub const FAILURE: u8 = 1;
/// Wrong usage or settings.
pub const USAGE: u8 = 2;
/// This host cannot run the server.
pub const HOST: u8 = 3;

/// Runs the command that these arguments ask for; answers the exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let invocation = match args::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            let wrong = error.use_stderr();
            let _ = error.print();
            return if wrong { USAGE } else { OK };
        }
    };
    if invocation.command == Command::ConfigDoc {
        return say(&settings::reference());
    }
    let config = match load(&invocation) {
        Ok(config) => config,
        Err(text) => {
            if let Command::Doctor { json } = invocation.command {
                return doctor(Err(&text), json);
            }
            complain(&format!(
                "The settings are wrong:\n{text}\n`project-yum config doc` describes every setting."
            ));
            return USAGE;
        }
    };
    match invocation.command {
        Command::Serve => serve(config, invocation),
        Command::Token { sub, rooms, ttl } => token(&config, &sub, rooms, ttl),
        Command::TokenCheck(token) => check_token(&config, &token),
        Command::ConfigCheck | Command::ConfigDoc => say(&checked(&config)),
        Command::ConfigPrint => say(&printed(&config)),
        Command::Migrate { dry_run } => migrate(&config, dry_run),
        Command::Doctor { json } => doctor(Ok(&config), json),
        Command::Bench(bench) => drive(&config, &bench),
    }
}

/// Reads what [`Config::load`] is a function of.
fn load(invocation: &Invocation) -> Result<Config, String> {
    let file = match &invocation.config {
        Some(path) => {
            let text = files::read(path)
                .map_err(|error| format!("--config: cannot read {}: {error}", path.display()))?;
            Some(text)
        }
        None => None,
    };
    let path = Path::new(".env");
    // Whatever else is wrong with it is said.
    let is_there = !matches!(path.try_exists(), Ok(false));
    let dotenv = is_there.then(|| files::read(path)).transpose();
    let dotenv = dotenv.map_err(|error| format!(".env: cannot be read: {error}"))?;
    // A variable that is no UTF-8 is none of ours.
    let env: Vars = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Config::load(&Inputs {
        flags: &invocation.flags,
        env: &env,
        dotenv: dotenv.as_deref(),
        file: file.as_deref(),
        read: &files::read,
    })
    .map_err(|problems| problems.to_string())
}

/// Looks at everything; the exit code is that of a start that would fail.
fn doctor(config: Result<&Config, &str>, json: bool) -> u8 {
    let report = Report::make(config);
    if json {
        say(&report.json().to_string());
    } else {
        say(&report.to_string());
    }
    match (report.host_fails(), config.is_err(), report.fails()) {
        (true, ..) => HOST,
        (_, true, _) => USAGE,
        (.., true) => FAILURE,
        _ => OK,
    }
}

fn serve(config: Config, invocation: Invocation) -> u8 {
    if let Err(cause) = probe::probe() {
        complain(&format!(
            "This host cannot run the server: {cause}\n`project-yum doctor` looks at everything else, too."
        ));
        return HOST;
    }
    let served = auth_options(&config)
        .map_err(ServerError::Secret)
        .and_then(|auth| server::run(config, &auth, Box::new(move || load(&invocation))));
    match served {
        Ok(()) => OK,
        Err(error) => {
            complain(&format!("The server cannot go on: {error}"));
            FAILURE
        }
    }
}

/// The keys and expectations of these settings; in demo mode the demo's own secret.
pub(crate) fn auth_options(config: &Config) -> io::Result<AuthOptions> {
    let secrets = if config.demo {
        vec![demo::secret(&data_directory(config))?.into_bytes().into()]
    } else {
        config
            .jwt_secrets
            .iter()
            .map(|secret| secret.0.as_bytes().into())
            .collect()
    };
    Ok(AuthOptions {
        keys: Keys {
            secrets,
            public: config
                .jwt_jwks
                .as_ref()
                .map_or_else(Vec::new, |file| file.set.keys.clone()),
        },
        issuer: config.jwt_issuer.clone(),
        audience: config.jwt_audience.clone(),
        leeway_seconds: u32::try_from(config.jwt_leeway.as_secs()).unwrap_or(5),
    })
}

/// The folder of the embedded database.
fn data_directory(config: &Config) -> PathBuf {
    match &config.database {
        Database::Sqlite(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        Database::Postgres(_) | Database::Memory => "data".into(),
    }
}

/// A token that holds from now for `ttl`.
pub(crate) fn make_token(
    options: &AuthOptions,
    user: &str,
    rooms: Option<Vec<Box<str>>>,
    ttl: Duration,
) -> Result<String, auth::AuthError> {
    let now = now_wall_ms() / 1000;
    let claims = Claims {
        user: user.into(),
        rooms,
        issued_seconds: now,
        expires_seconds: now + ttl.as_secs(),
    };
    auth::sign(options, &claims)
}

fn now_wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn token(config: &Config, sub: &str, rooms: Option<Vec<String>>, ttl: Duration) -> u8 {
    let rooms = rooms.map(|rooms| rooms.into_iter().map(String::into_boxed_str).collect());
    let token = auth_options(config)
        .map_err(|error| format!("The demo's secret cannot be kept: {error}"))
        .and_then(|options| {
            make_token(&options, sub, rooms, ttl)
                .map_err(|error| format!("The token cannot be made: {error}"))
        });
    match token {
        Ok(token) => say(&token),
        Err(text) => {
            complain(&text);
            FAILURE
        }
    }
}

fn check_token(config: &Config, token: &str) -> u8 {
    let options = match auth_options(config) {
        Ok(options) => options,
        Err(error) => {
            complain(&format!("The demo's secret cannot be read: {error}"));
            return FAILURE;
        }
    };
    match Verifier::new(&options).verify(token.trim(), now_wall_ms()) {
        Ok(user) => {
            let left = user.expires_wall_ms.saturating_sub(now_wall_ms()) / 1000;
            say(&format!("valid for {left} s, user {:?}", user.id))
        }
        Err(error) => {
            complain(&format!("refused: {error}"));
            FAILURE
        }
    }
}

fn checked(config: &Config) -> String {
    if config.demo {
        return "The settings are right. No key is set: this is demo mode, on loopback only."
            .to_owned();
    }
    let keys = config.jwt_jwks.iter().flat_map(|file| &file.set.warnings);
    let warnings = keys.map(|warning| format!("\nJWT_JWKS_FILE: {warning}"));
    format!("The settings are right.{}", warnings.collect::<String>())
}

fn printed(config: &Config) -> String {
    let lines = config
        .shown
        .iter()
        .map(|shown| format!("{}={} # {}", shown.name, shown.value, shown.source));
    lines.collect::<Vec<_>>().join("\n")
}

fn migrate(config: &Config, dry_run: bool) -> u8 {
    let (database, steps) = match &config.database {
        Database::Sqlite(path) => {
            let steps = if dry_run {
                SqliteStore::pending_migrations(path)
            } else {
                SqliteStore::migrate(path)
            };
            (
                path.display().to_string(),
                steps.map_err(|error| error.to_string()),
            )
        }
        Database::Postgres(target) => {
            let steps = if dry_run {
                PostgresStore::pending_migrations(target)
            } else {
                PostgresStore::migrate(target)
            };
            (target.to_string(), steps.map_err(|error| error.to_string()))
        }
        Database::Memory => return say("A history in memory has no tables."),
    };
    match steps {
        Ok(steps) if steps.is_empty() => say("The database is up to date."),
        Ok(steps) => {
            let verb = if dry_run { "would be taken" } else { "taken" };
            say(&format!("Steps {verb}: {}.", steps.join(", ")))
        }
        Err(error) => {
            complain(&format!(
                "The database {database} cannot be brought up to date: {error}"
            ));
            FAILURE
        }
    }
}

/// Drives a running server.
fn drive(config: &Config, bench: &Bench) -> u8 {
    let driven = auth_options(config)
        .map_err(load::LoadError::from)
        .and_then(|auth| {
            let pid = bench.numbers.get("pid");
            let target = load::Target {
                address: load::address(&bench.url)?,
                auth,
                pid: pid.and_then(|pid| u32::try_from(*pid).ok()),
                now_seconds: now_wall_ms() / 1000,
            };
            load::named::run(&target, &bench.scenario, &bench.numbers)
        });
    match driven {
        Ok(report) => say(&report.to_string()),
        Err(error) => {
            complain(&format!("The load could not be driven: {error}"));
            FAILURE
        }
    }
}

/// Writes a line to standard output. Whoever closed it does not want to know.
fn say(text: &str) -> u8 {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    OK
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
