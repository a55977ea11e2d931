use proptest::prelude::*;

use super::*;

/// A room of which `head` is known.
fn room(now: Instant, head: u64) -> RoomOrder<u64> {
    let mut order = RoomOrder::new(now);
    assert!(order.open(now, Some(head)).is_empty());
    order
}

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn passes_on_what_comes_in_order_and_drops_repeats() {
    let now = Instant::now();
    let mut order = room(now, 4);
    assert_eq!(order.receive(now, 5, 5), [5]);
    assert_eq!(order.receive(now, 6, 6), [6]);
    assert!(order.receive(now, 5, 5).is_empty());
    assert!(order.receive(now, 3, 3).is_empty());
    assert_eq!(order.take_counts().duplicates, 2);
    assert_eq!(order.next_timeout(), None);
}

#[test]
fn holds_what_overtook_its_predecessor() {
    let now = Instant::now();
    let mut order = room(now, 0);
    assert!(order.receive(now, 2, 2).is_empty());
    assert!(order.receive(now, 3, 3).is_empty());
    assert_eq!(order.poll_repair(at(now, 49)), None);
    assert_eq!(order.receive(at(now, 49), 1, 1), [1, 2, 3]);
    assert_eq!(order.next_timeout(), None);
    assert_eq!(order.poll_repair(at(now, 100)), None);
}

#[test]
fn asks_for_what_is_missing_after_a_moment() {
    let now = Instant::now();
    let mut order = room(now, 0);
    order.receive(now, 1, 1);
    assert!(order.receive(now, 4, 4).is_empty());
    assert_eq!(order.next_timeout(), Some(at(now, 50)));
    assert_eq!(order.poll_repair(at(now, 50)), Some(1));
    assert_eq!(order.poll_repair(at(now, 51)), None, "it asks once");
    let answer = Some(vec![(2, 2), (3, 3), (4, 4)]);
    assert_eq!(order.repaired(at(now, 60), answer), [2, 3, 4]);
    assert!(order.receive(at(now, 61), 2, 2).is_empty());
    assert_eq!(order.next_timeout(), None);
}

#[test]
fn asks_at_once_for_what_is_not_on_its_way() {
    let now = Instant::now();
    let mut order = room(now, 0);
    order.hurry(now);
    assert_eq!(order.next_timeout(), None, "nothing is missing");
    order.receive(now, 2, 2);
    assert_eq!(order.poll_repair(now), None);
    order.hurry(now);
    assert_eq!(order.poll_repair(now), Some(0));
}

#[test]
fn asks_page_by_page_without_a_pause() {
    let now = Instant::now();
    let mut order = room(now, 0);
    order.notice(now, 5);
    assert_eq!(order.poll_repair(now), Some(0), "a notice needs no wait");
    assert_eq!(order.repaired(now, Some(vec![(1, 1), (2, 2)])), [1, 2]);
    assert_eq!(order.poll_repair(now), Some(2));
    assert_eq!(
        order.repaired(now, Some(vec![(3, 3), (4, 4), (5, 5)])),
        [3, 4, 5]
    );
    assert_eq!(order.poll_repair(now), None);
}

#[test]
fn leaves_a_visible_gap_when_the_store_stays_silent() {
    let now = Instant::now();
    let mut order = room(now, 0);
    order.receive(now, 3, 3);
    order.receive(now, 4, 4);
    let asked = at(now, 50);
    assert_eq!(order.poll_repair(asked), Some(0));
    assert!(order.repaired(asked, None).is_empty());
    assert_eq!(order.next_timeout(), Some(asked + RETRY));
    assert_eq!(order.poll_repair(asked + RETRY), Some(0));
    // This one is never answered.
    assert_eq!(order.next_timeout(), Some(asked + SILENCE));
    assert!(order.handle_timeout(asked + RETRY).is_empty());
    assert_eq!(order.handle_timeout(asked + SILENCE), [3, 4]);
    assert_eq!(order.take_counts().gaps, 1);
    assert!(
        order.receive(asked + SILENCE, 2, 2).is_empty(),
        "never a swap"
    );
    let late = Some(vec![(1, 1), (2, 2), (3, 3)]);
    assert!(order.repaired(asked + SILENCE, late).is_empty());
    assert_eq!(order.next_timeout(), None);
}

