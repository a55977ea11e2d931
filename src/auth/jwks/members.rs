//! What of a key set's JSON is looked at. All else is passed over unread, and no tree is made of it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The set.
#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Entries<'a>,
}

/// The entries of a list: at most one more than there may be.
struct Entries<'a>(Vec<&'a RawValue>);

/// An entry's members, as far as any key has them.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Members<'a> {
    #[serde(borrow)]
    pub(super) kid: Member<'a>,
    #[serde(borrow)]
    pub(super) kty: Member<'a>,
    #[serde(borrow)]
    pub(super) crv: Member<'a>,
    #[serde(borrow, rename = "use")]
    pub(super) purpose: Member<'a>,
    #[serde(borrow)]
    pub(super) alg: Member<'a>,
    #[serde(borrow)]
    pub(super) n: Member<'a>,
    #[serde(borrow)]
    pub(super) e: Member<'a>,
    #[serde(borrow)]
    pub(super) x: Member<'a>,
    #[serde(borrow)]
    pub(super) y: Member<'a>,
    pub(super) key_ops: Operations,
}

/// A member that should be a text.
#[derive(Default, Clone, PartialEq)]
pub(super) enum Member<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Other,
}

/// What a key may be used for.
#[derive(Default, Clone, Copy, PartialEq)]
pub(super) enum Operations {
    #[default]
    Unsaid,
    Verify,
    Others,
}

/// The entries of a set, of which `None` is no object; `None` if the whole is no such set.
pub(super) fn entries(text: &str) -> Option<Vec<Option<Members<'_>>>> {
    let set: Set<'_> = object(text)?;
    let entries = set.keys.0.into_iter();
    Some(entries.map(|entry| object(entry.get())).collect())
}

/// An object; a list, which would do for the members in their order, is none.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    let is_object = json.trim_start().starts_with('{');
    serde_json::from_str(json).ok().filter(|_| is_object)
}

impl Member<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is this text, or is not there.
    pub(super) fn may_be(&self, wanted: &str) -> bool {
        *self == Self::Absent || self.text() == Some(wanted)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of keys")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() <= super::KEYS_MAX {
                        entries.push(entry);
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Member<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?.get();
        Ok(if value.starts_with('"') {
            Self::Text(
                serde_json::from_str::<Borrowed<'de>>(value)
                    .map_err(Error::custom)?
                    .0,
            )
        } else {
            Self::Other
        })
    }
}

/// A text that is borrowed where it can be.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?.get();
        if !value.starts_with('[') {
            return Ok(Self::Others);
        }
        let verifies = serde_json::from_str::<Verifies>(value).map_err(Error::custom)?;
        Ok(if verifies.0 {
            Self::Verify
        } else {
            Self::Others
        })
    }
}

/// Whether a list has the operation of a public key.
struct Verifies(bool);

impl<'de> Deserialize<'de> for Verifies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Verifies;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of operations")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Verifies, A::Error> {
                let mut verifies = false;
                while let Some(operation) = list.next_element::<Member<'de>>()? {
                    verifies |= operation.text() == Some("verify");
                }
                Ok(Verifies(verifies))
            }
        }
        deserializer.deserialize_seq(List)
    }
}
