//! Checks the placeholders of binary attachments in a JSON text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Whether every placeholder in a JSON text names one of `count` attachments.
///
/// Keys are compared as JSON means them, escapes and all, and the last of two equal keys counts, so
/// that no client sees a placeholder where this does not.
pub(super) fn are_valid(json: &str, count: usize) -> bool {
    let walk = |json: &str| {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        Walk { count }.deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
    };
    walk(json) || without_halves(json).is_some_and(|json| walk(&json))
}

/// The same JSON with U+FFFD for every half of a surrogate pair: the library takes none, but whoever
/// asked for an answer is to hear what is wrong. `None`: there is none. The text is known to be JSON.
fn without_halves(json: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut text, mut at, mut found) = (json.as_bytes().to_vec(), 0, false);
    while at < text.len() {
        at += match (text[at], unit(at)) {
            (b'\\', Some(0xD800..=0xDBFF)) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            (b'\\', Some(0xD800..=0xDFFF)) => {
                text[at + 2..at + 6].copy_from_slice(b"fffd");
                found = true;
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    found.then(|| String::from_utf8(text).expect("ASCII stands for ASCII"))
}

/// What a value may be for the object that holds it.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    True,
    /// An integer that is not negative.
    Number(u64),
    Other,
}

#[derive(Clone, Copy)]
struct Walk {
    count: usize,
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(if value { Value::True } else { Value::Other })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // `1.0` and `1e0` are the integer 1 to a JavaScript client.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked"
        )]
        Ok(if value.fract() == 0.0 && (0.0..=1e9).contains(&value) {
            Value::Number(value as u64)
        } else {
            Value::Other
        })
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut marked, mut number) = (false, None);
        while let Some(key) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            let value = entries.next_value_seed(self)?;
            match &*key {
                "_placeholder" => marked = value == Value::True,
                "num" => number = Some(value),
                _ => {}
            }
        }
        match number {
            _ if !marked => Ok(Value::Other),
            Some(Value::Number(number)) if number < self.count as u64 => Ok(Value::Other),
            _ => Err(A::Error::custom("a placeholder without its attachment")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_numbers_of_attachments() {
        let valid =
            |num: &str| are_valid(&format!(r#"["e",{{"_placeholder":true,"num":{num}}}]"#), 2);
        for num in ["0", "1", "1.0", "0e0"] {
            assert!(valid(num), "{num}");
        }
        for num in [
            "2",
            "-1",
            "0.5",
            "\"0\"",
            "null",
            "true",
            "[]",
            "{}",
            "1e300",
            "18446744073709551616",
        ] {
            assert!(!valid(num), "{num}");
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_hide_nothing() {
        let half = |num: u8| format!(r#"["\ud83d",{{"_placeholder":true,"num":{num}}}]"#);
        assert!(are_valid(&half(0), 1) && !are_valid(&half(1), 1));
        for (json, expected) in [
            (r#""\ud800""#, Some(r#""\ufffd""#)),
            (
                r#""\uDC00x\ud83d\ud83d\ude00""#,
                Some(r#""\ufffdx\ufffd\ud83d\ude00""#),
            ),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud800""#, None),
            (r#""\\\ud800 ä""#, Some(r#""\\\ufffd ä""#)),
            (r#""\n\u0041""#, None),
        ] {
            assert_eq!(without_halves(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn finds_them_however_they_are_written() {
        let bad = [
            r#"["e",{"_placeholder":true}]"#,
            r#"["e",{"a":[{"num":7,"_placeholder":true}]}]"#,
            r#"["e",{"_placeh\u006flder":true,"num":7}]"#,
            r#"["e",{"_placeholder":true,"num":0,"num":7}]"#,
            r#"["e",{"_placeholder":false,"_placeholder":true,"num":7}]"#,
        ];
        for json in bad {
            assert!(!are_valid(json, 1), "{json}");
        }
        let good = [
            r#"["e",{"_placeholder":false,"num":7}]"#,
            r#"["e",{"_placeholder":"true","num":7}]"#,
            r#"["e",{"_placeholder":true,"num":7,"num":0}]"#,
            r#"["_placeholder",true,"num",7]"#,
        ];
        for json in good {
            assert!(are_valid(json, 1), "{json}");
        }
    }
}
