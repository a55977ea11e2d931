//! The PROXY protocol, versions 1 and 2: who a connection comes from, told by the proxy that passes it on.
//!
//! The end of the header is found here, within a bound, and only a complete one is parsed. What it
//! says beside the source (the destination, additional TLVs) is of no use to us.

use std::net::IpAddr;

use ppp::{v1, v2};

/// Bytes of a header of version 1, its CRLF included, as the specification has it.
pub const V1_BYTES_MAX: usize = 107;
/// Bytes of a header of version 2. The specification asks for 536 at least; TLVs need a few more.
pub const V2_BYTES_MAX: usize = 4096;
/// The signature, version, command, family and length of version 2.
const V2_FIXED_BYTES: usize = 16;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Where the connection comes from; `None`: from the proxy itself, or it does not know.
    pub source: Option<IpAddr>,
    /// How many bytes of the input it took.
    pub length: usize,
}

/// The connection does not begin with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no header of the PROXY protocol")]
pub struct NoHeader;

/// Reads the header at the begin of a connection; `None` asks for more bytes.
pub fn decode(input: &[u8]) -> Result<Option<Header>, NoHeader> {
    let Some(length) = length(input)? else {
        return Ok(None);
    };
    let header = &input[..length];
    let source = if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header).map_err(|_| NoHeader)?;
        match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Some(ip.source_address.into()),
            (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Some(ip.source_address.into()),
            _ => None,
        }
    } else {
        match version_1(header)? {
            v1::Addresses::Tcp4(ip) => Some(ip.source_address.into()),
            v1::Addresses::Tcp6(ip) => Some(ip.source_address.into()),
            v1::Addresses::Unknown => None,
        }
    };
    Ok(Some(Header { source, length }))
}

/// The addresses of a line of version 1.
fn version_1(line: &[u8]) -> Result<v1::Addresses, NoHeader> {
    // What stands behind this word is to be ignored, whatever it is: the library counts words.
    if let Some(rest) = line.strip_prefix(b"PROXY UNKNOWN")
        && (rest == b"\r\n" || (rest.starts_with(b" ") && rest.ends_with(b"\r\n")))
    {
        return Ok(v1::Addresses::Unknown);
    }
    // The library takes a sign for part of a port.
    if line.contains(&b'+') {
        return Err(NoHeader);
    }
    let header = v1::Header::try_from(line).map_err(|_| NoHeader)?;
    Ok(header.addresses)
}

/// How long the header is, once that can be told and all of it is there.
fn length(input: &[u8]) -> Result<Option<usize>, NoHeader> {
    if begins(input, v2::PROTOCOL_PREFIX) {
        let Some(&[high, low]) = input.get(V2_FIXED_BYTES - 2..V2_FIXED_BYTES) else {
            return Ok(None);
        };
        let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
        return match length {
            ..=V2_BYTES_MAX => Ok((input.len() >= length).then_some(length)),
            _ => Err(NoHeader),
        };
    }
    if !begins(input, v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(NoHeader);
    }
    let line = &input[..input.len().min(V1_BYTES_MAX)];
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => Ok(Some(end + 1)),
        None if line.len() == V1_BYTES_MAX => Err(NoHeader),
        None => Ok(None),
    }
}

