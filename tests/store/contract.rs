//! What every store must do. Each case uses rooms of its own, so that one store serves them all.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_lite::future::block_on;
use futures_util::future::join_all;
use project_yum::store::{
    Cursor, Draft, Message, MessageRef, PAGE_BYTES_MAX, Page, SharedStore, Store, StoreError,
    Stored, Written,
};

/// A draft of one minute after another, so that time is worth looking at.
pub(crate) fn draft(room: &str, user: &str, content: &str) -> Draft {
    Draft {
        room: room.into(),
        user: user.into(),
        content: content.into(),
        client_msg_id: None,
        id: uuid::Uuid::now_v7(),
        wall_ms: 1_767_225_600_000,
    }
}

/// A draft with a key against duplicates.
pub(crate) fn keyed(room: &str, user: &str, key: &str) -> Draft {
    Draft {
        client_msg_id: Some(key.into()),
        ..draft(room, user, "hello")
    }
}

/// All messages of a room, read page by page.
pub(crate) async fn all(store: &dyn Store, room: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let after = messages.last().map_or(0, |last: &Message| last.seq);
        let page = store
            .history(room, Cursor::After(after), 100)
            .await
            .unwrap();
        messages.extend(page.messages);
        if !page.has_more {
            return messages;
        }
    }
}

/// Asserts that the numbers are 1, 2, 3, … and that no time is before the one above it.
pub(crate) fn assert_dense(messages: &[Message]) {
    for (message, expected) in messages.iter().zip(1..) {
        assert_eq!(message.seq, expected, "numbers are dense from 1");
    }
    assert!(
        messages.is_sorted_by_key(|message| message.wall_ms),
        "time goes back"
    );
}

/// Runs every case.
pub(crate) async fn holds(store: SharedStore) {
    numbers_each_room_from_one(&store).await;
    gives_messages_sent_together_one_order(&store).await;
    knows_a_key_again(&store).await;
    stores_a_key_sent_many_times_at_once_only_once(&store).await;
    keeps_time_from_going_back(&store).await;
    pages_like_the_list_of_all(&store).await;
    ends_a_page_of_large_messages_early(&store).await;
    tells_the_heads_in_the_order_asked(&store).await;
    keeps_text_byte_for_byte(&store).await;
    assert_eq!(store.condition(), project_yum::store::Condition::Ok);
}

async fn numbers_each_room_from_one(store: &SharedStore) {
    for expected in 1..=3 {
        for room in ["number-a", "number-b"] {
            let draft = draft(room, "ann", "hello");
            let stored = store.append(draft.clone()).await.unwrap();
            assert!(stored.fresh);
            assert_eq!(
                stored.message,
                draft.clone().numbered(expected, draft.wall_ms)
            );
        }
    }
    assert_dense(&all(&**store, "number-a").await);
}

async fn gives_messages_sent_together_one_order(store: &SharedStore) {
    let sends =
        (0..300).map(|n| store.append(draft(["a", "b", "c"][n % 3], "ann", &n.to_string())));
    let answers: Result<Vec<Stored>, StoreError> = join_all(sends).await.into_iter().collect();
    let mut acked: BTreeMap<Box<str>, Vec<Message>> = BTreeMap::new();
    for stored in answers.unwrap() {
        acked
            .entry(stored.message.room.clone())
            .or_default()
            .push(stored.message);
    }
    for (room, messages) in acked {
        // One sender's messages are numbered in the order of sending, and history says the same.
        assert_dense(&messages);
        assert_eq!(all(&**store, &room).await, messages);
    }
}

async fn knows_a_key_again(store: &SharedStore) {
    let first = store.append(keyed("keys", "ann", "k")).await.unwrap();
    let again = store
        .append(Draft {
            wall_ms: 9,
            ..keyed("keys", "ann", "k")
        })
        .await
        .unwrap();
    assert_eq!(
        again,
        Stored {
            fresh: false,
            ..first
        }
    );
    for other in [
        keyed("keys", "bob", "k"),
        keyed("keys", "ann", "K"),
        keyed("keys-2", "ann", "k"),
    ] {
        assert!(
            store.append(other).await.unwrap().fresh,
            "another user, key or room is another message"
        );
    }
    assert_dense(&all(&**store, "keys").await);
    assert_eq!(
        all(&**store, "keys").await.len(),
        3,
        "a repeated key burns no number"
    );
}

async fn stores_a_key_sent_many_times_at_once_only_once(store: &SharedStore) {
    let sends = (0..50).map(|n| store.append(keyed("storm", "ann", ["k", "l"][n % 2])));
    let answers = join_all(sends).await;
    let stored: Vec<Stored> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(stored.iter().filter(|stored| stored.fresh).count(), 2);
    for same in stored.chunks(2).collect::<Vec<_>>().windows(2) {
        assert_eq!(same[0][0].message, same[1][0].message);
        assert_eq!(same[0][1].message, same[1][1].message);
    }
    assert_eq!(all(&**store, "storm").await.len(), 2);
}

