//! What did not hold in a run.

use std::borrow::Cow;
use std::fmt;

/// A rule that was broken, and by what. Two failures are of one kind when they break the same rule, whatever
/// the numbers and names are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) rule: Cow<'static, str>,
    details: Vec<String>,
}

impl Failure {
    pub(crate) fn new(rule: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            details: vec![detail.into()],
        }
    }

    /// Says more of it.
    pub(crate) fn with(mut self, detail: String) -> Self {
        self.details.push(detail);
        self
    }
}

impl From<&'static str> for Failure {
    fn from(rule: &'static str) -> Self {
        Self {
            rule: rule.into(),
            details: Vec::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)?;
        self.details
            .iter()
            .try_for_each(|detail| write!(f, "; {detail}"))
    }
}
