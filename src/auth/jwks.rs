//! Public keys as a JSON Web Key Set (RFC 7517) gives them.
//!
//! A key fixes its algorithm: RSA is RS256, P-256 is ES256, Ed25519 is EdDSA. Keys of other kinds are
//! passed over with a warning, as section 5 asks; a set that is malformed, names a key twice or holds
//! nothing of use is refused as a whole, so that nobody loses the keys of before by a slip.

mod members;

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

use self::members::{Member, Members, Operations};

/// Longest set that is read, in bytes.
pub const BYTES_MAX: usize = 256 * 1024;
/// Most keys of a set.
pub const KEYS_MAX: usize = 100;
/// Longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 256;
/// Bits of an RSA modulus: RFC 7518 section 3.3 asks for the least, the library takes no more than the most.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Bytes of a coordinate, on P-256 and of Ed25519.
const COORDINATE_BYTES: usize = 32;
/// How a point begins of which both coordinates follow (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// What a key is, and so what it verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Rsa,
    P256,
    Ed25519,
}

impl Kind {
    /// The kind for a token's `alg`.
    pub(super) fn of(algorithm: &str) -> Option<Self> {
        [Self::Rsa, Self::P256, Self::Ed25519]
            .into_iter()
            .find(|kind| kind.name() == algorithm)
    }

    /// The name of the algorithm.
    fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RS256",
            Self::P256 => "ES256",
            Self::Ed25519 => "EdDSA",
        }
    }
}

/// A key that verifies.
#[derive(Clone)]
pub struct PublicKey {
    pub(super) kid: Option<Box<str>>,
    pub(super) kind: Kind,
    key: Key,
}

/// What a kind of key consists of.
#[derive(Clone)]
enum Key {
    /// Modulus and exponent, without zeros before them.
    Rsa(Box<[u8]>, Box<[u8]>),
    /// An uncompressed point.
    P256(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl PublicKey {
    /// Whether the key's owner has signed this.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature)
        };
        let verified = match &self.key {
            Key::Rsa(n, e) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Key::P256(point) => plain(&ECDSA_P256_SHA256_FIXED, point),
            Key::Ed25519(key) => plain(&ED25519, key),
        };
        verified.is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.kind.name(), self.kid)
    }
}

/// A set, read.
#[derive(Debug, Clone)]
pub struct Jwks {
    /// The keys that verify: at least one.
    pub keys: Vec<PublicKey>,
    /// What of the set is not used, and why: one line each.
    pub warnings: Vec<String>,
}

/// Why a set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Over [`BYTES_MAX`].
    #[error("the key set has more than {BYTES_MAX} bytes")]
    TooLarge,
    /// No JSON object with an array `keys` of objects.
    #[error("the key set is no JSON object with a list of keys")]
    Malformed,
    /// Over [`KEYS_MAX`].
    #[error("the key set has more than {KEYS_MAX} keys")]
    TooMany,
    /// Two keys for one kind and `kid`: it is not known which one is meant.
    #[error("the key set names two keys of a kind {0}")]
    Twice(String),
    /// All of it was passed over.
    #[error("the key set holds no key for RS256, ES256 or EdDSA{0}")]
    Useless(String),
}

/// Reads a key set.
pub fn parse(text: &str) -> Result<Jwks, JwksError> {
    if text.len() > BYTES_MAX {
        return Err(JwksError::TooLarge);
    }
    let entries = members::entries(text).ok_or(JwksError::Malformed)?;
    if entries.len() > KEYS_MAX {
        return Err(JwksError::TooMany);
    }
    let (mut keys, mut warnings) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for (number, entry) in (1..).zip(entries) {
        let entry = entry.ok_or(JwksError::Malformed)?;
        match key(&entry) {
            Err(cause) => {
                let kid = named(entry.kid.text());
                warnings.push(format!("key {number}{kid} is not used: {cause}"));
            }
            Ok(key) => {
                if !names.insert((key.kind, key.kid.clone())) {
                    let name = key.kid.as_ref().map_or_else(
                        || format!("for {} without a kid", key.kind.name()),
                        |kid| format!("{} with kid {}", key.kind.name(), shown(kid)),
                    );
                    return Err(JwksError::Twice(name));
                }
                keys.push(key);
            }
        }
    }
    if keys.is_empty() {
        let causes = warnings.iter().map(|warning| format!("; {warning}"));
        return Err(JwksError::Useless(causes.collect()));
    }
    Ok(Jwks { keys, warnings })
}

