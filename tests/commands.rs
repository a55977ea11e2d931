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
        ("REDIS_URL", "redis://h"),
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
