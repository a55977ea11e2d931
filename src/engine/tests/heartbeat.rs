//! Pings, pongs, and how long a pong may take.

use super::*;

#[test]
fn pings_after_the_interval_and_again_after_each_pong() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.wait(INTERVAL - Duration::from_millis(1));
    assert_eq!(world.frames(key), Vec::<String>::new());
    world.wait(INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
    world.wait(Duration::from_secs(5));
    assert_eq!(world.receive(key, Transport::WebSocket, "3"), GO_ON);
    world.wait(INTERVAL - Duration::from_millis(1));
    assert_eq!(world.frames(key), Vec::<String>::new());
    world.wait(INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
    assert!(world.handler.take().is_empty());
}

#[test]
fn closes_without_a_pong_and_messages_do_not_count() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.wait(INTERVAL + INTERVAL / 64);
    world.receive(key, Transport::WebSocket, "4here");
    world.wait(TIMEOUT - INTERVAL / 64);
    world.wait(INTERVAL / 64);
    assert_eq!(
        world.handler.take(),
        [
            Told::Message("here".into()),
            Told::Close(CloseReason::PingTimeout)
        ]
    );
    assert_eq!(world.engine.session_count(), 0);
}

#[test]
fn a_request_at_the_pong_s_deadline_is_late_even_if_no_timer_fired() {
    for late in [Duration::ZERO, Duration::from_millis(90)] {
        let (world, key) = World::opened(Transport::Polling);
        let sid = world.engine.sid(key).expect("it is open");
        world.wait(INTERVAL + late);
        assert_eq!(world.engine.find(&sid), Some(key));
        world.env.advance(TIMEOUT - late - Duration::from_millis(1));
        assert_eq!(world.engine.find(&sid), Some(key));
        world.env.advance(Duration::from_millis(1));
        assert_eq!(world.engine.find(&sid), None);
        assert_eq!(
            world.handler.take(),
            [Told::Close(CloseReason::PingTimeout)]
        );
    }
}

#[test]
fn a_request_is_late_even_if_the_ping_never_left() {
    let (world, key) = World::opened(Transport::Polling);
    let sid = world.engine.sid(key).expect("it is open");
    world.env.advance(INTERVAL + TIMEOUT);
    assert_eq!(world.engine.find(&sid), None);
}

#[test]
fn a_shard_that_stood_still_leaves_the_client_time_for_its_pong() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.wait(INTERVAL + TIMEOUT);
    assert_eq!(world.frames(key), ["2"]);
    world.wait(TIMEOUT / 2 - Duration::from_secs(1));
    assert!(world.engine.is_open(key));
}

#[test]
fn the_timer_looks_no_earlier_than_needed() {
    let (world, _) = World::opened(Transport::WebSocket);
    let wait = world.engine.next_deadline().expect("a ping is due") - world.env.now();
    assert!(
        wait >= INTERVAL && wait < INTERVAL + INTERVAL / 64,
        "{wait:?}"
    );
}
