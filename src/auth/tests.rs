use super::*;
use serde_json::json;

const NOW_S: u64 = 1_800_000_000;
const NOW: u64 = NOW_S * 1000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OLD: &[u8] = b"an older secret of enough bytes!";

fn options(secrets: &[&[u8]]) -> AuthOptions {
    AuthOptions {
        keys: Keys::secrets(secrets.iter().map(|s| Box::from(*s)).collect()),
        issuer: None,
        audience: None,
        leeway_seconds: 5,
    }
}

fn verify(token: &str) -> Result<User, AuthError> {
    Verifier::new(&options(&[SECRET, OLD])).verify(token, NOW)
}

fn token_with(header: &Value, body: &Value, secret: &[u8], algorithm: Algorithm) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(body));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("signs");
    format!("{message}.{signature}")
}

fn token(body: &Value) -> String {
    token_with(&json!({"alg": "HS256"}), body, SECRET, Algorithm::HS256)
}

fn good() -> Value {
    json!({"sub": "alice", "exp": NOW_S + 60})
}

/// The good claims with one of them replaced.
fn with(name: &str, value: Value) -> String {
    let mut body = good();
    body[name] = value;
    token(&body)
}

#[test]
fn takes_a_token_of_each_secret() {
    for secret in [SECRET, OLD] {
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let token = token_with(&header, &good(), secret, Algorithm::HS256);
        let user = verify(&token).expect("valid");
        assert_eq!(&*user.id, "alice");
        assert_eq!(user.expires_wall_ms, NOW + 60_000);
        assert!(user.may_enter("anywhere"));
    }
}

#[test]
fn refuses_a_foreign_secret_and_a_changed_token() {
    let header = json!({"alg": "HS256"});
    let foreign = token_with(&header, &good(), b"somebody else", Algorithm::HS256);
    assert_eq!(verify(&foreign), Err(AuthError::Signature));
    let token = token(&good());
    let (message, _) = token.rsplit_once('.').expect("three parts");
    for signature in ["", "AAAA", &"A".repeat(43)] {
        let forged = format!("{message}.{signature}");
        assert_eq!(verify(&forged), Err(AuthError::Signature), "{forged}");
    }
    let (head, rest) = token.split_once('.').expect("three parts");
    let (_, signature) = rest.split_once('.').expect("three parts");
    let body = URL_SAFE_NO_PAD.encode(json!({"sub": "root", "exp": NOW_S + 60}).to_string());
    let forged = format!("{head}.{body}.{signature}");
    assert_eq!(verify(&forged), Err(AuthError::Signature));
}

#[test]
fn the_configuration_fixes_the_algorithm() {
    for name in [
        "none", "None", "", "HS384", "HS512", "RS256", "ES256", "EdDSA",
    ] {
        let header = json!({"alg": name});
        let token = token_with(&header, &good(), SECRET, Algorithm::HS256);
        assert_eq!(verify(&token), Err(AuthError::Algorithm), "{name}");
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": ["HS256"]})] {
        let token = token_with(&header, &good(), SECRET, Algorithm::HS256);
        assert_eq!(verify(&token), Err(AuthError::Algorithm), "{header}");
    }
    let really_512 = token_with(&json!({"alg": "HS512"}), &good(), SECRET, Algorithm::HS512);
    assert_eq!(verify(&really_512), Err(AuthError::Algorithm));
    let unsigned = token_with(&json!({"alg": "none"}), &good(), SECRET, Algorithm::HS256);
    let (message, _) = unsigned.rsplit_once('.').expect("three parts");
    assert_eq!(verify(&format!("{message}.")), Err(AuthError::Algorithm));
}

#[test]
fn refuses_crit_whatever_it_says() {
    for crit in [json!(["exp"]), json!([]), json!(null), json!("b64")] {
        let header = json!({"alg": "HS256", "crit": crit});
        let token = token_with(&header, &good(), SECRET, Algorithm::HS256);
        assert_eq!(verify(&token), Err(AuthError::Critical), "{header}");
    }
}

