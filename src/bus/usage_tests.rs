//! What users have used up, in one thread; `tests/model` has several.

use std::time::{Duration, Instant};

use super::directory::lock;
use super::usage::{ABSENT_MAX, MessageRate, PARTS, REFUSALS_WINDOW, Usages};
use crate::limit::Rate;

impl Usages {
    fn count(&self) -> usize {
        self.parts.iter().map(|part| lock(part).users.len()).sum()
    }
}

const LIMIT: MessageRate = MessageRate {
    rate: Rate::UNLIMITED,
    joins: Rate::UNLIMITED,
    refusals_max: 5,
};

fn limit() -> MessageRate {
    MessageRate {
        rate: Rate::per_second(10, 2),
        ..LIMIT
    }
}

#[test]
fn sockets_of_one_user_share_and_other_users_do_not() {
    let (usages, now) = (Usages::default(), Instant::now());
    let (one, two, other) = (usages.arrive("a"), usages.arrive("a"), usages.arrive("b"));
    assert!(usages.take(&one, limit(), now).is_ok());
    assert!(usages.take(&two, limit(), now).is_ok());
    let wait = usages.take(&one, limit(), now);
    assert_eq!(wait, Err(Duration::from_millis(100)));
    assert!(usages.take(&other, limit(), now).is_ok());
    assert!(usages.take(&one, LIMIT, now).is_ok(), "no limit");
}

#[test]
fn an_absent_user_is_kept_until_the_bucket_is_full() {
    let (usages, now) = (Usages::default(), Instant::now());
    let one = usages.arrive("a");
    let _ = usages.arrive("a");
    assert!(usages.take(&one, limit(), now).is_ok());
    usages.leave("a", now);
    usages.leave("a", now);
    usages.leave("never came", now);
    assert_eq!(usages.count(), 1);
    let again = usages.arrive("a");
    assert!(usages.take(&again, limit(), now).is_ok());
    assert!(usages.take(&again, limit(), now).is_err(), "not refilled");
    usages.leave("a", now);
    usages.sweep(now + Duration::from_secs(1));
    assert_eq!(usages.count(), 1, "its refusals still count");
    usages.sweep(now + REFUSALS_WINDOW);
    assert_eq!(usages.count(), 0);
    assert!(usages.parts.iter().all(|part| lock(part).absent.is_empty()));
}

#[test]
fn who_is_there_is_not_swept_and_who_used_nothing_goes_at_once() {
    let (usages, now) = (Usages::default(), Instant::now());
    let _ = usages.arrive("stays");
    let _ = usages.arrive("quiet");
    usages.leave("quiet", now);
    assert_eq!(usages.count(), 1);
    usages.sweep(now + Duration::from_hours(1));
    assert_eq!(usages.count(), 1);
}

#[test]
fn joins_are_counted_apart_and_kept_for_who_comes_back() {
    let (usages, now) = (Usages::default(), Instant::now());
    let limit = MessageRate {
        joins: Rate::per_second(10, 2),
        ..LIMIT
    };
    let (one, two) = (usages.arrive("a"), usages.arrive("a"));
    assert!(usages.take_join(&one, limit, now).is_ok());
    assert!(usages.take_join(&two, limit, now).is_ok());
    let wait = usages.take_join(&one, limit, now);
    assert_eq!(wait, Err(Duration::from_millis(100)));
    assert!(usages.take(&one, limit, now).is_ok());
    assert!(usages.take_join(&one, LIMIT, now).is_ok(), "no limit");
    usages.leave("a", now);
    usages.leave("a", now);
    let again = usages.arrive("a");
    assert!(
        usages.take_join(&again, limit, now).is_err(),
        "not refilled"
    );
    usages.leave("a", now);
    usages.sweep(now + Duration::from_millis(200));
    assert_eq!(usages.count(), 0, "full again");
}

#[test]
fn absent_users_are_bounded() {
    let (usages, now) = (Usages::default(), Instant::now());
    let mut forgotten = 0;
    for number in 0..PARTS * ABSENT_MAX * 2 {
        let user = number.to_string();
        let usage = usages.arrive(&user);
        assert!(usages.take(&usage, limit(), now).is_ok());
        forgotten += usize::from(usages.leave(&user, now));
    }
    let most = PARTS * (ABSENT_MAX + 1);
    assert!(usages.count() <= most, "{} users", usages.count());
    assert_eq!(forgotten, 2 * PARTS * ABSENT_MAX - usages.count());
    usages.sweep(now + REFUSALS_WINDOW);
    assert_eq!(usages.count(), 0);
}

#[test]
fn too_many_refusals_cut_a_user_off_until_the_window_ends() {
    let (usages, now) = (Usages::default(), Instant::now());
    let usage = usages.arrive("a");
    let later = now + Duration::from_millis(50);
    let _ = usages.elapsed(now);
    for _ in 0..6 {
        let _ = usages.take(&usage, limit(), now);
        assert_eq!(usages.cut_off("a", limit(), later), None);
    }
    assert!(usages.take(&usage, limit(), later).is_err(), "the fifth");
    let left = Duration::from_millis(9_950);
    assert_eq!(usages.cut_off("a", limit(), later), Some(left));
    assert_eq!(usages.cut_off("a", LIMIT, later), None, "no limit");
    assert_eq!(usages.cut_off("b", limit(), later), None);
    let end = now + REFUSALS_WINDOW;
    assert_eq!(usages.cut_off("a", limit(), end), None);
    for _ in 0..3 {
        let _ = usages.take(&usage, limit(), end);
    }
    assert_eq!(usages.cut_off("a", limit(), end), None, "counted anew");
}
