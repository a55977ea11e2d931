//! What of the settings a running server takes over, and what waits for the next start.

use std::collections::BTreeSet;

use super::settings::{self, SETTINGS};
use super::{Config, JwksFile};

/// What differs between the settings of before and those of now, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Taken over.
    pub taken: Vec<&'static str>,
    /// Needs a restart.
    pub waiting: Vec<&'static str>,
}

impl Config {
    /// Takes over what may change while the server runs.
    pub fn take_over(&mut self, new: Self) -> Changes {
        let mut changes = Changes::default();
        for name in self.differences(&new) {
            // The demo's key is its own, and its tokens are printed: only a start can end it.
            let is_key = name == "JWT_SECRET" || name == "JWT_JWKS_FILE";
            let is_live = settings::find(name).is_some_and(|setting| setting.live);
            if is_live && !(is_key && (self.demo || new.demo)) {
                match new.set.get(name) {
                    Some(value) => self.set.insert(name, value.clone()),
                    None => self.set.remove(name),
                };
                changes.taken.push(name);
            } else {
                changes.waiting.push(name);
            }
        }
        if !self.demo && !new.demo {
            self.jwt_secrets = new.jwt_secrets;
            self.jwt_jwks = new.jwt_jwks;
        }
        self.jwt_issuer = new.jwt_issuer;
        self.jwt_audience = new.jwt_audience;
        self.jwt_leeway = new.jwt_leeway;
        self.cors_origins = new.cors_origins;
        self.rate_messages_per_second = new.rate_messages_per_second;
        self.rate_burst = new.rate_burst;
        self.rate_http_per_second = new.rate_http_per_second;
        self.rate_connections_per_second = new.rate_connections_per_second;
        self.max_connections_per_ip = new.max_connections_per_ip;
        self.log_level = new.log_level;
        changes
    }

    /// The settings that differ, in the order of the table.
    fn differences(&self, new: &Self) -> Vec<&'static str> {
        let is_same_file = match (&self.jwt_jwks, &new.jwt_jwks) {
            (Some(old), Some(new)) => JwksFile::is_same(old, new),
            _ => true,
        };
        let names: BTreeSet<_> = self.set.keys().chain(new.set.keys()).copied().collect();
        let differs = |name: &str| {
            names.contains(name) && self.set.get(name) != new.set.get(name)
                || name == "JWT_JWKS_FILE" && !is_same_file
        };
        let all = SETTINGS.iter().map(|setting| setting.name);
        all.filter(|name| differs(name)).collect()
    }
}
