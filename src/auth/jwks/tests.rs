use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::auth::{AuthError, AuthOptions, Keys, Rules, User, Verifier};

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Private and public keys of each kind.
fn material() -> Value {
    serde_json::from_str(include_str!("../../../tests/support/keys.json")).expect("JSON")
}

/// A public key with these members besides.
fn public(name: &str, more: &Value) -> Value {
    let mut key = material()[name]["public"].clone();
    let members = key.as_object_mut().expect("an object");
    members.extend(more.as_object().expect("an object").clone());
    key
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn options(keys: &[Value], secrets: &[&[u8]]) -> AuthOptions {
    AuthOptions {
        keys: Keys {
            secrets: secrets.iter().map(|secret| Box::from(*secret)).collect(),
            public: parse(&set(keys)).expect("a good set").keys,
        },
        issuer: None,
        audience: None,
        leeway_seconds: 5,
    }
}

fn verifier(keys: &[Value], secrets: &[&[u8]]) -> Verifier {
    Verifier::new(&options(keys, secrets))
}

/// A token signed by the private key of this name.
fn signed(name: &str, header: &Value) -> String {
    let material = &material()[name];
    let der = material["private"].as_str().expect("a private key");
    let der = URL_SAFE_NO_PAD.decode(der).expect("base64url");
    let (key, algorithm) = match material["alg"].as_str() {
        Some("RS256") => (EncodingKey::from_rsa_der(&der), Algorithm::RS256),
        Some("ES256") => (EncodingKey::from_ec_der(&der), Algorithm::ES256),
        _ => (EncodingKey::from_ed_der(&der), Algorithm::EdDSA),
    };
    token(header, &key, algorithm)
}

fn token(header: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = json!({"sub": "alice", "exp": NOW_S + 60});
    let message = format!("{}.{}", part(header), part(&body));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm);
    format!("{message}.{}", signature.expect("it signs"))
}

fn verify(verifier: &Verifier, token: &str) -> Result<User, AuthError> {
    verifier.verify(token, NOW_S * 1000)
}

const KINDS: [(&str, &str); 3] = [("rsa", "RS256"), ("p256", "ES256"), ("ed25519", "EdDSA")];