fn named(kid: Option<&str>) -> String {
    kid.map_or_else(String::new, |kid| format!(" (kid {})", shown(kid)))
}

/// A text of the file, fit to stand in a line.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}")
}

/// A key of the set, or why it is of no use.
fn key(entry: &Members<'_>) -> Result<PublicKey, String> {
    let name = match &entry.kid {
        Member::Absent => None,
        Member::Text(kid) if (1..=KID_BYTES_MAX).contains(&kid.len()) => Some((&**kid).into()),
        _ => return Err(format!("its kid is no text of 1 to {KID_BYTES_MAX} bytes")),
    };
    let kty = entry.kty.text().ok_or("it has no kty")?;
    let kind = match (kty, entry.crv.text()) {
        ("RSA", _) => Kind::Rsa,
        ("EC", Some("P-256")) => Kind::P256,
        ("OKP", Some("Ed25519")) => Kind::Ed25519,
        ("EC" | "OKP", Some(curve)) => {
            return Err(format!("the curve {} is not supported", shown(curve)));
        }
        _ => return Err(format!("the kind {} is not supported", shown(kty))),
    };
    check_purpose(entry, kind)?;
    let wrong = || format!("its members are not those of a key for {}", kind.name());
    let member = |member: &Member<'_>| {
        let bytes = member
            .text()
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.ok_or_else(wrong)
    };
    let coordinate = |text: &Member<'_>| {
        let bytes = member(text)?;
        let fits = bytes.len() == COORDINATE_BYTES;
        fits.then_some(bytes).ok_or_else(wrong)
    };
    let key = match kind {
        Kind::Rsa => {
            let (n, e) = (member(&entry.n)?, member(&entry.e)?);
            let (n, e) = (significant(&n), significant(&e));
            check_rsa(n, e)?;
            Key::Rsa(n.into(), e.into())
        }
        Kind::P256 => {
            let (x, y) = (coordinate(&entry.x)?, coordinate(&entry.y)?);
            Key::P256([&[UNCOMPRESSED][..], &x, &y].concat().into())
        }
        Kind::Ed25519 => Key::Ed25519(coordinate(&entry.x)?.into()),
    };
    Ok(PublicKey {
        kid: name,
        kind,
        key,
    })
}

/// Whether the key is meant to verify signatures of its one algorithm (RFC 7517 sections 4.2 to 4.4).
fn check_purpose(entry: &Members<'_>, kind: Kind) -> Result<(), String> {
    if !entry.purpose.may_be("sig") {
        return Err("its use is not sig".to_owned());
    }
    if entry.key_ops == Operations::Others {
        return Err("its key_ops have no verify".to_owned());
    }
    if !entry.alg.may_be(kind.name()) {
        return Err(format!("its alg is not {}", kind.name()));
    }
    Ok(())
}

/// A number without the zeros before it.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), String> {
    let unused = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = n.len() * 8 - unused;
    if !RSA_BITS.contains(&bits) {
        return Err(format!(
            "its modulus has {bits} bits, not {} to {}",
            RSA_BITS.start(),
            RSA_BITS.end()
        ));
    }
    let exponent = match e {
        [] | [_, _, _, _, _, ..] => 0,
        bytes => bytes
            .iter()
            .fold(0_u32, |e, byte| e << 8 | u32::from(*byte)),
    };
    if exponent < 3 || exponent % 2 == 0 {
        return Err("its exponent is not odd, from 3 to 2^32".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
