//! Who a request comes from: the peer, or whom a trusted proxy names.
//!
//! A proxy adds the address it got a request from at the right of `X-Forwarded-For`; what stands left
//! of that came with the request and may be a lie. So the list is read from the right, one entry for
//! each proxy that is trusted, and the first address that is none of them is the client.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::addresses::Place;
use crate::wire::http::RequestHead;

/// Which peers are proxies that are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// Nobody has said so: no field is believed, and a loopback or private peer is taken for a proxy,
    /// so that its many clients are not limited as one.
    #[default]
    Unknown,
    /// There is no proxy: every peer is a client.
    Nobody,
    /// These.
    Only(Box<[IpNet]>),
}

/// Where a connection comes from.
#[derive(Debug)]
pub struct Origin {
    /// The other end.
    pub peer: SocketAddr,
    /// Whom the PROXY protocol names as its source.
    pub(super) source: Option<IpAddr>,
    /// Counts the connection for its client's address.
    pub(super) place: Option<Place>,
}

impl From<SocketAddr> for Origin {
    fn from(peer: SocketAddr) -> Self {
        Self {
            peer,
            source: None,
            place: None,
        }
    }
}

/// Who a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address.
    pub address: IpAddr,
    /// Whether it came through TLS, as a trusted proxy says.
    pub secure: bool,
    /// Whether limits by address apply.
    pub is_limited: bool,
}

impl Trust {
    fn includes(&self, address: IpAddr) -> bool {
        match self {
            Self::Unknown | Self::Nobody => false,
            Self::Only(proxies) => proxies.iter().any(|network| network.contains(&address)),
        }
    }

    /// The client of a connection whose requests are still to come; `None`: they will tell.
    pub(super) fn client_of(&self, origin: &Origin) -> Option<IpAddr> {
        let address = origin.address();
        let is_client = match self {
            Self::Unknown => origin.source.is_some() || !is_local(address),
            Self::Nobody => true,
            Self::Only(_) => !self.includes(address),
        };
        is_client.then_some(address)
    }

    /// Whether limits cannot apply to this peer because nobody has said whether it is a proxy.
    pub(super) fn is_unsure_of(&self, origin: &Origin) -> bool {
        *self == Self::Unknown && self.client_of(origin).is_none()
    }

    /// The client of a request.
    pub(super) fn client(&self, origin: &Origin, head: &RequestHead) -> Client {
        let peer = origin.peer.ip().to_canonical();
        let address = origin.address();
        let is_believed = self.includes(address) || self.includes(peer);
        Client {
            address: self.walk(address, head),
            secure: is_believed && is_secure(head),
            is_limited: !self.is_unsure_of(origin),
        }
    }

    /// Goes from proxy to proxy. Where an entry is missing or malformed, the last proxy is the client.
    fn walk(&self, nearest: IpAddr, head: &RequestHead) -> IpAddr {
        let lines: Vec<&[u8]> = head.raw_values("X-Forwarded-For").collect();
        let entries = lines.iter().rev();
        let mut entries = entries.flat_map(|line| line.rsplit(|byte| *byte == b','));
        let mut hop = nearest;
        while self.includes(hop)
            && let Some(next) = entries.next().and_then(address)
        {
            hop = next;
        }
        hop
    }
}

impl Origin {
    fn address(&self) -> IpAddr {
        self.source.unwrap_or(self.peer.ip()).to_canonical()
    }
}

/// Whether the nearest proxy was reached through TLS; of several entries the last is its own.
fn is_secure(head: &RequestHead) -> bool {
    let last = head.raw_values("X-Forwarded-Proto").last();
    let word = last.and_then(|value| value.rsplit(|byte| *byte == b',').next());
    let word = word.map(<[u8]>::trim_ascii);
    word.is_some_and(|word| {
        word.eq_ignore_ascii_case(b"https") || word.eq_ignore_ascii_case(b"wss")
    })
}

/// An entry: an address, perhaps with a port; IPv6 perhaps in brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => text
            .parse::<IpAddr>()
            .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// Whether an address is of no network but its own: loopback, private, link-local, or shared by a
