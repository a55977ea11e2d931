//! The commands and exit codes of the built program.

use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_project-yum");
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Runs the program in an empty folder, with these variables and nothing else of ours.
fn run(folder: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).args(args).env_clear();
    command.envs(env.iter().copied());
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn wrong_settings_are_all_named_and_end_with_2() {
    let folder = folder();
    let env = [
        ("JWT_SECRET", "hunter2"),
        ("PORT", "x"),
        ("REDIS_URL", "redis://u:hunter2@h,i"),
    ];
    for command in [&["serve"][..], &["config", "check"], &[]] {
        let output = run(folder.path(), &env, command);
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let errors = text(&output.stderr);
        for name in ["JWT_SECRET", "PORT", "REDIS_URL"] {
            assert!(errors.contains(name), "{errors}");
        }
        assert!(!errors.contains("hunter2"), "a secret is never shown");
    }
    let usage = run(folder.path(), &[], &["--no-such-flag"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_host_with_too_little_lockable_memory_ends_with_3() {
    let folder = folder();
    // A shell may lower its own limit, and with it the program's.
    let script = format!("ulimit -l 64 && exec {PROGRAM}");
    let output = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", &script])
        .output()
        .expect("a shell");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("64 KiB") && errors.contains("ulimit -l"),
        "{errors}"
    );
}

#[test]
fn the_doctor_says_how_everything_is() {
    let folder = folder();
    let env = [("JWT_SECRET", SECRET)];
    let output = run(folder.path(), &env, &["doctor"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for name in [
        "kernel",
        "io_uring",
        "seccomp",
        "memlock",
        "descriptors",
        "cpus",
        "clock",
        "settings",
        "database",
        "disk",
    ] {
        assert!(
            said.lines().any(|line| line.contains(name)),
            "{name} in {said}"
        );
    }
    assert!(
        !folder.path().join("data").exists(),
        "a look changes nothing"
    );
    let output = run(folder.path(), &env, &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_ne!(report["level"], "failure", "{report}");
    let findings = report["findings"].as_array().expect("findings");
    let database = findings.iter().find(|one| one["name"] == "database");
    assert!(database.is_some_and(|one| one["level"] == "ok"), "{report}");
}

#[test]
fn the_doctor_says_what_is_wrong_in_the_words_of_a_failed_start() {
    let folder = folder();
    let shell = |command: &str| {
        let script = format!("ulimit -l 64 && exec {PROGRAM} {command}");
        let output = Command::new("sh")
            .current_dir(folder.path())
            .args(["-c", &script])
            .output()
            .expect("a shell");
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let ((code, said), (start_code, start)) = (shell("doctor"), shell("serve"));
    assert_eq!((code, start_code), (Some(3), Some(3)), "{said}{start}");
    let words = "the limit of locked memory is 64 KiB; io_uring needs 512 KiB.";
    assert!(
        said.contains(words) && start.contains(words),
        "{said}{start}"
    );
    assert!(start.contains("project-yum doctor"), "{start}");

    let wrong = run(folder.path(), &[("PORT", "x")], &["doctor"]);
    let said = text(&wrong.stdout);
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("PORT") && said.contains("io_uring"), "{said}");

    let env = [
        ("JWT_SECRET", SECRET),
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/chat"),
    ];
    let gone = run(folder.path(), &env, &["doctor"]);
    let said = text(&gone.stdout);
    assert_eq!(gone.status.code(), Some(1), "{said}");
    assert!(
        said.contains("failure  database           cannot use the database"),
        "{said}"
    );
    assert!(
        said.contains("See that it runs") && !said.contains("hunter2"),
        "{said}"
    );
    let start = text(&run(folder.path(), &env, &["serve"]).stderr);
    assert!(
        start.contains("cannot use the database") && start.contains("See that it runs"),
        "{start}"
    );
}

#[test]
fn help_names_every_setting() {
    let folder = folder();
    let said = text(&run(folder.path(), &[], &["--help"]).stdout);
    for setting in project_yum::config::settings::SETTINGS {
        let flag = format!("--{}", setting.name.to_lowercase().replace('_', "-"));
        assert!(
            said.contains(setting.name) || said.contains(&flag),
            "{}",
            setting.name
        );
    }
    assert!(said.contains("JWT_SECRET: HS256"), "{said}");
}

#[test]
fn a_printed_token_is_valid_until_another_key_is_set() {
    let folder = folder();
    let env = [("JWT_SECRET", SECRET)];
    let made = run(
        folder.path(),
        &env,
        &["token", "--sub", "ann", "--rooms", "a,b*"],
    );
    assert_eq!(made.status.code(), Some(0));
    let token = text(&made.stdout);
    let check = |env: &[(&str, &str)]| {
        let output = run(folder.path(), env, &["token", "check", token.trim()]);
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = check(&env);
    assert!(code == Some(0) && said.contains("\"ann\""), "{said}");
    let rotated = format!("{},{SECRET}", SECRET.to_uppercase());
    assert_eq!(check(&[("JWT_SECRET", &rotated)]).0, Some(0));
    assert_eq!(check(&[("JWT_SECRET", &SECRET.to_uppercase())]).0, Some(1));
}

#[test]
fn the_demo_keeps_one_secret_for_its_tokens() {
    let folder = folder();
    let token = text(&run(folder.path(), &[], &["token", "--sub", "ann"]).stdout);
    let checked = run(folder.path(), &[], &["token", "check", token.trim()]);
    assert_eq!(checked.status.code(), Some(0));
}

#[test]
fn settings_are_printed_without_secrets() {
    let folder = folder();
    std::fs::write(folder.path().join(".env"), "PORT=4100\n").expect("written");
    let output = run(
        folder.path(),
        &[("JWT_SECRET", SECRET)],
        &["config", "print"],
    );
    let said = text(&output.stdout);
    assert!(said.contains("PORT=4100 # .env"), "{said}");
    assert!(said.contains("JWT_SECRET=*** # environment"), "{said}");
    assert!(!said.contains(SECRET));
    assert_eq!(
        run(folder.path(), &[], &["config", "check"]).status.code(),
        Some(0)
    );
}

#[test]
fn migrations_are_told_taken_and_not_taken_twice() {
    let folder = folder();
    let migrate = |args: &[&str]| text(&run(folder.path(), &[], args).stdout);
    let told = migrate(&["migrate", "--dry-run"]);
    assert!(told.starts_with("Steps would be taken:"), "{told}");
    assert!(
        !folder.path().join("data").exists(),
        "a dry run changes nothing"
    );
    assert!(migrate(&["migrate"]).starts_with("Steps taken:"));
    assert_eq!(migrate(&["migrate"]), "The database is up to date.\n");
}

#[test]
fn the_documents_name_every_setting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("a document");
    let (readme, example) = (read("README.md"), read(".env.example"));
    for setting in project_yum::config::settings::SETTINGS {
        assert!(
            readme.contains(&format!("`{}`", setting.name)),
            "{}",
            setting.name
        );
        assert!(
            example.contains(&format!("{}=", setting.name)),
            "{}",
            setting.name
        );
    }
}
