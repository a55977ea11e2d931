//! A socket's handshake as Socket.IO servers tell it each other: a JSON object.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::Handshake;
use crate::wire::Text;
use crate::wire::http::Query;

/// Fields of the request that are nobody else's business.
const SECRET: &[&str] = &["authorization", "cookie", "proxy-authorization"];

#[derive(Serialize)]
struct Told<'a> {
    headers: BTreeMap<&'a str, &'a str>,
    time: String,
    address: String,
    xdomain: bool,
    secure: bool,
    issued: u64,
    url: String,
    query: BTreeMap<String, String>,
}

/// The object, without what the client authenticated with.
pub(super) fn to_json(handshake: &Handshake) -> Text {
    let headers = handshake.headers.iter();
    let headers: BTreeMap<&str, &str> = headers
        .map(|(name, value)| (&**name, &**value))
        .filter(|(name, _)| !SECRET.contains(name))
        .collect();
    let query = Query::new(&handshake.query);
    let told = Told {
        time: handshake.issued_wall_ms.to_string(),
        address: handshake.address.to_string(),
        xdomain: headers.contains_key("origin"),
        secure: handshake.secure,
        issued: handshake.issued_wall_ms,
        url: format!("/socket.io/?{}", handshake.query),
        query: query
            .pairs()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
        headers,
    };
    let json = serde_json::to_string(&told).expect("texts and numbers have a JSON form");
    Text::from(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_no_secret() {
        let field = |name: &str, value: &str| (name.into(), value.into());
        let handshake = Handshake {
            address: [127, 0, 0, 1].into(),
            headers: vec![
                field("authorization", "Bearer hunter2"),
                field("origin", "http://a"),
            ],
            query: "EIO=4&a=b%20c".into(),
            secure: false,
            issued_wall_ms: 7,
        };
        let json = to_json(&handshake);
        assert!(!json.contains("hunter2"));
        let told: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(told["query"]["a"], "b c");
        assert_eq!(told["headers"]["origin"], "http://a");
        assert_eq!(
            (&told["xdomain"], &told["issued"]),
            (&true.into(), &7.into())
        );
    }
}
