//! The arguments of an event or of an acknowledgement.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::wire::Text;

/// The arguments of an event or of an acknowledgement: JSON text kept untouched, and the binary
/// attachments that its placeholders name. Cloning copies neither.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    /// The elements of a JSON array without its brackets: `1,"two",{"three":3}`.
    list: Text,
    attachments: Vec<Bytes>,
}

impl Args {
    /// No arguments.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One argument.
    ///
    /// # Panics
    /// When `value` has no JSON form (a map whose keys are no strings): a fault of the program.
    #[must_use]
    pub fn one<T: Serialize + ?Sized>(value: &T) -> Self {
        Self::builder().push(value).build()
    }

    /// Arguments put together one by one, binary ones among them.
    #[must_use]
    pub fn builder() -> ArgsBuilder {
        ArgsBuilder::default()
    }

    /// The arguments as JSON values, in order. A binary argument is its placeholder.
    #[must_use]
    pub fn items(&self) -> Vec<&RawValue> {
        todo!()
    }

    /// The first argument.
    #[must_use]
    pub fn first(&self) -> Option<&RawValue> {
        todo!()
    }

    /// The first argument as a `T`; `null` if there is none.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        todo!()
    }

    /// The argument at `index` as a `T`; `null` if there are fewer.
    pub fn parse_at<T: DeserializeOwned>(&self, index: usize) -> Result<T, serde_json::Error> {
        todo!()
    }

    /// All but the first `count` arguments, with all attachments.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        todo!()
    }

    /// The JSON text: the elements of an array without its brackets.
    #[must_use]
    pub fn list(&self) -> &Text {
        &self.list
    }

    /// The binary attachments, in the order of their numbers.
    #[must_use]
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Bytes of text and attachments together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        todo!()
    }
}

/// Puts [`Args`] together.
#[derive(Debug, Clone, Default)]
pub struct ArgsBuilder {
    list: String,
    attachments: Vec<Bytes>,
}

impl ArgsBuilder {
    /// Adds one argument.
    ///
    /// # Panics
    /// When `value` has no JSON form: a fault of the program.
    #[must_use]
    pub fn push<T: Serialize + ?Sized>(self, value: &T) -> Self {
        todo!()
    }

    /// Adds one binary argument.
    #[must_use]
    pub fn push_binary(self, bytes: Bytes) -> Self {
        todo!()
    }

    /// The arguments.
    #[must_use]
    pub fn build(self) -> Args {
        todo!()
    }
}
