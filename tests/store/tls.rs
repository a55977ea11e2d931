//! Secret connections to a PostgreSQL that has a certificate, by `sslmode` and `sslrootcert`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_lite::future::block_on;
use project_yum::store::Store;
use project_yum::store::postgres::{PostgresStore, Target};

use crate::contract;
use crate::faults::survives;
use crate::postgres::{Host, refusal};
use crate::postgres_server::{Postgres, command};

/// A server whose certificate `ca.crt` has signed, for `localhost` and nothing else. `other.crt` has
/// signed nothing.
fn start() -> Postgres {
    Postgres::start_with(|data| {
        for authority in ["ca", "other"] {
            self_signed(
                data,
                authority,
                "ec",
                &format!("/CN={authority} of the test"),
            );
        }
        let mut names = std::fs::File::create(data.join("names")).unwrap();
        writeln!(names, "subjectAltName=DNS:localhost").unwrap();
        openssl(
            data,
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -subj /CN=localhost \
             -keyout server.key -out server.csr",
        );
        openssl(
            data,
            "x509 -req -sha384 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile names -out server.crt",
        );
        use_certificate(data);
    })
}

/// The server of the tests here that run at this moment and do not harm it.
fn shared() -> Arc<Postgres> {
    static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap();
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let started = Arc::new(start());
    *shared = Arc::downgrade(&started);
    started
}

/// Makes `NAME.crt` and `NAME.key`.
fn self_signed(data: &Path, name: &str, algorithm: &str, subject: &str) {
    let curve = match algorithm {
        "ec" => "-pkeyopt ec_paramgen_curve:P-256",
        _ => "",
    };
    let arguments = format!(
        "req -x509 -newkey {algorithm} {curve} -nodes -days 2 -keyout {name}.key -out {name}.crt"
    );
    let arguments = arguments.split_whitespace().chain(["-subj", subject]);
    run(data, arguments);
}

fn openssl(data: &Path, arguments: &str) {
    run(data, arguments.split_whitespace());
}

fn run<'a>(data: &Path, arguments: impl Iterator<Item = &'a str>) {
    let made = command("openssl", data).args(arguments).output();
    let made = made.expect("the package openssl is installed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn use_certificate(data: &Path) {
    let mut settings = std::fs::File::options();
    let settings = settings.append(true).open(data.join("postgresql.conf"));
    let mut settings = settings.unwrap();
    writeln!(settings, "ssl = on").unwrap();
}

fn file(server: &Postgres, name: &str) -> PathBuf {
    server.directory().join("data").join(name)
}

/// The URL of a new database, with another host, level and file of trusted certificates.
fn url(server: &Postgres, host: &str, mode: &str, roots: &str) -> String {
    let url = server.database().replace("127.0.0.1", host);
    let roots = match roots {
        "" => String::new(),
        name => format!("&sslrootcert={}", file(server, name).display()),
    };
    format!("{url}?sslmode={mode}{roots}")
}

/// How many connections of a database are secret, and how many plain.
fn counted(server: &Postgres, url: &str) -> (usize, usize) {
    let database = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    let count = |ssl| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE datname = '{database}' AND application_name = 'project-yum' AND ssl = {ssl}"
        );
        server.sql(&sql).trim().parse().unwrap()
    };
    (count("true"), count("false"))
}

/// Whether the connections are secret, after the store has been used over them.
fn is_secret(server: &Postgres, url: &str) -> bool {
    let host = Host::start(url, 1);
    block_on(host.store.append(contract::draft("r", "ann", "hello"))).unwrap();
    let (secret, plain) = counted(server, url);
    assert!((secret == 0) != (plain == 0), "{secret} and {plain}");
    secret > 0
}

#[test]
fn keeps_the_contract_with_a_server_that_proves_itself() {
    let server = shared();
    let url = url(&server, "localhost", "verify-full", "ca.crt");
    let host = Host::start(&url, 2);
    block_on(contract::holds(Rc::new(host.store.handle())));
    let (secret, plain) = counted(&server, &url);
    assert!(secret > 0 && plain == 0, "{secret} and {plain}");
}

