//! The contract, kept by `SQLite`; and kill -9.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use futures_lite::future::block_on;
use project_yum::store::sqlite::SqliteStore;
use project_yum::store::{Condition, Cursor, SharedStore, Store, StoreError};

use crate::contract::{self, draft, keyed};

/// Names the directory on a small disk to the child of the test that fills it.
const SMALL_DISK: &str = "STORE_SMALL_DISK";
/// Names the database to the child of the crash test.
const CRASH_PATH: &str = "STORE_CRASH_PATH";

fn open(path: &Path) -> SharedStore {
    Rc::new(SqliteStore::open(path).unwrap())
}

#[test]
fn keeps_the_contract() {
    let home = tempfile::tempdir().unwrap();
    block_on(contract::holds(open(&home.path().join("data/chat.db"))));
}

#[test]
fn orders_the_messages_of_many_threads() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&home.path().join("chat.db")).unwrap();
    contract::many_writers(8, 40, &store);
}

#[test]
fn knows_keys_and_numbers_again_after_opening_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("chat.db");
    let first = block_on(open(&path).append(keyed("r", "ann", "k"))).unwrap();
    let store = open(&path);
    let again = block_on(store.append(keyed("r", "ann", "k"))).unwrap();
    assert_eq!((again.fresh, again.message), (false, first.message));
    assert_eq!(
        block_on(store.append(draft("r", "ann", "next")))
            .unwrap()
            .message
            .seq,
        2
    );
    assert_eq!(block_on(store.heads(vec!["r".into()])).unwrap(), [2]);
}

#[test]
fn a_page_costs_the_same_at_any_depth() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home.path().join("chat.db"));
    let sends = (0..4_000).map(|_| store.append(draft("deep", "ann", "some text")));
    for sent in block_on(futures_util::future::join_all(sends)) {
        sent.unwrap();
    }
    let best = |cursor| {
        let time = |_| {
            let begun = std::time::Instant::now();
            block_on(store.history("deep", cursor, 50)).unwrap();
            begun.elapsed()
        };
        (0..50).map(time).min().unwrap()
    };
    let (near, far) = (best(Cursor::Before(4_000)), best(Cursor::Before(60)));
    assert!(
        far < near * 5 && near < far * 5,
        "near {near:?}, far {far:?}"
    );
}

/// Not a test: what the crash test starts in a process of its own, and kills.
#[test]
#[ignore = "the child of survives_kill_9"]
fn crash_child() {
    let Ok(path) = std::env::var(CRASH_PATH) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&path)).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for n in 0.. {
                    let content = format!("{thread}-{n}");
                    let room = ["a", "b"][n % 2];
                    let stored = block_on(store.append(draft(room, "ann", &content))).unwrap();
                    // One write, so that the parent reads whole lines or none.
                    let line = format!("acked {room} {} {content}\n", stored.message.seq);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn survives_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("chat.db");
    let mut acked: BTreeMap<(String, u64), String> = BTreeMap::new();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::crash_child", "--ignored", "--nocapture"])
            .env(CRASH_PATH, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: String| {
            let Some(rest) = line.strip_prefix("acked ") else {
                return;
            };
            let words: Vec<&str> = rest.split(' ').collect();
            let [room, seq, content] = words[..] else {
                return;
            };
            acked.insert((room.to_owned(), seq.parse().unwrap()), content.to_owned());
        };
        lines
            .by_ref()
            .map_while(Result::ok)
            .take(150 * round)
            .for_each(&mut note);
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(&mut note);

        let store = open(&path);
        for room in ["a", "b"] {
            let kept = block_on(contract::all(&*store, room));
            contract::assert_dense(&kept);
            for ((_, seq), content) in acked.iter().filter(|((of, _), _)| of == room) {
                let index = usize::try_from(*seq).unwrap() - 1;
                assert_eq!(&*kept[index].content, content, "acked and lost or changed");
            }
        }
    }
    assert!(acked.len() >= 400, "the children stored something");
}

/// Not a test: what the test of the full disk starts on a disk of 4 MiB.
#[test]
#[ignore = "the child of takes_messages_again_once_a_full_disk_has_space"]
fn full_disk_child() {
    let Ok(home) = std::env::var(SMALL_DISK) else {
        return;
    };
    let path = Path::new(&home).join("chat.db");
    let ballast = Path::new(&home).join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = open(&path);
    let text = |n: usize| format!("{n}-{}", "x".repeat(20_000));
    let mut acked = Vec::new();
    let mut refused = 0;
    for n in 0.. {
        match block_on(store.append(draft("r", "ann", &text(n)))) {
            Ok(stored) => acked.push(stored.message),
            Err(StoreError::Unavailable(_)) => refused += 1,
            Err(StoreError::Timeout) => panic!("a full disk is no unknown outcome"),
        }
        assert!(n < 1_000, "the disk is never full");
        if refused == 20 {
            break;
        }
    }
    assert!(matches!(store.condition(), Condition::Degraded(reason) if reason.contains("full")));
    assert_eq!(block_on(contract::all(&*store, "r")), acked, "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    let begun = std::time::Instant::now();
    acked.push(
        block_on(store.append(draft("r", "ann", &text(0))))
            .unwrap()
            .message,
    );
    assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    assert_eq!(store.condition(), Condition::Ok);
    contract::assert_dense(&acked);
    drop(store);
    assert_eq!(
        block_on(contract::all(&*open(&path), "r")),
        acked,
        "what was refused is not kept"
    );
}

#[test]
fn takes_messages_again_once_a_full_disk_has_space() {
    let home = tempfile::tempdir().unwrap();
    // In a mount namespace of its own, so that neither a privilege nor cleaning up is needed.
    let script = r#"mount -t tmpfs -o size=4m none "$STORE_SMALL_DISK" && exec "$@""#;
    let child = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::full_disk_child", "--ignored"])
        .env(SMALL_DISK, home.path())
        .output()
        .expect("unshare, of util-linux, is installed");
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}
