//! Demo mode: a secret of its own, two users' tokens, and the page that they chat on.
//!
//! The page is one self-contained file; its room and tokens are put into it by the answer to
//! `GET /`, and its script and style are allowed by their hashes alone.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The two users of the page.
pub const USERS: [&str; 2] = ["alice", "bob"];
/// The room that the page enters.
pub const ROOM: &str = "lobby";
/// How long a token of the page holds.
pub const TOKEN_SECONDS: u64 = 24 * 3600;
/// Where the page's data goes.
const PLACE: &str = "__DEMO_JSON__";
/// The name of the secret's file in the data directory.
const SECRET_FILE: &str = "demo.secret";
const SECRET_BYTES_MIN: usize = 32;

/// Reads the demo's secret from the data directory, or makes one that only this user may read.
pub fn secret(directory: &Path) -> io::Result<String> {
    let path = directory.join(SECRET_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= SECRET_BYTES_MIN => return Ok(text.trim().to_owned()),
        Ok(_) => {
            let text = format!("{} is too short; remove it", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let secret = STANDARD.encode(bytes);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match file {
        Ok(mut file) => {
            file.write_all(secret.as_bytes())?;
            file.sync_all()?;
            Ok(secret)
        }
        // Another process was faster; its secret is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::read_to_string(&path).map(|text| text.trim().to_owned())
        }
        Err(error) => Err(error),
    }
}

/// The page, taken apart once.
pub struct Page {
    before: &'static str,
    after: &'static str,
    /// The value of its Content-Security-Policy.
    pub policy: String,
}

impl Page {
    /// Finds the place of the data, and the hashes of what the page may run.
    ///
    /// # Panics
    /// When the page has no place for its data: it is part of the program.
    #[must_use]
    pub fn new(html: &'static str) -> Self {
        let (before, after) = html
            .split_once(PLACE)
            .expect("the page has a place for its data");
        Self {
            before,
            after,
            policy: policy(html),
        }
    }

    /// The page with these users and tokens.
    #[must_use]
    pub fn render(&self, tokens: &[(&str, String)]) -> String {
        let users: Vec<_> = tokens
            .iter()
            .map(|(id, token)| serde_json::json!({"id": id, "token": token}))
            .collect();
        let data = serde_json::json!({"room": ROOM, "users": users}).to_string();
        // Inside a script element only `<` could end the data.
        let data = data.replace('<', "\\u003c");
        [self.before, &data, self.after].concat()
    }
}

/// Whether a Host field names this machine by loopback: no other name may fetch tokens, so that a
/// web page cannot reach them through a name of its own that resolves to 127.0.0.1.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn policy(html: &str) -> String {
    let scripts = hashes(html, "<script>", "</script>");
    let styles = hashes(html, "<style>", "</style>");
    format!(
        "default-src 'none'; script-src{scripts}; style-src{styles}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The hash of each element without attributes: what has a type is data and never run.
fn hashes(html: &str, open: &str, close: &str) -> String {
    let mut out = String::new();
    for part in html.split(open).skip(1) {
        let content = part.split(close).next().unwrap_or_default();
        let hash = STANDARD.encode(Sha256::digest(content.as_bytes()));
        let _ = write!(out, " 'sha256-{hash}'");
    }
    if out.is_empty() {
        " 'none'".to_owned()
    } else {
        out
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_secret_is_made_once_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let first = secret(&data).expect("made");
        assert_eq!(first.len(), 44);
        assert_eq!(secret(&data).expect("read"), first);
        let file = data.join(SECRET_FILE);
        let mode = file.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(file, "short").expect("written");
        assert!(secret(&data).is_err());
    }

    #[test]
    fn the_page_allows_its_own_script_and_style_only() {
        let page = Page::new(
            "<style>a</style><script type=\"application/json\">__DEMO_JSON__</script><script>b</script>",
        );
        // printf b | openssl dgst -sha256 -binary | base64
        assert!(
            page.policy
                .contains("script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='"),
            "{}",
            page.policy
        );
        assert!(page.policy.contains("connect-src 'self'"));
        let html = page.render(&[("</script>", "t".to_owned())]);
        assert!(
            html.contains("\"id\":\"\\u003c/script>\",\"token\":\"t\""),
            "{html}"
        );
    }

    #[test]
    fn tokens_are_given_to_loopback_names_only() {
        for host in [
            "localhost:4000",
            "LOCALHOST",
            "127.0.0.1:80",
            "[::1]:4000",
            "127.1.2.3",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "evil.example:4000",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
