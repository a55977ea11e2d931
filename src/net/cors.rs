//! Which other origins may read the answers (the CORS protocol of the Fetch standard).

/// An allow-list of origins. Empty: no CORS field is ever sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<Box<str>>,
}

impl Cors {
    /// An allow-list; each origin as a browser writes it, `https://example.org`.
    #[must_use]
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        Self {
            origins: origins.into_iter().map(String::into_boxed_str).collect(),
        }
    }
}
