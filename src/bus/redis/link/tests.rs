use proptest::prelude::*;

use super::*;

const HELLO: &[u8] = b"%1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n";

fn link(now: Instant) -> Link {
    let mut link = Link::new(Login::default(), now);
    link.connected(now);
    link.sent(link.output().len());
    link
}

fn receive(link: &mut Link, now: Instant, bytes: &[u8]) -> Result<Vec<Event>, LinkError> {
    let mut events = Vec::new();
    link.receive(now, bytes, &mut events)?;
    Ok(events)
}

fn up(now: Instant) -> Link {
    let mut link = link(now);
    assert_eq!(receive(&mut link, now, HELLO), Ok(vec![Event::Up]));
    link
}

fn output(link: &mut Link) -> String {
    let output = String::from_utf8_lossy(link.output()).into_owned();
    link.sent(output.len());
    output.replace("\r\n", " ")
}

#[test]
fn says_who_it_is_and_chooses_the_database() {
    let now = Instant::now();
    let login = Login {
        user: None,
        password: Some("p".into()),
        database: 3,
    };
    let mut link = Link::new(login, now);
    link.connected(now);
    let said = output(&mut link);
    assert!(said.contains("HELLO $1 3 $4 AUTH $7 default $1 p $7 SETNAME"));
    assert!(said.contains("SELECT $1 3"));
    assert_eq!(receive(&mut link, now, HELLO), Ok(vec![]));
    assert_eq!(receive(&mut link, now, b"+OK\r\n"), Ok(vec![Event::Up]));
}

#[test]
fn refuses_what_is_no_single_server() {
    for mode in ["cluster", "sentinel"] {
        let now = Instant::now();
        let hello = format!("%1\r\n$4\r\nmode\r\n${}\r\n{mode}\r\n", mode.len());
        let told = receive(&mut link(now), now, hello.as_bytes()).unwrap_err();
        assert!(told.to_string().to_lowercase().contains(mode), "{told}");
        assert!(told.to_string().contains("not supported yet"));
    }
    let (now, moved) = (Instant::now(), b"-MOVED 1 127.0.0.1:1\r\n");
    let told = receive(&mut link(now), now, moved);
    assert_eq!(told, Err(LinkError::Unsupported("Cluster")));
}

#[test]
fn asks_a_silent_redis_and_gives_it_up_when_it_owes_the_answer() {
    let now = Instant::now();
    let mut link = up(now);
    let at = |ms| now + Duration::from_millis(ms);
    assert_eq!(link.next_timeout(), Some(at(500)));
    assert_eq!(link.handle_timeout(at(499)), Ok(()));
    assert!(link.is_idle());
    assert_eq!(link.handle_timeout(at(500)), Ok(()));
    assert_eq!(output(&mut link), "*1 $4 PING ");
    assert!(!link.is_suspect(at(504)) && link.is_suspect(at(505)));
    assert_eq!(receive(&mut link, at(600), b"+PONG\r\n"), Ok(vec![]));
    assert!(!link.is_suspect(at(600)));
    assert_eq!(link.handle_timeout(at(1_100)), Ok(()));
    assert_eq!(link.handle_timeout(at(2_099)), Ok(()));
    assert_eq!(link.handle_timeout(at(2_100)), Err(LinkError::Silent));
}

#[test]
fn what_is_published_is_bounded_until_it_is_answered() {
    let now = Instant::now();
    let mut link = up(now);
    let message = vec![0; 1 << 20];
    for _ in 0..3 {
        assert!(link.publish(now, &["c"], &message, None));
    }
    assert!(
        !link.publish(now, &["c"], &message, None),
        "it would be more"
    );
    link.sent(link.output().len());
    assert!(
        !link.publish(now, &["c"], &message, None),
        "sent is not answered"
    );
    let answered = receive(&mut link, now, b":1\r\n").unwrap();
    assert_eq!(answered, [Event::RoundTrip(Duration::ZERO)]);
    assert!(link.publish(now, &["c"], &message, None));
    assert_eq!(link.lost().len(), 0);
    assert!(!link.publish(now, &["c"], b"x", None), "there is no link");
}