#[test]
fn refuses_what_is_not_a_token() {
    assert_eq!(verify(""), Err(AuthError::Missing));
    let good = token(&good());
    let long = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
    let part = URL_SAFE_NO_PAD.encode("[]");
    for text in [
        "x",
        "..",
        "a.b",
        "a.b.c.d",
        "ä.ö.ü",
        &format!("{good}.x"),
        &format!(" {good}"),
        &long,
        &format!("{part}.{part}.{part}"),
    ] {
        assert_eq!(verify(text), Err(AuthError::Malformed), "{text}");
    }
    let array = token_with(
        &json!({"alg": "HS256"}),
        &json!([1]),
        SECRET,
        Algorithm::HS256,
    );
    assert_eq!(verify(&array), Err(AuthError::Malformed));
}

#[test]
fn sub_and_exp_are_required() {
    assert_eq!(
        verify(&token(&json!({"exp": NOW_S + 60}))),
        Err(AuthError::Claim("sub"))
    );
    assert_eq!(
        verify(&token(&json!({"sub": "alice"}))),
        Err(AuthError::Claim("exp"))
    );
}

#[test]
fn claims_of_the_wrong_type_refuse_the_token() {
    let long = "x".repeat(129);
    let wrong = [
        (
            "sub",
            vec![
                json!(1),
                json!(null),
                json!(["alice"]),
                json!(""),
                json!("a\u{7}"),
            ],
        ),
        ("sub", vec![json!(long), json!("a\u{85}b"), json!({"a": 1})]),
        (
            "exp",
            vec![
                json!("1900000000"),
                json!(null),
                json!(true),
                json!([NOW_S]),
            ],
        ),
        (
            "nbf",
            vec![json!("1"), json!(null), json!(false), json!({})],
        ),
        ("iat", vec![json!("1"), json!(null)]),
        (
            "iss",
            vec![json!(5), json!(null), json!(["here"]), json!({})],
        ),
        ("aud", vec![json!(5), json!(null), json!([1]), json!({})]),
        (
            "rooms",
            vec![json!("lobby"), json!(null), json!([1]), json!(["a", null])],
        ),
    ];
    for (name, values) in wrong {
        for value in values {
            let token = with(name, value.clone());
            assert_eq!(
                verify(&token),
                Err(AuthError::Claim(name)),
                "{name} {value}"
            );
        }
    }
    let most = vec![json!("r"); ROOM_PATTERNS_MAX + 1];
    let token = with("rooms", json!(most));
    assert_eq!(verify(&token), Err(AuthError::Claim("rooms")));
    assert!(verify(&with("sub", json!("x".repeat(128)))).is_ok());
    assert!(verify(&with("sub", json!("ünï 🦀"))).is_ok());
}

#[test]
fn exp_is_judged_with_the_leeway() {
    let at = |exp: f64| verify(&with("exp", json!(exp)));
    let now = 1_800_000_000.0;
    assert!(at(now - 4.9).is_ok());
    assert_eq!(at(now - 5.0), Err(AuthError::Expired));
    assert_eq!(at(-1.0), Err(AuthError::Expired));
    assert_eq!(at(0.0), Err(AuthError::Expired));
    let user = at(now + 0.5).expect("valid");
    assert_eq!(user.expires_wall_ms, NOW + 500);
    assert_eq!(user.refused_wall_ms, NOW + 5_500);
    let far = at(1e300).expect("valid").expires_wall_ms;
    assert_eq!(far, 253_402_300_799_000, "the last second of 9999");
    assert!(AuthError::Expired.is_expired() && !AuthError::Signature.is_expired());
}

