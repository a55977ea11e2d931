//! What waits for a store has a bound: one more is refused at once, and surely not stored.

use std::time::Instant;

use futures_lite::future::{block_on, poll_once};
use futures_util::future::{LocalBoxFuture, join_all};
use metrics_exporter_prometheus::PrometheusBuilder;
use project_yum::store::postgres::{self, PostgresStore, Target};
use project_yum::store::sqlite::{self, SqliteStore};
use project_yum::store::{Cursor, MessageRef, Page, Store, StoreError, Stored, Written};

use crate::contract::draft;

type Answer<T> = LocalBoxFuture<'static, Result<T, StoreError>>;

fn form(text: &mut Vec<u8>, message: &MessageRef<'_>) {
    text.extend_from_slice(message.content.as_bytes());
}

/// Asks until it is refused at once; returns what waits then.
fn until_refused<T>(ask: impl Fn() -> Answer<T>) -> Vec<Answer<T>> {
    let mut waiting = Vec::new();
    loop {
        let mut asked = ask();
        match block_on(poll_once(&mut asked)) {
            Some(Err(StoreError::Unavailable(_))) => return waiting,
            Some(Err(StoreError::Timeout)) => panic!("what is refused is not in doubt"),
            // The store was quicker.
            Some(Ok(_)) => {}
            None => waiting.push(asked),
        }
        assert!(waiting.len() < 100_000, "there is no bound");
    }
}

#[test]
fn sqlite_refuses_more_than_may_wait_and_keeps_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("chat.db");
    let store = SqliteStore::open(&path).unwrap();
    // Somebody else writes: ours waits, with one batch in its hands.
    let other = rusqlite::Connection::open(&path).unwrap();
    let blocked = |room: &str, content: &str| {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let waiting = until_refused(|| store.append(draft(room, "ann", content)));
        other.execute_batch("COMMIT").unwrap();
        let count = waiting.len();
        for stored in block_on(join_all(waiting)) {
            stored.unwrap();
        }
        let heads = block_on(store.heads(vec![room.into()])).unwrap();
        assert_eq!(heads, [count as u64], "what was refused is not stored");
        count
    };
    let few = sqlite::WRITES_WAITING_MAX;
    let count = blocked("small", "x");
    assert!((few..=few + 512).contains(&count), "{count}");
    let content = "x".repeat(60_000);
    let weight = draft("large", "ann", &content).weight();
    assert_eq!(blocked("large", &content), sqlite::WRITE_BYTES_MAX / weight);

    let pages: Vec<Answer<Page>> =
        until_refused(|| store.history("small", Cursor::Before(4_000), 100));
    assert!(pages.len() >= sqlite::READS_WAITING_MAX);
    for page in block_on(join_all(pages)) {
        assert_eq!(page.unwrap().messages.len(), 100);
    }
}

#[test]
fn sqlite_refuses_what_another_program_keeps_it_from_storing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("chat.db");
    let recorder = PrometheusBuilder::new().build_recorder();
    let opened = metrics::with_local_recorder(&recorder, || SqliteStore::open(&path));
    let store = opened.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let refused = block_on(store.append(draft("r", "ann", "x")));
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let waited = begun.elapsed();
    assert!((1_900..4_000).contains(&waited.as_millis()), "{waited:?}");
    let scrape = recorder.handle().render();
    let counted = "yum_store_refused_total{reason=\"failed\"} 1";
    assert!(scrape.contains(counted), "{scrape}");
    other.execute_batch("COMMIT").unwrap();
    let stored = block_on(store.append(draft("r", "ann", "x"))).unwrap();
    assert_eq!(stored.message.seq, 1);
}

#[test]
fn pages_of_history_hold_up_no_join() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&home.path().join("chat.db")).unwrap();
    let content = "x".repeat(60_000);
    let appends = (0..20).map(|_| store.append(draft("r", "ann", &content)));
    for stored in block_on(join_all(appends)) {
        stored.unwrap();
    }
    let page = || store.history_written("r", Cursor::After(0), 100, form);
    let mut pages: Vec<Answer<Written>> = (0..200).map(|_| page()).collect();
    let heads = store.heads(vec!["r".into()]);
    let missed = store.history("r", Cursor::After(19), 100);
    assert_eq!(block_on(heads).unwrap(), [20]);
    assert_eq!(block_on(missed).unwrap().messages.len(), 1);
    let mut ready = 0;
    for page in &mut pages {
        ready += usize::from(block_on(poll_once(page)).is_some());
    }
    assert!(ready < 100, "{ready} pages were read before");
}

/// Nobody sits at the database's side: all that is asked waits.
#[test]
fn postgres_refuses_more_than_may_wait_of_a_shard() {
    let target = Target::parse("postgres://ann@h/x").unwrap();
    let (store, seats) = PostgresStore::new(target, 2).unwrap();
    let second = store.handle();
    let appends = |store: &PostgresStore, content: &str| -> Vec<Answer<Stored>> {
        until_refused(|| store.append(draft("r", "ann", content)))
    };
    let waiting = appends(&store, "x");
    assert_eq!(waiting.len(), postgres::WRITES_WAITING_MAX);
    let others = appends(&second, "x");
    assert_eq!(others.len(), postgres::WRITES_WAITING_MAX);
    let pages = until_refused(|| store.history("r", Cursor::Newest, 1));
    assert_eq!(pages.len(), postgres::READS_WAITING_MAX);
    let above = block_on(poll_once(&mut store.history_written(
        "r",
        Cursor::After(0),
        1,
        form,
    )));
    assert!(matches!(above, Some(Err(_))), "it is a page too");
    let repairs = until_refused(|| store.heads(vec!["r".into()]));
    assert_eq!(repairs.len(), postgres::READS_WAITING_MAX);
    drop(seats);
}
