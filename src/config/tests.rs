use super::*;

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"oct"}]}"#;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn vars(pairs: &[(&str, &str)]) -> Vars {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn load(
    flags: &[(&str, &str)],
    env: &[(&str, &str)],
    dotenv: Option<&str>,
    file: Option<&str>,
) -> Result<Config, Vec<String>> {
    Config::load(&Inputs {
        flags: &vars(flags),
        env: &vars(env),
        dotenv,
        file,
        read: &|path| match path.to_str() {
            Some("/run/secret") => Ok(format!("{SECRET}\n")),
            Some("/run/keys") => Ok(KEYS.to_owned()),
            Some("/run/long") => Ok("x".repeat(FILE_BYTES_MAX + 1)),
            Some("/run/none-of-use") => Ok(KEYS.replace("Ed25519", "X25519")),
            _ => Err("no such file".to_owned()),
        },
    })
    .map_err(|problems| problems.0.into_iter().map(|problem| problem.key).collect())
}

fn env(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    load(&[], pairs, None, None)
}

#[test]
fn nothing_set_is_demo_mode_on_loopback() {
    let config = env(&[]).expect("defaults are right");
    assert!(config.demo && config.host.is_loopback());
    assert_eq!((config.port, config.metrics_required), (4000, false));
}

#[test]
fn a_key_is_production_on_every_address() {
    let config = env(&[("JWT_SECRET", SECRET)]).expect("a key is enough");
    assert!(!config.demo);
    assert_eq!(config.host.to_string(), "0.0.0.0");
}

#[test]
fn what_looks_like_production_needs_a_key() {
    for name in ["DATABASE_URL", "NOTIFY_SOCKET"] {
        assert_eq!(
            env(&[(name, "memory:")]).err(),
            Some(vec!["JWT_SECRET".to_owned()])
        );
    }
    let by_file = load(&[], &[], None, Some("room_prefix = 'x'"));
    assert_eq!(by_file.err(), Some(vec!["JWT_SECRET".to_owned()]));
}

#[test]
fn demo_mode_refuses_to_be_reached_by_others() {
    assert_eq!(
        env(&[("HOST", "0.0.0.0")]).err(),
        Some(vec!["HOST".to_owned()])
    );
    assert!(env(&[("HOST", "::1")]).is_ok());
    assert!(env(&[("HOST", "localhost")]).is_ok());
}

#[test]
fn the_sources_have_an_order() {
    let dotenv = "PORT=3\nSHARDS=3\nDRAIN_SECONDS=3\n# words\nOTHER=x\n";
    let file = format!(
        "jwt_secret = '{SECRET}'\nroom_prefix = 'f'\ndrain_seconds = 4\n[listen]\nport = 4\n"
    );
    let config = load(
        &[("PORT", "1")],
        &[("PORT", "2"), ("SHARDS", "2"), ("ROOM_PREFIX", "")],
        Some(dotenv),
        Some(&file),
    )
    .expect("all are right");
    assert_eq!((config.port, config.shards), (1, Some(2)));
    assert_eq!(config.drain, Duration::from_secs(3));
    // An empty variable is absent, so the file's value holds.
    assert_eq!(&*config.room_prefix, "f");
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let most = "#".repeat(FILE_BYTES_MAX);
    let more = format!("{most}#");
    let key = [("JWT_SECRET", SECRET)];
    load(&[], &key, Some(&most), Some(&most)).expect("that long they may be");
    let keys = load(&[], &key, Some(&more), Some(&more)).expect_err("longer they may not");
    assert_eq!(keys, [".env", "--config"]);
    let named = [("JWT_SECRET_FILE", "/run/long")];
    assert_eq!(env(&named).expect_err("nor a secret"), ["JWT_SECRET_FILE"]);
}

#[test]
fn of_a_file_full_of_mistakes_a_hundred_are_named() {
    let key = [("JWT_SECRET", SECRET)];
    let lines: Vec<_> = (0..300).map(|n| format!("unknown_{n} = 1\n")).collect();
    let keys = load(&[], &key, None, Some(&lines.concat())).expect_err("they are unknown");
    assert_eq!(keys.len(), 100);
}

#[test]
fn every_wrong_value_is_named() {
    let keys = env(&[
        ("JWT_SECRET", "short"),
        ("PORT", "70000"),
        ("SHARDS", "0"),
        ("LOG_FORMAT", "xml"),
        ("REDIS_URL", "redis+cluster://localhost"),
        ("CORS_ORIGINS", "*"),
    ])
    .expect_err("six are wrong");
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "CORS_ORIGINS",
            "JWT_SECRET",
            "LOG_FORMAT",
            "PORT",
            "REDIS_URL",
            "SHARDS"
        ]
    );
}