#[test]
fn nbf_is_honoured_with_the_leeway() {
    assert!(verify(&with("nbf", json!(NOW_S + 5))).is_ok());
    assert_eq!(
        verify(&with("nbf", json!(NOW_S + 6))),
        Err(AuthError::NotYetValid)
    );
    assert_eq!(
        verify(&with("nbf", json!(1e300))),
        Err(AuthError::NotYetValid)
    );
    assert!(verify(&with("iat", json!(NOW_S))).is_ok());
}

#[test]
fn issuer_and_audience_are_checked_when_configured() {
    let mut options = options(&[SECRET]);
    options.issuer = Some("here".into());
    options.audience = Some("chat".into());
    let verifier = Verifier::new(&options);
    let check = |iss: Value, aud: Value| {
        let mut body = good();
        body["iss"] = iss;
        body["aud"] = aud;
        verifier.verify(&token(&body), NOW).map(|_| ())
    };
    assert_eq!(check(json!("here"), json!("chat")), Ok(()));
    assert_eq!(check(json!("here"), json!(["x", "chat"])), Ok(()));
    let iss = Err(AuthError::Claim("iss"));
    let aud = Err(AuthError::Claim("aud"));
    assert_eq!(check(json!("there"), json!("chat")), iss);
    assert_eq!(check(json!(["here"]), json!("chat")), iss);
    assert_eq!(check(json!(null), json!("chat")), iss);
    assert_eq!(check(json!("here"), json!([])), aud);
    assert_eq!(check(json!("here"), json!(["chat", 1])), aud);
    assert_eq!(check(json!("here"), json!(7)), aud);
    assert_eq!(verifier.verify(&token(&good()), NOW).map(|_| ()), iss);
    assert!(verify(&with("aud", json!("anything"))).is_ok());
}

#[test]
fn the_rooms_claim_names_rooms_and_prefixes() {
    let user = verify(&with("rooms", json!(["lobby", "team-*", "a*b"]))).expect("valid");
    for (room, allowed) in [
        ("lobby", true),
        ("lobby2", false),
        ("Lobby", false),
        ("team-", true),
        ("team-7", true),
        ("team", false),
        ("a*b", true),
        ("axb", false),
        ("", false),
    ] {
        assert_eq!(user.may_enter(room), allowed, "{room}");
    }
    let none = verify(&with("rooms", json!([]))).expect("valid");
    assert!(!none.may_enter("lobby"));
    let all = verify(&with("rooms", json!(["*"]))).expect("valid");
    assert!(all.may_enter("lobby"));
}

#[test]
fn what_is_signed_verifies() {
    let mut options = options(&[SECRET, OLD]);
    options.issuer = Some("here".into());
    options.audience = Some("chat".into());
    let claims = Claims {
        user: "bob".into(),
        rooms: Some(vec!["a".into(), "b*".into()]),
        issued_seconds: NOW_S,
        expires_seconds: NOW_S + 10,
    };
    let token = sign(&options, &claims).expect("signs");
    let user = Verifier::new(&options).verify(&token, NOW).expect("valid");
    assert_eq!(&*user.id, "bob");
    assert!(user.may_enter("b7") && !user.may_enter("c"));
    options.keys = Keys::secrets(vec![OLD.into()]);
    let old = Verifier::new(&options);
    assert_eq!(old.verify(&token, NOW), Err(AuthError::Signature));
    let nameless = Claims::default();
    assert_eq!(sign(&options, &nameless), Err(AuthError::Claim("sub")));
}

#[test]
fn the_authorization_field_is_read_as_a_bearer_token() {
    assert_eq!(bearer("Bearer abc"), Some("abc"));
    assert_eq!(bearer("bearer  abc "), Some("abc"));
    assert_eq!(bearer("Basic abc"), None);
    assert_eq!(bearer("Bearer"), None);
    assert_eq!(bearer(""), None);
}

#[test]
fn secrets_are_not_printed() {
    let text = format!(
        "{:?} {:?}",
        options(&[SECRET]),
        Verifier::new(&options(&[SECRET]))
    );
    assert!(!text.contains("0123456789"), "{text}");
}