/// Whether the input has this prefix, as far as it goes.
fn begins(input: &[u8], prefix: &[u8]) -> bool {
    let common = input.len().min(prefix.len());
    input[..common] == prefix[..common]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, payload].concat()
    }

    fn source(input: &[u8]) -> Result<Option<String>, NoHeader> {
        let header = decode(input)?.expect("complete");
        Ok(header.source.map(|ip| ip.to_string()))
    }

    fn check(input: &[u8], expected: Result<Option<&str>, NoHeader>) {
        let expected = expected.map(|ip| ip.map(ToOwned::to_owned));
        assert_eq!(source(input), expected, "{}", input.escape_ascii());
    }

    #[test]
    fn version_1_names_the_source() {
        check(
            b"PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\nGET",
            Ok(Some("192.0.2.7")),
        );
        check(
            b"PROXY TCP6 2001:db8::7 ::1 5 80\r\n",
            Ok(Some("2001:db8::7")),
        );
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN any thing at all\r\n", Ok(None));
        check(b"PROXY UNKNOWN \xff +1 2 3 4 5 6 7 8\r\n", Ok(None));
        for wrong in [
            "PROXY TCP4 ::1 ::1 5 80\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 5 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5 80 9\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5 65536\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +5 80\r\n",
            "PROXY TCP6 2001:db8::7 ::1 5 +80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 05 80\r\n",
            "PROXY TCP4 192.0.2.007 10.0.0.1 5 80\r\n",
            "PROXY  TCP4 192.0.2.7 10.0.0.1 5 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5 80 \r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5\r 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 5 80\n",
            "PROXY TCP4 300.0.2.7 10.0.0.1 5 80\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 5 80\r\n",
            "PROXY\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY UNKNOWN\rx\r\n",
            "PROXY UNKNOWN x\n",
            "proxy TCP4 192.0.2.7 10.0.0.1 5 80\r\n",
            "GET / HTTP/1.1\r\n",
            "PROXYTCP4 192.0.2.7 10.0.0.1 5 80\r\n",
        ] {
            check(wrong.as_bytes(), Err(NoHeader));
        }
    }

    #[test]
    fn version_2_names_the_source_and_its_tlvs_do_not_matter() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0, 5, 0, 80];
        check(&v2(0x21, 0x11, &four), Ok(Some("192.0.2.7")));
        let with_tlvs = [&four[..], &[0x20; 500]].concat();
        check(&v2(0x21, 0x11, &with_tlvs), Ok(Some("192.0.2.7")));
        let mut six = [0; 36];
        six[15] = 7;
        check(&v2(0x21, 0x21, &six), Ok(Some("::7")));
        check(&v2(0x20, 0x11, &four), Ok(None));
        check(&v2(0x20, 0x00, &[]), Ok(None));
        check(&v2(0x21, 0x00, &[1, 2, 3]), Ok(None));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(None));
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x21, 0x41), (0x21, 0x13)] {
            check(&v2(command, family, &four), Err(NoHeader));
        }
        check(&v2(0x21, 0x11, &four[1..]), Err(NoHeader));
        check(&v2(0x21, 0x21, &four), Err(NoHeader));
    }

    #[test]
    fn headers_are_bounded() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES_MAX));
        assert_eq!(decode(long.as_bytes()), Err(NoHeader));
        let fits = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
        assert!(decode(fits.as_bytes()).expect("fits").is_some());
        // Refused when it is announced, not when it has come.
        let big = v2(0x20, 0x00, &vec![0; V2_BYTES_MAX - V2_FIXED_BYTES + 1]);
        assert_eq!(decode(&big[..V2_FIXED_BYTES]), Err(NoHeader));
        let fits = v2(0x20, 0x00, &vec![0; V2_BYTES_MAX - V2_FIXED_BYTES]);
        assert_eq!(decode(&fits[..V2_FIXED_BYTES]), Ok(None));
        assert!(decode(&fits).expect("fits").is_some());
    }

    proptest! {
        #[test]
        fn every_part_of_a_header_asks_for_more(cut in 0_usize..100, text in "[A-Z0-9]{0,9}") {
            let line = format!("PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n{text}");
            let binary = v2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0, 5, 0, 80]);
            for whole in [line.as_bytes(), &binary] {
                let header = decode(whole).expect("good").expect("complete");
                let part = &whole[..cut.min(header.length - 1)];
                prop_assert_eq!(decode(part), Ok(None), "{}", part.escape_ascii());
            }
        }

        #[test]
        fn whatever_comes_it_takes_no_more_than_there_is(input in any::<Vec<u8>>(), how in 0_u8..3) {
            let input = match how {
                0 => input,
                1 => [b"PROXY ", &input[..]].concat(),
                _ => [v2::PROTOCOL_PREFIX, &input[..]].concat(),
            };
            if let Ok(Some(header)) = decode(&input) {
                prop_assert!(header.length <= input.len());
            }
        }
    }
}