#[test]
fn a_feature_may_be_turned_off() {
    let off = [
        ("REDIS_URL", ""),
        ("SENTRY_DSN", "none"),
        ("TRUST_PROXY", "none"),
        ("REQUIRE_HTTPS", "false"),
        ("PROXY_PROTOCOL_ADDR", "none"),
        ("RATE_HTTP_PER_SECOND", "0"),
    ];
    assert!(env(&off).is_ok());
}

#[test]
fn https_is_required_only_where_a_proxy_can_vouch_for_it() {
    for trust in ["", "none"] {
        let keys = env(&[("REQUIRE_HTTPS", "true"), ("TRUST_PROXY", trust)]);
        assert_eq!(keys.err(), Some(vec!["REQUIRE_HTTPS".to_owned()]));
    }
    let config = env(&[("REQUIRE_HTTPS", "true"), ("TRUST_PROXY", "10.0.0.0/8")]);
    assert!(config.expect("a proxy is trusted").require_https);
}

#[test]
fn replicas_need_a_primary_and_are_never_shown() {
    let urls = "postgres://u:hunter2@a/chat,postgres://u:hunter2@b/chat";
    let replicas = ("DATABASE_REPLICA_URLS", urls);
    let key = ("JWT_SECRET", SECRET);
    let primary = ("DATABASE_URL", "postgres://u:hunter2@c/chat");
    let config = env(&[key, primary, replicas]).expect("all are databases");
    assert_eq!(config.replicas.len(), 2);
    assert!(!format!("{config:?}").contains("hunter2"));
    for other in ["sqlite:data/chat.db", "memory:", ""] {
        let keys = env(&[key, ("DATABASE_URL", other), replicas]).expect_err("no replicas");
        assert_eq!(keys, ["DATABASE_REPLICA_URLS"]);
    }
}

#[test]
fn a_secret_may_come_from_a_file_but_not_twice() {
    let config = env(&[("JWT_SECRET_FILE", "/run/secret")]).expect("the file is there");
    assert_eq!(config.jwt_secrets, [Secret(SECRET.to_owned())]);
    let missing = env(&[("JWT_SECRET_FILE", "/run/none")]);
    assert_eq!(missing.err(), Some(vec!["JWT_SECRET_FILE".to_owned()]));
    let twice = env(&[("JWT_SECRET", SECRET), ("JWT_SECRET_FILE", "/run/secret")]);
    assert_eq!(twice.err(), Some(vec!["JWT_SECRET".to_owned()]));
}

#[test]
fn secrets_are_rotated_by_a_list_and_never_shown() {
    let two = format!("{SECRET}, {}", SECRET.to_uppercase());
    let config = env(&[("JWT_SECRET", &two)]).expect("both are long enough");
    assert_eq!(config.jwt_secrets.len(), 2);
    assert!(!format!("{config:?}").contains("0123456789"));
    // Each has at least 32 bytes, the later ones too, and blanks around it are none of them.
    let short = "s".repeat(31);
    let enough = "s".repeat(32);
    assert!(env(&[("JWT_SECRET", &enough)]).is_ok());
    for wrong in [
        short.clone(),
        format!("{SECRET},{short}"),
        format!("{SECRET}, {short} "),
        ",".to_owned(),
    ] {
        let refused = env(&[("JWT_SECRET", &wrong)]);
        assert_eq!(refused.expect_err("it is too short"), ["JWT_SECRET"]);
    }
}

#[test]
fn the_file_has_tables_and_no_unknown_keys() {
    let file = format!(
        "jwt_secret = ['{SECRET}']\ncors_origins = ['https://a.example', 'https://b.example']\nredis_url = ''\n\
         [listen]\naddress = '::1'\nport = 5\n[metrics]\naddress = '0.0.0.0'\nport = 6\n"
    );
    let config = load(&[], &[], None, Some(&file)).expect("all keys are known");
    assert_eq!((config.host.to_string().as_str(), config.port), ("::1", 5));
    assert_eq!(
        config.metrics_addr,
        Some("0.0.0.0:6".parse().expect("an address"))
    );
    assert_eq!(config.cors_origins.len(), 2);

    let wrong =
        format!("jwt_secret = '{SECRET}'\nprot = 1\nPORT = 1\nhost = 'x'\n[listen]\nhost = 'x'\n");
    let keys = load(&[], &[], None, Some(&wrong)).expect_err("four are unknown");
    assert_eq!(keys, ["PORT", "host", "listen.host", "prot"]);
    let keys = load(&[], &[("JWT_SECRET", SECRET)], None, Some("a = ")).expect_err("no TOML");
    assert_eq!(keys, ["--config"]);
}

