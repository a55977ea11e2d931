//! The small rules that heads and trailers share.

use super::HttpError;

/// Which bytes are letters, digits or one of `others`.
const fn alphanumeric_or(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        #[expect(clippy::cast_possible_truncation, reason = "it is below 128")]
        let is_alphanumeric = (byte as u8).is_ascii_alphanumeric();
        set[byte] = is_alphanumeric;
        byte += 1;
    }
    let mut nth = 0;
    while nth < others.len() {
        set[others[nth] as usize] = true;
        nth += 1;
    }
    set
}

/// RFC 9110 section 5.6.2.
static TOKEN: [bool; 256] = alphanumeric_or(b"!#$%&'*+-.^_`|~");
/// The bytes of a registered name or an address of IPv4. RFC 3986 section 3.2.2.
static HOST: [bool; 256] = alphanumeric_or(b"-._~%!$&'()*+,;=");

pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

pub(super) fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

/// A field line without its CRLF: a name, directly a colon, a value without control characters.
/// Folded lines and whitespace around the name are refused (RFC 9112 sections 2.2, 5.1, 5.2).
pub(super) fn check_field_line(line: &[u8]) -> Result<(), HttpError> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or(HttpError::FieldLine)?);
    let name_is_token = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if name_is_token && !value.iter().any(control) {
        Ok(())
    } else if name.eq_ignore_ascii_case(b"Origin") {
        Err(HttpError::Origin)
    } else {
        Err(HttpError::FieldLine)
    }
}

/// `host[:port]` (RFC 3986 sections 3.2.2 and 3.2.3), neither of them empty.
pub(super) fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let (host, port) = if text.starts_with('[') {
        let Some(end) = text.find(']') else {
            return false;
        };
        if text[1..end].parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        ("literal", &text[end + 1..])
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let port_is_valid = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        });
    !host.is_empty() && host.bytes().all(|byte| HOST[usize::from(byte)]) && port_is_valid
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in [
            "a",
            "a.example:80",
            "[::1]:4000",
            "[::1]",
            "127.0.0.1:0",
            "a_b",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        let bad = [
            "", ":80", "a:", "a:b", "a:65536", "a b", "a/b", "u@a", "a,b c", "[::1", "[x]",
            "a:1:2", "[::1]x", "a:+1",
        ];
        for bad in bad {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host(b"\xff"));
    }
}
