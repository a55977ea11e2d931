//! The table of settings: names, defaults, help. `--help`, `config doc` and the file's keys follow it.

use std::fmt::Write as _;

/// One setting.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a row of a table, whose columns have nothing to do with each other"
)]
pub struct Setting {
    /// The environment variable; in lower case the key in the file.
    pub name: &'static str,
    /// What holds when nobody sets it, as shown to people.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Never printed.
    pub secret: bool,
    /// Whether it may be given as a flag, which every user of the machine can see.
    pub flag: bool,
    /// `NAME_FILE` may name a file that holds the value.
    pub from_file: bool,
    /// Whether SIGHUP gives it to the running server.
    pub live: bool,
}

const fn plain(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        default,
        help,
        secret: false,
        flag: true,
        from_file: false,
        live: false,
    }
}

const fn secret(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        default,
        help,
        secret: true,
        flag: false,
        from_file: true,
        live: false,
    }
}

/// SIGHUP gives it to the running server.
const fn live(setting: Setting) -> Setting {
    Setting {
        live: true,
        ..setting
    }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    plain(
        "HOST",
        "0.0.0.0; 127.0.0.1 in demo mode",
        "Address to listen on.",
    ),
    plain(
        "PORT",
        "4000",
        "Port to listen on; 0 takes a free one and prints it.",
    ),
    Setting {
        flag: true,
        ..secret(
            "DATABASE_URL",
            "sqlite:data/chat.db",
            "Where messages are kept: postgres://USER:PASSWORD@HOST/DATABASE (with TLS: ?sslmode=verify-full&sslrootcert=PATH), sqlite:PATH, or memory: (nothing durable).",
        )
    },
    secret(
        "DATABASE_REPLICA_URLS",
        "",
        "PostgreSQL replicas that pages of history are read from, comma-separated, at most 8.",
    ),
    secret(
        "REDIS_URL",
        "",
        "Redis between servers: redis://USER:PASSWORD@HOST/DATABASE, rediss:// with TLS (?sslrootcert=PATH), or redis+unix:///PATH.",
    ),
    plain(
        "ROOM_PREFIX",
        "",
        "Put before a chat room's name to make its Socket.IO room.",
    ),
    live(secret(
        "JWT_SECRET",
        "required unless demo or JWT_JWKS_FILE",
        "HS256 secrets, comma-separated, each of at least 32 bytes; the first signs, all verify.",
    )),
    live(plain(
        "JWT_JWKS_FILE",
        "",
        "File of public keys (a JSON Web Key Set) for RS256, ES256 and EdDSA, chosen by kid; reread when it changes.",
    )),
    live(plain(
        "JWT_ISSUER",
        "",
        "The `iss` that a token must carry.",
    )),
    live(plain(
        "JWT_AUDIENCE",
        "",
        "The `aud` that a token must carry.",
    )),
    live(plain(
        "JWT_LEEWAY_SECONDS",
        "5",
        "Tolerance for the clocks of token makers, 0 to 5 s.",
    )),
    live(plain(
        "CORS_ORIGINS",
        "",
        "Origins whose pages may connect, comma-separated.",
    )),
    plain(
        "SHARDS",
        "one a CPU",
        "Threads that serve, 1 to 64; one for each CPU this process may use.",
    ),
    plain("PING_INTERVAL_MS", "25000", "Between two heartbeats."),
    plain(
        "PING_TIMEOUT_MS",
        "20000",
        "How long a heartbeat's answer may take.",
    ),
    plain(
        "CONNECT_TIMEOUT_MS",
        "45000",
        "How long a session may stay without a namespace.",
    ),
    plain(
        "MAX_PAYLOAD_BYTES",
        "1000000",
        "Largest polling body or WebSocket message.",
    ),
    plain(
        "OUTBOX_BYTES_MAX",
        "1048576",
        "Unsent output of one connection; over it, it is closed.",
    ),
    live(plain(
        "RATE_MESSAGES_PER_SECOND",
        "20",
        "Messages that a user may send on average, over all connections to this process, and twice as many joins (4000 at once); 0: no limit.",
    )),
    live(plain(
        "RATE_BURST",
        "40",
        "Messages that a user may send at once; after ten times as many refusals within 10 s the user is cut off.",
    )),
    live(plain(
        "RATE_HTTP_PER_SECOND",
        "50",
        "Requests of one address on average, 100 at once: REST, handshakes, and what is refused; a session's own do not count. 0: no limit.",
    )),
    live(plain(
        "RATE_CONNECTIONS_PER_SECOND",
        "200",
        "New connections of one address on average, 1000 at once; 0: no limit.",
    )),
    live(plain(
        "MAX_CONNECTIONS_PER_IP",
        "1000",
        "Open connections of one address (of a /64, in IPv6); 0: no limit.",
    )),
    plain(
        "TRUST_PROXY",
        "unset: no proxy is believed",
        "Proxies whose X-Forwarded-For and -Proto are believed: addresses and ranges, comma-separated, or none. Unset, loopback and private peers are not limited by address, since they may be proxies.",
    ),
    plain(
        "REQUIRE_HTTPS",
        "false",
        "Refuse requests that did not come through TLS to a proxy of TRUST_PROXY, but for /health.",
    ),
    plain(
        "PROXY_PROTOCOL_ADDR",
        "",
        "A second address and port to listen on, for proxies that begin each connection with a header of the PROXY protocol.",
    ),
    plain(
        "METRICS_ADDR",
        "127.0.0.1:9464",
        "Address and port of /metrics and a /health of its own; none turns it off.",
    ),
    live(plain(
        "LOG_LEVEL",
        "info",
        "error, warn, info, debug or trace; also by module: info,project_yum::net=debug.",
    )),
    plain(
        "LOG_FORMAT",
        "json; pretty on a terminal",
        "json or pretty.",
    ),
    secret(
        "SENTRY_DSN",
        "",
        "Where panics and internal errors are reported, as Sentry gives it: https://KEY@HOST/PROJECT.",
    ),
    plain(
        "SENTRY_ENVIRONMENT",
        "production",
        "What reports to Sentry call this installation.",
    ),
    plain(
        "DRAIN_SECONDS",
        "10",
        "How long after SIGTERM the server has ended at the latest; clients leave one after the other meanwhile.",
    ),
];

/// Values that turn a feature off.
pub const OFF: &[&str] = &["", "0", "none", "false", "off"];

/// The row of a setting.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The settings reference, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from("| variable | default | |\n|---|---|---|\n");
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "none".to_owned(),
            words if words.contains(' ') => words.to_owned(),
            value => format!("`{value}`"),
        };
        let file = if setting.from_file {
            format!(" `{}_FILE` may name a file that holds it.", setting.name)
        } else {
            String::new()
        };
        let file = if setting.live {
            file + " SIGHUP rereads it."
        } else {
            file
        };
        let _ = writeln!(
            out,
            "| `{}` | {default} | {}{file} |",
            setting.name, setting.help
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_setting() {
        let reference = reference();
        for setting in SETTINGS {
            assert!(reference.contains(&format!("| `{}` |", setting.name)));
        }
        assert!(reference.contains("`JWT_SECRET_FILE`"));
    }
}
