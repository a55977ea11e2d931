//! What binds a SCRAM login to the server's certificate (`tls-server-end-point`, RFC 5929). Pure.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// Object identifiers of signature algorithms, without their last number.
const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA_WITH_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The hash of a certificate (DER) by the function of its own signature. `None`: there is no such
/// function that both sides know, and so no binding.
pub(super) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, after) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(after, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    match identifier.split_last()? {
        // MD5 and SHA-1 count as SHA-256.
        (4 | 5 | 11, PKCS1) | (2, ECDSA_WITH_SHA2) => Some(Sha256::digest(certificate).to_vec()),
        (12, PKCS1) | (3, ECDSA_WITH_SHA2) => Some(Sha384::digest(certificate).to_vec()),
        (13, PKCS1) | (4, ECDSA_WITH_SHA2) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The content of the first element of DER, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    }

    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let algorithm = wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, identifier));
        let body = wrap(SEQUENCE, &[7; 300]);
        wrap(SEQUENCE, &[body, algorithm, vec![3, 2, 0, 1]].concat())
    }

    #[test]
    fn takes_the_function_of_the_signature() {
        for (family, last, bytes) in [
            (PKCS1, 5, 32),
            (PKCS1, 11, 32),
            (PKCS1, 12, 48),
            (PKCS1, 13, 64),
            (ECDSA_WITH_SHA2, 2, 32),
            (ECDSA_WITH_SHA2, 3, 48),
            (ECDSA_WITH_SHA2, 4, 64),
        ] {
            let hash = hash(&certificate(&[family, &[last]].concat())).unwrap();
            assert_eq!(hash.len(), bytes);
        }
        // Ed25519 hashes nothing by itself.
        assert_eq!(hash(&certificate(&[0x2b, 0x65, 0x70])), None);
    }

    proptest! {
        #[test]
        fn survives_anything(bytes: Vec<u8>, cut in 0..400_usize) {
            let _ = hash(&bytes);
            let whole = certificate(&[PKCS1, &[11]].concat());
            let _ = hash(&whole[..cut.min(whole.len())]);
        }
    }
}