#[test]
fn asks_for_the_newest_until_the_store_answers() {
    let now = Instant::now();
    let mut order = room(now, 1);
    order.notice(now, 3);
    assert_eq!(order.poll_repair(now), Some(1));
    assert_eq!(order.next_timeout(), Some(now + SILENCE));
    let later = now + SILENCE;
    assert!(order.handle_timeout(later).is_empty());
    assert_eq!(order.poll_repair(later), Some(1), "it is asked again");
    assert_eq!(order.take_counts().gaps, 0);
    assert_eq!(order.repaired(later, Some(vec![(2, 2), (3, 3)])), [2, 3]);
    assert!(!order.lacks(3));
}

#[test]
fn holds_a_bounded_number_and_reads_the_rest() {
    let now = Instant::now();
    let mut order = room(now, 0);
    let last = HELD_MAX as u64 + 10;
    for seq in 2..=last {
        assert!(order.receive(now, seq, seq).is_empty());
    }
    assert_eq!(order.held.len(), HELD_MAX);
    assert_eq!(
        order.poll_repair(now),
        Some(0),
        "it is asked before the time"
    );
    let ready = order.repaired(now, Some(vec![(1, 1)]));
    assert_eq!(ready.len(), HELD_MAX + 1);
    assert_eq!(order.poll_repair(now), Some(HELD_MAX as u64 + 1));
}

#[test]
fn holds_everything_until_the_head_is_known() {
    let now = Instant::now();
    let mut order = RoomOrder::new(now);
    for seq in [6, 5, 8, 4] {
        assert!(order.receive(now, seq, seq).is_empty());
    }
    assert_eq!(order.open(now, Some(5)), [6]);
    assert_eq!(order.delivered(), Some(6));
    assert_eq!(order.poll_repair(at(now, 50)), Some(6));
}

#[test]
fn begins_with_the_first_broadcast_when_the_head_stays_unknown() {
    let now = Instant::now();
    let mut order = RoomOrder::new(now);
    assert!(order.receive(now, 8, 8).is_empty());
    assert!(order.receive(now, 7, 7).is_empty());
    assert_eq!(order.next_timeout(), Some(now + SILENCE));
    assert_eq!(order.handle_timeout(now + SILENCE), [7, 8]);
    assert!(order.open(now + SILENCE, Some(20)).is_empty(), "too late");
    assert_eq!(order.receive(now + SILENCE, 9, 9), [9]);
}

#[test]
fn a_number_that_the_store_does_not_have_is_forgotten() {
    let now = Instant::now();
    let mut order = room(now, 3);
    order.notice(now, 1 << 60);
    assert_eq!(order.poll_repair(now), Some(3));
    assert!(order.repaired(now, Some(Vec::new())).is_empty());
    assert_eq!(order.next_timeout(), None, "nothing is missing");
    assert_eq!(order.receive(now, 4, 4), [4]);
    assert!(order.receive(now, 1 << 60, 5).is_empty());
    assert_eq!(order.poll_repair(at(now, 50)), Some(4));
    // What came after the question may be stored.
    assert!(order.receive(now, 6, 6).is_empty());
    assert!(order.repaired(at(now, 50), Some(Vec::new())).is_empty());
    assert_eq!(order.receive(now, 5, 5), [5, 6]);
    assert_eq!(order.poll_repair(at(now, 300)), Some(6));
    assert!(order.repaired(at(now, 300), Some(Vec::new())).is_empty());
    assert_eq!(order.receive(now, 7, 7), [7]);
    assert_eq!(order.take_counts().bogus, 2);
}