#[test]
fn so_many_subscriptions_are_under_way_and_the_next_wait() {
    let now = Instant::now();
    let mut link = up(now);
    let asked = |link: &mut Link| output(link).matches(" c").count();
    for channel in 0..UNCONFIRMED_MAX {
        assert!(!link.subscribe(now, &format!("c{channel}")));
    }
    assert_eq!(asked(&mut link), UNCONFIRMED_MAX);
    assert!(!link.take_crowded());
    for channel in UNCONFIRMED_MAX..2 * UNCONFIRMED_MAX {
        assert!(!link.subscribe(now, &format!("c{channel}")));
    }
    assert_eq!(asked(&mut link), 0);
    assert!(link.take_crowded() && !link.take_crowded());
    let confirmed = |channel: usize| {
        let name = format!("c{channel}");
        let length = name.len();
        format!(">3\r\n$9\r\nsubscribe\r\n${length}\r\n{name}\r\n:1\r\n")
    };
    let told = receive(&mut link, now, confirmed(0).as_bytes()).unwrap();
    assert_eq!(told, [Event::Confirmed("c0".into())]);
    assert_eq!(asked(&mut link), CHANNELS_AT_ONCE, "one command more");
    assert!(link.take_crowded());
    for channel in 1..2 * UNCONFIRMED_MAX {
        receive(&mut link, now, confirmed(channel).as_bytes()).unwrap();
        output(&mut link);
    }
    assert!(link.is_idle(), "all had their turn");
}

#[test]
fn the_memory_of_a_large_output_is_given_back() {
    let now = Instant::now();
    let mut link = up(now);
    assert!(link.publish(now, &["c"], &vec![0; 2 << 20], None));
    link.sent(1 << 20);
    link.sent(link.output().len());
    assert!(link.output.capacity() <= OUTPUT_KEPT);
}

#[test]
fn an_answer_may_be_larger_than_what_else_may_wait() {
    let now = Instant::now();
    let mut link = up(now);
    let answer = vec![0; 6 << 20];
    assert!(!link.publish(now, &["c"], &answer, None));
    assert!(link.respond(now, &["c"], &answer));
    assert!(link.respond(now, &["c"], &answer));
    assert!(link.publish(now, &["c"], b"x", None), "beside the answers");
    assert!(!link.respond(now, &["c"], &answer), "it would be more");
}

#[test]
fn a_reply_that_is_too_large_ends_it_before_it_has_come() {
    let now = Instant::now();
    let reply = |bytes: usize| {
        let mut link = up(now);
        receive(&mut link, now, format!("${bytes}\r\n").as_bytes())
    };
    assert_eq!(reply(REPLY_BYTES_MAX - 100), Ok(vec![]));
    let refused = Err(LinkError::Protocol(RespError::TooLarge));
    assert_eq!(reply(REPLY_BYTES_MAX + 1), refused);
}

#[test]
fn gives_back_what_was_not_answered() {
    let now = Instant::now();
    let mut link = up(now);
    for _ in 0..3 {
        assert!(link.publish(now, &["c"], b"x", Some(Parcel::AllHeads)));
    }
    receive(&mut link, now, b":0\r\n").unwrap();
    assert!(link.publish(now, &["c"], b"join", Some(Parcel::Command)));
    let lost = link.lost();
    assert!(matches!(
        lost[..],
        [Parcel::AllHeads, Parcel::AllHeads, Parcel::Command]
    ));
    assert_eq!(link.phase(), Phase::Down);
    assert!(link.is_idle());
}

#[test]
fn a_reply_that_answers_nothing_ends_it() {
    for reply in [
        &b":1\r\n"[..],
        b"+OK\r\n",
        b">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
    ] {
        let now = Instant::now();
        assert_eq!(
            receive(&mut up(now), now, reply),
            Err(LinkError::Unexpected)
        );
    }
    let now = Instant::now();
    let mut link = up(now);
    link.publish(now, &["c"], b"x", None);
    let refused = receive(&mut link, now, b"-NOPERM no\r\n").unwrap_err();
    assert_eq!(refused.to_string(), "it refuses PUBLISH: NOPERM no");
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same(cuts in prop::collection::vec(0..400_usize, 0..6)) {
        let now = Instant::now();
        let mut bytes = HELLO.to_vec();
        for channel in ["a", "b", "c"] {
            let push = format!(">3\r\n$9\r\nsubscribe\r\n$1\r\n{channel}\r\n:1\r\n");
            bytes.extend(push.as_bytes());
        }
        bytes.extend(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n\r\n:1\r\n");
        let all = |cuts: &[usize]| {
            let mut link = link(now);
            for channel in ["a", "b", "c"] {
                link.subscribe(now, channel);
            }
            let (mut events, mut from) = (Vec::new(), 0);
            for cut in cuts.iter().chain([&bytes.len()]) {
                let to = (*cut).clamp(from, bytes.len());
                events.extend(receive(&mut link, now, &bytes[from..to]).unwrap());
                from = to;
            }
            events.sort_by_key(|event| format!("{event:?}"));
            events
        };
        let mut cuts = cuts;
        cuts.sort_unstable();
        prop_assert_eq!(all(&cuts), all(&[]));
    }

    #[test]
    fn survives_anything(bytes: Vec<u8>) {
        let now = Instant::now();
        let _ = receive(&mut up(now), now, &bytes);
    }
}
