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
    /// From the elements of a valid JSON array, brackets left away.
    pub(in crate::wire) fn new(list: Text, attachments: Vec<Bytes>) -> Self {
        Self { list, attachments }
    }

    /// The same text with other attachments, which its placeholders must name.
    #[must_use]
    pub fn with_attachments(mut self, attachments: Vec<Bytes>) -> Self {
        self.attachments = attachments;
        self
    }

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
        elements(&self.list).map(raw).collect()
    }

    /// The first argument.
    #[must_use]
    pub fn first(&self) -> Option<&RawValue> {
        elements(&self.list).next().map(raw)
    }

    /// The first argument as a `T`; `null` if there is none.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.parse_at(0)
    }

    /// The argument at `index` as a `T`; `null` if there are fewer.
    pub fn parse_at<T: DeserializeOwned>(&self, index: usize) -> Result<T, serde_json::Error> {
        serde_json::from_str(elements(&self.list).nth(index).unwrap_or("null"))
    }

    /// All but the first `count` arguments, with all attachments.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        let mut rest = elements(&self.list);
        for _ in 0..count {
            rest.next();
        }
        let list = match rest.next_start() {
            Some(start) => self.list.slice(start..self.list.len()),
            None => Text::default(),
        };
        Self::new(list, self.attachments.clone())
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
        self.list.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }
}

fn raw(element: &str) -> &RawValue {
    serde_json::from_str(element).expect("arguments were checked to be JSON when they were taken")
}

/// The elements of a valid JSON array whose brackets are left away.
pub(super) fn elements(list: &str) -> Elements<'_> {
    let is_empty = list.trim_start().is_empty();
    Elements {
        list,
        next: (!is_empty).then_some(0),
    }
}

/// Iterator of [`elements`].
pub(super) struct Elements<'a> {
    list: &'a str,
    next: Option<usize>,
}

impl Elements<'_> {
    /// Where the element starts that comes next.
    pub(super) fn next_start(&self) -> Option<usize> {
        self.next
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let start = self.next?;
        let mut scan = Scan::default();
        let comma = self.list.as_bytes()[start..]
            .iter()
            .position(|byte| scan.step(*byte) == 0 && *byte == b',' && !scan.in_string);
        let end = comma.map_or(self.list.len(), |length| start + length);
        self.next = comma.map(|_| end + 1);
        Some(&self.list[start..end])
    }
}

/// Follows strings and nesting through the bytes of a JSON text.
#[derive(Default)]
pub(super) struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Takes one byte; returns how deep the place behind it is nested.
    pub(super) fn step(&mut self, byte: u8) -> usize {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.depth
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
    pub fn push<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        if !self.list.is_empty() {
            self.list.push(',');
        }
        let json = serde_json::to_string(value).expect("an argument has a JSON form");
        self.list.push_str(&json);
        self
    }

    /// Adds one binary argument.
    #[must_use]
    pub fn push_binary(mut self, bytes: Bytes) -> Self {
        let number = self.attachments.len();
        self.attachments.push(bytes);
        self.push(&serde_json::json!({ "_placeholder": true, "num": number }))
    }

    /// The arguments.
    #[must_use]
    pub fn build(self) -> Args {
        Args::new(self.list.into(), self.attachments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &str) -> Args {
        Args::new(list.into(), Vec::new())
    }

    #[test]
    fn splits_into_elements_whatever_strings_hold() {
        let args = args(r#"1, "a,]\"}" ,{"x":[1,{}]},[],null"#);
        let items: Vec<_> = args.items().iter().map(|item| item.get()).collect();
        assert_eq!(items, ["1", r#""a,]\"}""#, r#"{"x":[1,{}]}"#, "[]", "null"]);
        assert_eq!(&**args.skip(2).list(), r#"{"x":[1,{}]},[],null"#);
        assert_eq!(args.skip(5), Args::none());
        assert_eq!(args.skip(9), Args::none());
    }

    #[test]
    fn has_no_elements_when_empty() {
        for list in ["", " \n"] {
            assert!(args(list).first().is_none());
            assert!(args(list).items().is_empty());
        }
        assert_eq!(args("").parse::<Option<u8>>().unwrap(), None);
    }

    #[test]
    fn parses_by_position() {
        let args = args(r#"{"a":1},"two",3"#);
        assert_eq!(args.parse_at::<String>(1).unwrap(), "two");
        assert_eq!(args.parse_at::<u8>(2).unwrap(), 3);
        assert!(args.parse_at::<u8>(1).is_err());
    }

    #[test]
    fn builder_numbers_attachments() {
        let args = Args::builder()
            .push("x")
            .push_binary(Bytes::from_static(b"\x01"))
            .push(&[1, 2])
            .push_binary(Bytes::from_static(b"\x02\x03"))
            .build();
        assert_eq!(
            &**args.list(),
            r#""x",{"_placeholder":true,"num":0},[1,2],{"_placeholder":true,"num":1}"#
        );
        assert_eq!(args.attachments().len(), 2);
        assert_eq!(args.bytes(), args.list().len() + 3);
    }
}