#[test]
fn public_keys_are_keys_enough() {
    let config = env(&[("JWT_JWKS_FILE", "/run/keys"), ("DATABASE_URL", "memory:")]);
    let config = config.expect("no secret is needed");
    let keys = config.jwt_jwks.as_ref().expect("they are read");
    assert!(!config.demo && config.jwt_secrets.is_empty());
    assert_eq!((keys.set.keys.len(), keys.set.warnings.len()), (1, 1));
    let both = env(&[("JWT_JWKS_FILE", "/run/keys"), ("JWT_SECRET", SECRET)]);
    assert_eq!(both.expect("side by side").jwt_secrets.len(), 1);
    for wrong in ["/run/none", "/run/secret", "/run/none-of-use"] {
        let keys = env(&[("JWT_JWKS_FILE", wrong)]).expect_err("no key set");
        assert_eq!(keys, ["JWT_JWKS_FILE"], "{wrong}");
    }
}

#[test]
fn a_running_server_takes_over_what_may_change_and_nothing_else() {
    let key = ("JWT_SECRET", SECRET);
    let mut running = env(&[key, ("PORT", "1"), ("RATE_BURST", "7")]).expect("right");
    let other = SECRET.to_uppercase();
    let new = env(&[
        ("JWT_SECRET", &other),
        ("PORT", "2"),
        ("CORS_ORIGINS", "https://a.example"),
        ("LOG_LEVEL", "warn"),
        ("TRUST_PROXY", "none"),
    ]);
    let changes = running.take_over(new.expect("right"));
    let taken = ["JWT_SECRET", "CORS_ORIGINS", "RATE_BURST", "LOG_LEVEL"];
    assert_eq!(changes.taken, taken);
    assert_eq!(changes.waiting, ["PORT", "TRUST_PROXY"]);
    assert_eq!((running.port, running.rate_burst), (1, 40));
    assert_eq!(running.trust_proxy, Trust::Unknown);
    assert_eq!(running.jwt_secrets, [Secret(other.clone())]);
    let again = env(&[
        ("JWT_SECRET", &other),
        ("PORT", "2"),
        ("CORS_ORIGINS", "https://a.example"),
        ("LOG_LEVEL", "warn"),
    ]);
    let changes = running.take_over(again.expect("right"));
    assert_eq!((changes.taken, changes.waiting), (vec![], vec!["PORT"]));
}

#[test]
fn every_live_setting_is_taken_over() {
    let mut running = env(&[("JWT_SECRET", SECRET)]).expect("right");
    let values = |setting: &settings::Setting| match setting.name {
        "JWT_SECRET" => "ffffffffffffffffffffffffffffffff",
        "JWT_JWKS_FILE" => "/run/keys",
        "CORS_ORIGINS" => "https://a.example",
        "LOG_LEVEL" => "warn",
        "JWT_LEEWAY_SECONDS" => "3",
        "JWT_ISSUER" | "JWT_AUDIENCE" => "x",
        _ => "77",
    };
    let live = settings::SETTINGS.iter().filter(|setting| setting.live);
    let live: Vec<_> = live
        .map(|setting| (setting.name, values(setting)))
        .collect();
    let new = env(&live).expect("right");
    let changes = running.take_over(new.clone());
    let names: Vec<_> = live.iter().map(|(name, _)| *name).collect();
    assert_eq!((changes.taken, changes.waiting), (names, vec![]));
    // Secrets print alike, so they are looked at themselves.
    assert_eq!(running.jwt_secrets, new.jwt_secrets);
    running.shown.clone_from(&new.shown);
    assert_eq!(format!("{running:?}"), format!("{new:?}"));
}

#[test]
fn only_a_start_begins_or_ends_demo_mode() {
    let mut demo = env(&[("RATE_BURST", "7")]).expect("right");
    let new = env(&[("JWT_SECRET", SECRET)]).expect("right");
    let changes = demo.take_over(new);
    assert_eq!(changes.taken, ["RATE_BURST"]);
    assert_eq!(changes.waiting, ["JWT_SECRET"]);
    assert!(demo.demo && demo.jwt_secrets.is_empty());
}