/// carrier's customers (RFC 6598), where load balancers live too.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::http::HeadReader;

    fn head(fields: &str) -> RequestHead {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let mut buffer = BytesMut::from(text.as_bytes());
        let head = HeadReader::default().read(&mut buffer);
        head.expect("a good head").expect("a whole head")
    }

    fn origin(peer: &str) -> Origin {
        SocketAddr::new(peer.parse().expect("an address"), 1).into()
    }

    fn only(networks: &[&str]) -> Trust {
        let networks = networks.iter().map(|text| text.parse().expect("a network"));
        Trust::Only(networks.collect())
    }

    fn client(trust: &Trust, peer: &str, fields: &str) -> String {
        let client = trust.client(&origin(peer), &head(fields));
        client.address.to_string()
    }

    #[test]
    fn the_list_is_read_from_the_right_as_far_as_it_is_trusted() {
        let trust = only(&["10.0.0.0/8", "2001:db8::/32"]);
        for (peer, fields, expected) in [
            ("192.0.2.9", "X-Forwarded-For: 1.1.1.1\r\n", "192.0.2.9"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8, 1.1.1.1\r\n",
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8, 1.1.1.1 ,\t10.2.2.2\r\n",
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                "X-Forwarded-For: 10.3.3.3, 10.2.2.2\r\n",
                "10.3.3.3",
            ),
            (
                "::ffff:10.0.0.1",
                "X-Forwarded-For: ::ffff:1.1.1.1\r\n",
                "1.1.1.1",
            ),
            (
                "2001:db8::1",
                "X-Forwarded-For: 2001:db9::2\r\n",
                "2001:db9::2",
            ),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1:443\r\n", "1.1.1.1"),
            (
                "10.0.0.1",
                "X-Forwarded-For: [2001:db9::2]:443\r\n",
                "2001:db9::2",
            ),
            (
                "10.0.0.1",
                "X-Forwarded-For: [2001:db9::2]\r\n",
                "2001:db9::2",
            ),
            // Several field lines are one list.
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8\r\nA: b\r\nx-forwarded-for: 1.1.1.1, 10.2.2.2\r\n",
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: 10.2.2.2\r\n",
                "8.8.8.8",
            ),
            // What is malformed ends the walk.
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8, unknown\r\n",
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8, , 10.2.2.2\r\n",
                "10.2.2.2",
            ),
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For:\r\n",
                "10.0.0.1",
            ),
            ("10.0.0.1", "X-Forwarded-For: [1.1.1.1]\r\n", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1.1\r\n", "10.0.0.1"),
            ("10.0.0.1", "X-Forwarded-For: 01.1.1.1\r\n", "10.0.0.1"),
            (
                "10.0.0.1",
                "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: \u{e9}\r\n",
                "10.0.0.1",
            ),
        ] {
            assert_eq!(client(&trust, peer, fields), expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn without_a_trusted_proxy_no_field_is_believed() {
        let fields = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n";
        for trust in [Trust::Unknown, Trust::Nobody, only(&["10.0.0.2/32"])] {
            let client = trust.client(&origin("10.0.0.1"), &head(fields));
            assert_eq!(client.address.to_string(), "10.0.0.1");
            assert!(!client.secure);
        }
    }

    #[test]
    fn a_private_peer_is_limited_once_somebody_has_said_what_it_is() {
        let is_limited = |trust: &Trust, peer: &str| {
            let client = trust.client(&origin(peer), &head(""));
            assert_eq!(trust.is_unsure_of(&origin(peer)), !client.is_limited);
            client.is_limited
        };
        for peer in [
            "127.0.0.1",
            "10.1.1.1",
            "172.16.0.1",
            "192.168.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "169.254.1.1",
            "100.64.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_limited(&Trust::Unknown, peer), "{peer}");
            assert!(is_limited(&Trust::Nobody, peer), "{peer}");
            assert!(is_limited(&only(&["10.0.0.0/8"]), peer), "{peer}");
        }
        for peer in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(is_limited(&Trust::Unknown, peer), "{peer}");
        }
    }

    #[test]
    fn a_connection_of_a_proxy_has_no_client_before_its_requests() {
        let trust = only(&["10.0.0.0/8"]);
        assert_eq!(trust.client_of(&origin("10.0.0.1")), None);
        assert!(trust.client_of(&origin("10.0.0.1")).is_none());
        let outside = trust.client_of(&origin("1.1.1.1"));
        assert_eq!(outside, "1.1.1.1".parse().ok());
        assert_eq!(Trust::Unknown.client_of(&origin("127.0.0.1")), None);
        assert!(Trust::Nobody.client_of(&origin("127.0.0.1")).is_some());
    }

    #[test]
    fn the_source_of_the_proxy_protocol_is_the_nearest_hop() {
        let told = |source: &str| Origin {
            source: source.parse().ok(),
            ..origin("10.0.0.1")
        };
        let fields = head("X-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n");
        let trust = only(&["10.0.0.0/8", "5.5.5.0/24"]);
        let direct = trust.client(&told("1.1.1.1"), &fields);
        assert_eq!(direct.address.to_string(), "1.1.1.1");
        assert!(direct.secure, "the proxy that passed it on is trusted");
        let through = trust.client(&told("5.5.5.5"), &fields);
        assert_eq!(through.address.to_string(), "2.2.2.2");
        // A source that was told is no guess, private or not.
        let private = Trust::Unknown.client(&told("192.168.1.1"), &fields);
        assert!(private.is_limited && !private.secure);
    }

    #[test]
    fn the_scheme_is_the_nearest_proxys_word() {
        let trust = only(&["10.0.0.0/8"]);
        for (fields, expected) in [
            ("", false),
            ("X-Forwarded-Proto: https\r\n", true),
            ("X-Forwarded-Proto: HTTPS\r\n", true),
            ("X-Forwarded-Proto: wss\r\n", true),
            ("X-Forwarded-Proto: http\r\n", false),
            ("X-Forwarded-Proto: https, http\r\n", false),
            ("X-Forwarded-Proto: http, https\r\n", true),
            (
                "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
                false,
            ),
            ("X-Forwarded-Proto: \"https\"\r\n", false),
        ] {
            let client = trust.client(&origin("10.0.0.1"), &head(fields));
            assert_eq!(client.secure, expected, "{fields:?}");
        }
    }

    proptest! {
        /// What a client writes itself stands left of what the trusted proxies add, and never counts.
        #[test]
        fn nobody_can_choose_an_address(forged in "[0-9a-f.:, ]{0,60}", lines in 1_usize..3) {
            let trust = only(&["10.0.0.0/8"]);
            let forged = format!("X-Forwarded-For: {forged}\r\n").repeat(lines);
            let fields = format!("{forged}X-Forwarded-For: 203.0.113.5, 10.9.9.9\r\n");
            prop_assert_eq!(client(&trust, "10.0.0.1", &fields), "203.0.113.5");
        }
    }
}