async fn keeps_time_from_going_back(store: &SharedStore) {
    let mut times = Vec::new();
    for wall_ms in [5_000, 3_000, 6_000, 1] {
        let draft = Draft {
            wall_ms,
            ..draft("clock", "ann", "tick")
        };
        times.push(store.append(draft).await.unwrap().message.wall_ms);
    }
    assert_eq!(times, [5_000, 5_000, 6_000, 6_000]);
    let kept: Vec<u64> = all(&**store, "clock")
        .await
        .iter()
        .map(|message| message.wall_ms)
        .collect();
    assert_eq!(kept, times, "what is acked is what is kept");
}

/// What the page must be, from the list of all messages.
fn page_of(all: &[Message], cursor: Cursor, limit: usize) -> Page {
    let wanted = |message: &&Message| match cursor {
        Cursor::Newest => true,
        Cursor::Before(seq) => message.seq < seq,
        Cursor::After(seq) => message.seq > seq,
    };
    let mut messages: Vec<Message> = all.iter().filter(wanted).cloned().collect();
    let has_more = messages.len() > limit;
    match cursor {
        Cursor::After(_) => messages.truncate(limit),
        _ => drop(messages.drain(..messages.len().saturating_sub(limit))),
    }
    Page { messages, has_more }
}

/// A form of messages that tells all their parts apart.
fn form(text: &mut Vec<u8>, message: &MessageRef<'_>) {
    text.extend_from_slice(format!("{message:?}").as_bytes());
}

/// The numbers of a room's messages, page by page, with the bytes of each page.
async fn walk(store: &SharedStore, room: &str, up: bool, written: bool) -> Vec<(Vec<u64>, usize)> {
    let (mut pages, mut cursor) = (Vec::new(), Cursor::Newest);
    if up {
        cursor = Cursor::After(0);
    }
    loop {
        let (seqs, bytes, has_more) = if written {
            let page = store.history_written(room, cursor, 100, form).await;
            let page = page.unwrap();
            let (first, last) = page.span.expect("a page has a message");
            ((first..=last).collect(), page.text.len(), page.has_more)
        } else {
            let page = store.history(room, cursor, 100).await.unwrap();
            let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
            let bytes = page.messages.iter().map(|message| message.content.len());
            (seqs, bytes.sum(), page.has_more)
        };
        let (first, last) = (seqs[0], seqs[seqs.len() - 1]);
        cursor = if up {
            Cursor::After(last)
        } else {
            Cursor::Before(first)
        };
        pages.push((seqs, bytes));
        if !has_more {
            return pages;
        }
    }
}

async fn ends_a_page_of_large_messages_early(store: &SharedStore) {
    // As text they are five times as large.
    let large = "\u{1}".repeat(60_000);
    join_all((0..40).map(|_| store.append(draft("large", "ann", &large)))).await;
    let huge = "x".repeat(PAGE_BYTES_MAX + 1);
    for content in ["small", &huge, "small"] {
        store.append(draft("huge", "ann", content)).await.unwrap();
    }
    for (up, written) in [(true, true), (true, false), (false, true), (false, false)] {
        let pages = walk(store, "large", up, written).await;
        let all: Vec<u64> = if up {
            pages.iter().flat_map(|(seqs, _)| seqs.clone()).collect()
        } else {
            pages
                .iter()
                .rev()
                .flat_map(|(seqs, _)| seqs.clone())
                .collect()
        };
        assert_eq!(all, (1..=40).collect::<Vec<u64>>(), "without a gap");
        assert!(pages.iter().all(|(_, bytes)| *bytes <= PAGE_BYTES_MAX));
        let count = if written { 14 } else { 3 };
        assert_eq!(pages.len(), count, "no page is shorter than it must be");
        let pages = walk(store, "huge", up, written).await;
        let counts: Vec<usize> = pages.iter().map(|(seqs, _)| seqs.len()).collect();
        assert_eq!(counts, [1, 1, 1]);
    }
}

