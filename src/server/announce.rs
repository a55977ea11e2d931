//! What the server says when it is ready: where it is, and in demo mode how to try it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use super::demo;
use crate::auth::AuthOptions;
use crate::commands::make_token;
use crate::config::{Config, Database};

/// Says on standard output that every shard serves, and logs it.
pub fn ready(
    config: &Config,
    auth: &AuthOptions,
    address: SocketAddr,
    proxied: Option<SocketAddr>,
    shards: usize,
) {
    let tokens = if config.demo {
        tokens(auth)
    } else {
        Vec::new()
    };
    let mut text = text(config, &tokens, address, shards);
    if let Some(proxied) = proxied {
        let _ = writeln!(
            text,
            "Proxies with the PROXY protocol connect to {proxied}."
        );
        tracing::info!(address = %proxied, "the PROXY protocol is served");
    }
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%address, shards, demo = config.demo, version, "ready");
}

/// A token for each user of the demo.
#[must_use]
pub fn tokens(auth: &AuthOptions) -> Vec<(&'static str, String)> {
    let ttl = Duration::from_secs(demo::TOKEN_SECONDS);
    demo::USERS
        .iter()
        .filter_map(|user| Some((*user, make_token(auth, user, None, ttl).ok()?)))
        .collect()
}

fn text(
    config: &Config,
    tokens: &[(&'static str, String)],
    address: SocketAddr,
    shards: usize,
) -> String {
    let kept = match &config.database {
        Database::Sqlite(path) => format!("messages are kept in {}", path.display()),
        Database::Postgres(target) => format!("messages are kept in PostgreSQL at {target}"),
        Database::Memory => "messages are kept in memory only".to_owned(),
    };
    let threads = if shards == 1 {
        "1 shard"
    } else {
        &format!("{shards} shards")
    };
    let mut text = format!(
        "project-yum {} serves on http://{address} with {threads}; {kept}.\n",
        env!("CARGO_PKG_VERSION")
    );
    if !config.demo {
        return text;
    }
    let _ = write!(
        text,
        "\nThis is demo mode, since no key is set: only this machine can connect.\n\
         Open the page and chat with yourself:\n\n    http://{address}/\n\n\
         Tokens for a client of your own, good for a day:\n"
    );
    for (user, token) in tokens {
        let _ = write!(text, "\n  {user}: {token}\n");
    }
    text.push_str(
        "\nTo serve others set JWT_SECRET (openssl rand -hex 32). Ctrl-C stops the server.\n",
    );
    text
}