#[test]
fn each_level_takes_what_it_should() {
    let server = shared();
    // The address is not in the certificate.
    for (host, mode, roots, secret) in [
        ("127.0.0.1", "disable", "", false),
        ("127.0.0.1", "prefer", "", true),
        // What need not be secret goes on plain.
        ("127.0.0.1", "prefer", "other.crt", false),
        ("127.0.0.1", "require", "", true),
        ("127.0.0.1", "require", "ca.crt", true),
        ("127.0.0.1", "verify-ca", "ca.crt", true),
        ("localhost", "verify-full", "ca.crt", true),
    ] {
        let url = url(&server, host, mode, roots);
        assert_eq!(is_secret(&server, &url), secret, "{mode} {roots}");
    }
    // A login that is bound to the certificate, so that nobody can stand between.
    let bound = url(&server, "127.0.0.1", "require", "") + "&channel_binding=require";
    assert!(is_secret(&server, &bound));
    // Over a Unix socket there is nothing to hide.
    let database = server.database();
    let name = database.rsplit('/').next().unwrap();
    let (directory, port) = (server.directory().display(), server.port());
    let local =
        format!("postgres:///{name}?host={directory}&port={port}&user=yum&sslmode=verify-full");
    assert!(!is_secret(&server, &local));
}

#[test]
fn says_in_one_line_why_a_server_is_not_trusted() {
    let server = shared();
    let refused = |host, mode, roots| refusal(&url(&server, host, mode, roots));
    let place = format!("127.0.0.1:{}", server.port());
    for mode in ["require", "verify-ca", "verify-full"] {
        let line = refused("127.0.0.1", mode, "other.crt");
        let words = "its certificate is not signed by one of the trusted ones";
        assert_eq!(line, format!("no TLS with PostgreSQL at {place}: {words}"));
    }
    let line = refused("127.0.0.1", "verify-full", "ca.crt");
    let words = "its certificate is for localhost, not for 127.0.0.1";
    assert_eq!(line, format!("no TLS with PostgreSQL at {place}: {words}"));

    let line = refused("localhost", "verify-full", "missing.crt");
    assert!(line.starts_with("cannot use sslrootcert /"), "{line}");
    assert!(line.contains("missing.crt: No such file"), "{line}");
    let line = refused("localhost", "verify-full", "server.key");
    assert!(
        line.contains("server.key: it holds no certificate"),
        "{line}"
    );
}

#[test]
fn says_that_a_server_without_tls_has_none() {
    let server = Postgres::shared();
    let line = refusal(&format!("{}?sslmode=require", server.database()));
    let place = format!("127.0.0.1:{}", server.port());
    let words = "server does not support TLS";
    assert_eq!(line, format!("no TLS with PostgreSQL at {place}: {words}"));
    assert!(!is_secret(&server, &server.database()), "prefer is enough");
}

#[test]
fn trusts_a_self_signed_certificate_that_the_file_holds() {
    let server = Postgres::start_with(|data| {
        self_signed(data, "server", "rsa:2048", "/CN=localhost");
        self_signed(data, "other", "rsa:2048", "/CN=localhost");
        use_certificate(data);
    });
    let own = url(&server, "localhost", "verify-ca", "server.crt") + "&channel_binding=require";
    assert!(is_secret(&server, &own));
    let line = refusal(&url(&server, "localhost", "verify-ca", "other.crt"));
    assert!(line.contains("certificate is"), "{line}");
    let line = refusal(&url(&server, "localhost", "verify-full", "server.crt"));
    assert!(line.contains("no subjectAltName"), "{line}");
}

#[test]
fn survives_that_a_secret_postgres_is_killed() {
    let server = start();
    let host = Host::start(&url(&server, "localhost", "verify-full", "ca.crt"), 2);
    survives(
        &host,
        Duration::from_secs(1),
        || server.kill(),
        || server.run(),
    );
}

#[test]
fn new_certificates_are_trusted_without_a_restart() {
    let server = shared();
    let roots = tempfile::NamedTempFile::new().unwrap();
    let trust = |name| std::fs::copy(file(&server, name), roots.path()).unwrap();
    let database = server.database();
    let url = format!(
        "{database}?sslmode=verify-ca&sslrootcert={}",
        roots.path().display()
    );
    let target = Target::parse(&url).unwrap();
    trust("other.crt");
    assert!(PostgresStore::migrate(&target).is_err());
    trust("ca.crt");
    PostgresStore::migrate(&target).unwrap();
}