#[test]
fn no_number_is_too_great_to_be_counted_on() {
    let now = Instant::now();
    let mut order = room(now, 3);
    order.notice(now, u64::MAX);
    assert!(order.receive(now, u64::MAX, 1).is_empty());
    assert_eq!(order.next_timeout(), None);
    assert_eq!(order.receive(now, 4, 4), [4]);
    let mut unknown = RoomOrder::new(now);
    assert!(unknown.open(now, None).is_empty());
    assert!(unknown.receive(now, u64::MAX, 1).is_empty());
    assert_eq!(unknown.receive(now, 7, 7), [7]);
}

#[test]
fn a_store_that_answers_is_not_silent_however_much_is_made_up() {
    let now = Instant::now();
    let mut order = room(now, 3);
    let mut made_up = 1 << 50;
    for ms in (0..10_000).step_by(100) {
        assert!(order.receive(at(now, ms), made_up, 0).is_empty());
        if order.poll_repair(at(now, ms)).is_some() {
            // Meanwhile another comes.
            assert!(order.receive(at(now, ms), made_up + 1, 0).is_empty());
            assert!(order.repaired(at(now, ms), Some(Vec::new())).is_empty());
        }
        assert!(order.handle_timeout(at(now, ms)).is_empty());
        made_up += 10;
    }
    assert_eq!(order.receive(at(now, 10_000), 4, 4), [4]);
}

#[test]
fn goes_back_from_a_number_that_was_made_up_while_the_store_was_silent() {
    let now = Instant::now();
    let mut order = room(now, 3);
    assert!(order.receive(now, 1 << 50, 0).is_empty());
    assert_eq!(order.poll_repair(at(now, 50)), Some(3));
    let late = at(now, 50) + SILENCE;
    assert_eq!(order.handle_timeout(late), [0], "nobody can tell yet");
    assert_eq!(order.take_counts().doubts, 1);
    order.compare(late, order.delivered(), 5);
    assert_eq!(order.poll_repair(late), Some(3));
    let stored = Some(vec![(4, 4), (5, 5)]);
    assert_eq!(order.repaired(late, stored), [4, 5]);
    assert_eq!(order.receive(late, 6, 6), [6]);
    order.compare(late, Some(4), 5);
    assert_eq!(order.receive(late, 7, 7), [7], "an older answer");
}

#[test]
fn stays_where_it_is_when_the_store_vouches_for_it() {
    let now = Instant::now();
    let mut order = RoomOrder::new(now);
    assert!(order.open(now, None).is_empty());
    assert_eq!(order.receive(now, 8, 8), [8]);
    assert_eq!(order.take_counts().doubts, 1);
    order.compare(now, Some(8), 8);
    assert!(order.receive(now, 8, 8).is_empty());
    order.compare(now, Some(8), 7);
    assert_eq!(order.delivered(), Some(8), "it is in no doubt any more");
}

proptest! {
    /// Whatever is lost, repeated or swapped on the way: everything is delivered once, in order.
    #[test]
    fn delivers_everything_once_in_order(
        arrivals in proptest::collection::vec((1u64..30, 0u64..40), 0..80),
        head in 0u64..10,
        page in 1usize..7,
    ) {
        let mut now = Instant::now();
        let mut order = RoomOrder::new(now);
        let mut got = order.open(now, Some(head));
        let mut newest = head;
        let settle = |order: &mut RoomOrder<u64>, now: Instant, newest: u64, got: &mut Vec<u64>| {
            while let Some(after) = order.poll_repair(now) {
                let items = (after + 1..=newest).take(page).map(|seq| (seq, seq)).collect();
                got.extend(order.repaired(now, Some(items)));
            }
            got.extend(order.handle_timeout(now));
        };
        for (seq, ms) in arrivals {
            now = at(now, ms);
            newest = newest.max(seq);
            got.extend(order.receive(now, seq, seq));
            settle(&mut order, now, newest, &mut got);
        }
        now += HOLD;
        order.notice(now, newest);
        settle(&mut order, now, newest, &mut got);
        prop_assert_eq!(got, (head + 1..=newest).collect::<Vec<_>>());
        prop_assert_eq!(order.next_timeout(), None);
    }
}
