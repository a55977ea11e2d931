//! Queries: `key=value` pairs, percent-encoded, in which repeated and absent keys are data.

use std::borrow::Cow;

/// A target's query, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a>(&'a str);

/// How often a key stands in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unique<'a> {
    /// Not at all.
    Absent,
    /// Once, with this value.
    One(Cow<'a, str>),
    /// More than once: no value is the right one.
    Repeated,
}

impl<'a> Query<'a> {
    /// A query without its question mark.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The text as it came.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The decoded pairs, in their order. A pair without `=` has an empty value.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        self.0
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(key), percent_decode(value))
            })
    }

    /// The value of a key that may stand there only once.
    #[must_use]
    pub fn unique(&self, key: &str) -> Unique<'a> {
        let mut values = self.pairs().filter(|(name, _)| name == key);
        match (values.next(), values.next()) {
            (None, _) => Unique::Absent,
            (Some((_, value)), None) => Unique::One(value),
            (Some(_), Some(_)) => Unique::Repeated,
        }
    }
}

/// Decodes `%41` and `+` as forms do (WHATWG URL, application/x-www-form-urlencoded). A stray `%`
/// stays as it is; bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, more @ ..]) => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => {
                    bytes.push(high << 4 | low);
                    rest = more;
                }
                None => bytes.push(first),
            },
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_decoded_and_keep_their_order() {
        let query = Query::new("EIO=4&transport=polling&t=a%26b&&empty&x=%zz%4&sid=a+b");
        let pairs: Vec<(String, String)> = query
            .pairs()
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        let expected = [
            ("EIO", "4"),
            ("transport", "polling"),
            ("t", "a&b"),
            ("empty", ""),
            ("x", "%zz%4"),
            ("sid", "a b"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_repeated_key_has_no_value() {
        let query = Query::new("sid=1&s%69d=2&EIO=4");
        assert_eq!(query.unique("sid"), Unique::Repeated);
        assert_eq!(query.unique("EIO"), Unique::One("4".into()));
        assert_eq!(query.unique("transport"), Unique::Absent);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(percent_decode("%ff%C3%A4%00"), "\u{fffd}ä\0");
        assert_eq!(percent_decode("%"), "%");
        assert_eq!(percent_decode("%%41"), "%A");
    }
}