#[test]
fn lists_are_no_objects_and_a_name_stands_once() {
    let good = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    for text in [
        format!("[[{good}]]"),
        format!(r#"{{"keys":[{good},[]]}}"#),
        format!(r#"{{"keys":[{good},null]}}"#),
        format!(r#"{{"keys":{good}}}"#),
        format!(r#"{{"keys":[{good},{{"kty":"OKP","kty":"EC"}}]}}"#),
        format!(r#"{{"keys":[{good}],"keys":[]}}"#),
    ] {
        assert_eq!(parse(&text).unwrap_err(), JwksError::Malformed, "{text}");
    }
    let unread = r#","key_ops":["verify",{"a":[1]},"\u0073ign"],"other":[[{}]]}"#;
    let text = format!(r#"{{"a":1,"keys":[{}]}}"#, good.replace('}', unread));
    assert_eq!(parse(&text).unwrap().keys.len(), 1);
}

#[test]
fn each_kind_verifies_its_algorithm_by_kid() {
    let keys: Vec<_> = KINDS
        .iter()
        .map(|(name, _)| public(name, &json!({"kid": name})))
        .collect();
    let verifier = verifier(&keys, &[]);
    for (name, alg) in KINDS {
        let good = signed(name, &json!({"alg": alg, "kid": name, "typ": "JWT"}));
        let user = verify(&verifier, &good).expect("valid");
        assert_eq!(&*user.id, "alice");
        let unknown = signed(name, &json!({"alg": alg, "kid": "other"}));
        assert_eq!(verify(&verifier, &unknown), Err(AuthError::Key));
        let absent = signed(name, &json!({"alg": alg}));
        assert_eq!(verify(&verifier, &absent), Err(AuthError::Key));
        for kid in [json!(7), json!(null), json!([name])] {
            let wrong = signed(name, &json!({"alg": alg, "kid": kid}));
            assert_eq!(verify(&verifier, &wrong), Err(AuthError::Malformed));
        }
        let critical = signed(name, &json!({"alg": alg, "kid": name, "crit": ["x"]}));
        assert_eq!(verify(&verifier, &critical), Err(AuthError::Critical));
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        let zero = URL_SAFE_NO_PAD.encode(vec![0; signature.len() * 3 / 4]);
        for forged in ["", "AAAA", &zero, &signature[1..]] {
            let forged = format!("{message}.{forged}");
            assert_eq!(verify(&verifier, &forged), Err(AuthError::Signature));
        }
    }
    // The same kid, another kind of key: the algorithm finds none.
    let crossed = signed("rsa", &json!({"alg": "RS256", "kid": "p256"}));
    assert_eq!(verify(&verifier, &crossed), Err(AuthError::Key));
}

#[test]
fn a_token_that_was_good_is_judged_anew_in_time_and_by_other_keys() {
    let verifier = verifier(&[public("rsa", &json!({"kid": "a"}))], &[]);
    let token = signed("rsa", &json!({"alg": "RS256", "kid": "a"}));
    for _ in 0..2 {
        assert!(verify(&verifier, &token).is_ok());
    }
    let later = verifier.verify(&token, (NOW_S + 66) * 1000);
    assert_eq!(later, Err(AuthError::Expired));
    let other = public("rsa_other", &json!({"kid": "a"}));
    verifier.replace(Arc::new(Rules::new(&options(&[other], &[]))));
    assert_eq!(verify(&verifier, &token), Err(AuthError::Signature));
}

#[test]
fn another_key_of_the_same_name_does_not_verify() {
    let verifier = verifier(&[public("rsa", &json!({"kid": "a"}))], &[]);
    let foreign = signed("rsa_other", &json!({"alg": "RS256", "kid": "a"}));
    assert_eq!(verify(&verifier, &foreign), Err(AuthError::Signature));
}

#[test]
fn a_public_key_is_never_a_secret_and_no_token_goes_unsigned() {
    let key = public("rsa", &json!({"kid": "a"}));
    let modulus = key["n"].as_str().expect("text").to_owned();
    let only_public = verifier(std::slice::from_ref(&key), &[]);
    let with_secret = verifier(std::slice::from_ref(&key), &[SECRET]);
    let header = json!({"alg": "HS256", "kid": "a"});
    let raw = URL_SAFE_NO_PAD.decode(&modulus).expect("base64url");
    for secret in [modulus.as_bytes(), &raw, key.to_string().as_bytes()] {
        let key = EncodingKey::from_secret(secret);
        let confused = token(&header, &key, Algorithm::HS256);
        assert_eq!(verify(&only_public, &confused), Err(AuthError::Algorithm));
        assert_eq!(verify(&with_secret, &confused), Err(AuthError::Signature));
    }
    for alg in [
        "none", "RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256", "",
    ] {
        let token = signed("rsa", &json!({"alg": alg, "kid": "a"}));
        assert_eq!(
            verify(&only_public, &token),
            Err(AuthError::Algorithm),
            "{alg}"
        );
        let (message, _) = token.rsplit_once('.').expect("three parts");
        let unsigned = verify(&only_public, &format!("{message}."));
        assert_eq!(unsigned, Err(AuthError::Algorithm), "{alg}");
    }
}

#[test]
fn secrets_and_public_keys_live_side_by_side() {
    let verifier = verifier(&[public("p256", &json!({"kid": "a"}))], &[SECRET]);
    let key = EncodingKey::from_secret(SECRET);
    let by_secret = token(
        &json!({"alg": "HS256", "kid": "whatever"}),
        &key,
        Algorithm::HS256,
    );
    assert!(verify(&verifier, &by_secret).is_ok());
    let by_key = signed("p256", &json!({"alg": "ES256", "kid": "a"}));
    assert!(verify(&verifier, &by_key).is_ok());
}

#[test]
fn a_key_without_kid_is_for_tokens_without_kid() {
    let keys = [
        public("rsa", &json!({})),
        public("rsa_other", &json!({"kid": "b"})),
    ];
    let verifier = verifier(&keys, &[]);
    let plain = signed("rsa", &json!({"alg": "RS256"}));
    assert!(verify(&verifier, &plain).is_ok());
    let named = signed("rsa", &json!({"alg": "RS256", "kid": "a"}));
    assert_eq!(verify(&verifier, &named), Err(AuthError::Key));
    let other = signed("rsa_other", &json!({"alg": "RS256", "kid": "b"}));
    assert!(verify(&verifier, &other).is_ok());
}

#[test]
fn rules_are_replaced_under_a_verifier_in_use() {
    let before = verifier(&[public("rsa", &json!({"kid": "a"}))], &[]);
    let old = signed("rsa", &json!({"alg": "RS256", "kid": "a"}));
    assert!(verify(&before, &old).is_ok());
    let after = verifier(&[public("rsa_other", &json!({"kid": "a"}))], &[]);
    before.replace(after.rules.borrow().clone());
    assert_eq!(verify(&before, &old), Err(AuthError::Signature));
    let new = signed("rsa_other", &json!({"alg": "RS256", "kid": "a"}));
    assert!(verify(&before, &new).is_ok());
}

#[test]
fn what_is_of_no_use_is_passed_over_and_named() {
    let good = public(
        "ed25519",
        &json!({"kid": "good", "use": "sig", "key_ops": ["verify"], "alg": "EdDSA"}),
    );
    for (entry, cause) in [
        (
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"}),
            "the kind \"oct\"",
        ),
        (
            json!({"kty": "EC", "crv": "P-384", "x": "", "y": ""}),
            "the curve \"P-384\"",
        ),
        (
            json!({"kty": "OKP", "crv": "X25519", "x": ""}),
            "the curve \"X25519\"",
        ),
        (json!({"kty": "EC"}), "the kind \"EC\""),
        (json!({"kty": 7}), "it has no kty"),
        (json!({}), "it has no kty"),
        (public("rsa", &json!({"kid": 7})), "its kid is no text"),
        (public("rsa", &json!({"kid": ""})), "its kid is no text"),
        (public("rsa", &json!({"use": "enc"})), "its use is not sig"),
        (
            public("rsa", &json!({"key_ops": ["encrypt"]})),
            "its key_ops have no verify",
        ),
        (
            public("rsa", &json!({"key_ops": "verify"})),
            "its key_ops have no verify",
        ),
        (
            public("rsa", &json!({"alg": "RS512"})),
            "its alg is not RS256",
        ),
        (
            public("p256", &json!({"alg": "HS256"})),
            "its alg is not ES256",
        ),
        (public("rsa_short", &json!({})), "its modulus has 1024 bits"),
        (public("rsa", &json!({"e": "AQ"})), "its exponent"),
        (public("rsa", &json!({"e": "AAE"})), "its exponent"),
        (public("rsa", &json!({"e": ""})), "its exponent"),
        (
            public("rsa", &json!({"n": "AAAA"})),
            "its modulus has 0 bits",
        ),
        (public("rsa", &json!({"n": "?"})), "its members"),
        (public("rsa", &json!({"n": 7})), "its members"),
        (public("p256", &json!({"x": "AAAA"})), "its members"),
        (public("p256", &json!({"y": null})), "its members"),
        (
            public("ed25519", &json!({"x": "AAAA", "kid": "short"})),
            "its members",
        ),
    ] {
        let read = parse(&set(&[entry.clone(), good.clone()])).expect("one is good");
        assert_eq!(read.keys.len(), 1, "{entry}");
        let [warning] = &read.warnings[..] else {
            panic!("{entry}: {:?}", read.warnings);
        };
        assert!(
            warning.starts_with("key 1") && warning.contains(cause),
            "{warning}"
        );
        let alone = parse(&set(std::slice::from_ref(&entry)));
        assert!(matches!(alone, Err(JwksError::Useless(text)) if text.contains(cause)));
    }
    let kid = "evil\nline\u{1b}[2J";
    let entry = json!({"kty": "oct", "kid": kid});
    let read = parse(&set(&[entry, good])).expect("one is good");
    assert!(
        !read.warnings[0].contains(['\n', '\u{1b}']),
        "{:?}",
        read.warnings
    );
}

#[test]
fn what_is_no_key_set_is_refused_whole() {
    for wrong in [
        "",
        "[]",
        "{}",
        "null",
        r#"{"keys":{}}"#,
        r#"{"keys":[7]}"#,
        "{\"keys\":[",
    ] {
        assert_eq!(parse(wrong).err(), Some(JwksError::Malformed), "{wrong}");
    }
    assert_eq!(
        parse(&set(&[])).err(),
        Some(JwksError::Useless(String::new()))
    );
    let many: Vec<_> = (0..=KEYS_MAX)
        .map(|kid| public("ed25519", &json!({"kid": kid.to_string()})))
        .collect();
    assert_eq!(parse(&set(&many)).err(), Some(JwksError::TooMany));
    assert!(parse(&set(&many[1..])).is_ok());
    let big = set(&[json!({"kty": "oct", "k": "x".repeat(BYTES_MAX)})]);
    assert_eq!(parse(&big).err(), Some(JwksError::TooLarge));
}

#[test]
fn two_keys_of_one_name_are_refused_unless_their_kinds_differ() {
    let twice = |kid: &Value| {
        let first = public("rsa", kid);
        parse(&set(&[first, public("rsa_other", kid)]))
    };
    assert!(
        matches!(twice(&json!({"kid": "a"})), Err(JwksError::Twice(name)) if name.contains("\"a\""))
    );
    assert!(matches!(twice(&json!({})), Err(JwksError::Twice(_))));
    let kid = json!({"kid": "a"});
    let both = [public("rsa", &kid), public("p256", &kid)];
    assert_eq!(parse(&set(&both)).map(|set| set.keys.len()), Ok(2));
}

proptest! {
    #[test]
    fn whatever_the_file_holds_it_is_judged(text in ".{0,200}", kid in ".{0,20}", n in "[A-Za-z0-9_-]{0,60}") {
        let _ = parse(&text);
        let _ = parse(&set(&[json!({"kty": "RSA", "kid": kid, "n": n, "e": "AQAB"})]));
        let _ = parse(&set(&[json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": n, "y": n})]));
    }
}