async fn pages_like_the_list_of_all(store: &SharedStore) {
    join_all((0..12).map(|n| store.append(draft("pages", "ann", &n.to_string())))).await;
    let all = all(&**store, "pages").await;
    assert_eq!(all.len(), 12);
    let seqs = [0, 1, 2, 6, 11, 12, 13, 1 << 40, u64::MAX];
    let cursors = seqs
        .iter()
        .flat_map(|seq| [Cursor::Before(*seq), Cursor::After(*seq)]);
    for cursor in cursors.chain([Cursor::Newest]) {
        for limit in [1, 5, 11, 12, 13, 500] {
            let page = store.history("pages", cursor, limit).await.unwrap();
            assert_eq!(
                page,
                page_of(&all, cursor, limit),
                "{cursor:?}, limit {limit}"
            );
            let written = store.history_written("pages", cursor, limit, form).await;
            assert_eq!(
                written,
                Ok(Written::of(&page, cursor, form)),
                "{cursor:?}, limit {limit}"
            );
        }
        let page = store.history("no such room", cursor, 5).await.unwrap();
        assert_eq!(
            page,
            Page::default(),
            "{cursor:?} in a room without messages"
        );
    }
}

async fn tells_the_heads_in_the_order_asked(store: &SharedStore) {
    for (room, count) in [("heads-a", 1), ("heads-b", 2)] {
        for _ in 0..count {
            store.append(draft(room, "ann", "hello")).await.unwrap();
        }
    }
    let rooms = ["heads-b", "none", "heads-a", "heads-b"]
        .map(Into::into)
        .to_vec();
    assert_eq!(store.heads(rooms).await.unwrap(), [2, 0, 1, 2]);
    assert!(store.heads(Vec::new()).await.unwrap().is_empty());
    let many: Vec<Box<str>> = (0..1_000).map(|n| format!("none-{n}").into()).collect();
    assert_eq!(store.heads(many).await.unwrap(), vec![0; 1_000]);
}

async fn keeps_text_byte_for_byte(store: &SharedStore) {
    let long = "ä".repeat(32_768);
    let texts = [
        "<b>'; DROP TABLE messages; --</b>",
        "\u{202e}bidi\u{202c}",
        "a\u{1e}b\r\n\t",
        "👩‍👩‍👧",
        "{\"a\":1}",
        "\\x41 \\000 $1 %s {} NULL",
        "e\u{301} is not é",
        " blank ends ",
        "\u{1}\u{7f}\u{feff}\u{ffff}",
        &long,
    ];
    for text in texts {
        let key: String = text.chars().take(16).collect();
        let draft = Draft {
            client_msg_id: Some(key.into()),
            ..draft("bytes", "Ünï 'q' \\", text)
        };
        let stored = store.append(draft.clone()).await.unwrap();
        assert!(stored.fresh, "{text}");
        let kept = store.history("bytes", Cursor::Newest, 1).await.unwrap();
        assert_eq!(kept.messages.first(), Some(&stored.message));
        let wall_ms = draft.wall_ms;
        assert_eq!(stored.message, draft.numbered(stored.message.seq, wall_ms));
    }
    // Names are compared byte for byte and are never patterns.
    let wide = "r".repeat(128);
    for room in [
        "Name", "name", "name ", "nam_", "%", "{a,b}", "e\u{301}", "é", &wide,
    ] {
        let stored = store.append(draft(room, "ann", "x")).await.unwrap();
        assert_eq!(stored.message.seq, 1, "{room} is a room of its own");
    }
}

/// Writers in threads of their own, each with a clone of the store and two keys a room: dense, once,
/// and history says what was acked.
pub(crate) fn many_writers<S: Store + Clone + Send + 'static>(
    threads: usize,
    rounds: usize,
    store: &S,
) {
    const ROOMS: [&str; 3] = ["many-a", "many-b", "many-c"];
    let writers = (0..threads).map(|thread| {
        let store = store.clone();
        std::thread::spawn(move || {
            let user = format!("user-{thread}");
            let mut acked = Vec::new();
            for round in 0..rounds {
                let sends = ROOMS.iter().flat_map(|room| {
                    let key = format!("key-{round}");
                    // The second is the same send again; and one key is every thread's.
                    let own = keyed(room, &user, &key);
                    [own.clone(), own, keyed(room, "shared", &key)]
                });
                let answers = join_all(sends.map(|draft| store.append(draft)));
                acked.extend(block_on(answers).into_iter().map(Result::unwrap));
            }
            acked
        })
    });
    let writers: Vec<_> = writers.collect();
    let acked: Vec<Stored> = writers
        .into_iter()
        .flat_map(|writer| writer.join().unwrap())
        .collect();
    let store: Rc<dyn Store> = Rc::new(store.clone());
    for room in ROOMS {
        let kept = block_on(all(&*store, room));
        assert_dense(&kept);
        assert_eq!(kept.len(), threads * rounds + rounds, "each key once");
        for stored in acked.iter().filter(|stored| &*stored.message.room == room) {
            let index = usize::try_from(stored.message.seq).unwrap() - 1;
            assert_eq!(
                stored.message, kept[index],
                "what was acked is what is kept"
            );
        }
    }
    let fresh = acked.iter().filter(|stored| stored.fresh).count();
    assert_eq!(fresh, ROOMS.len() * (threads * rounds + rounds));
}
