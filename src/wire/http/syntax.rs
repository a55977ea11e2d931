//! The small rules that heads and trailers share.

use super::HttpError;

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(super) fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
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
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !host.is_empty() && host.bytes().all(allowed) && port_is_valid
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
