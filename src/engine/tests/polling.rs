//! The GETs and POSTs of HTTP long-polling.

use super::*;

#[test]
fn a_get_waits_and_takes_everything_in_order() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    assert_eq!(world.take(key), None);
    let changed = world.engine.changed(key);
    world.send(key, "a");
    world.send(key, "b");
    assert!(is_ready(changed));
    assert_eq!(world.take(key).as_deref(), Some("4a\u{1e}4b"));
    assert_eq!(world.take(key), None, "the GET was answered");
}

#[test]
fn one_packet_that_must_not_be_compressed_decides_for_its_payload() {
    let (world, key) = World::opened(Transport::Polling);
    let packet = Encoded::text('4', "a");
    world
        .engine
        .send(key, &[packet.clone(), packet.clone().uncompressed()]);
    world.engine.begin_poll(key).expect("the GET is let in");
    assert!(!world.engine.take_payload(key).expect("output").compress);
    world.engine.send(key, &[packet]);
    world.engine.begin_poll(key).expect("the GET is let in");
    assert!(world.engine.take_payload(key).expect("output").compress);
}

#[test]
fn a_second_get_closes_the_session() {
    let (world, key) = World::opened(Transport::Polling);
    let sid = world.engine.sid(key).expect("it is open");
    world.engine.begin_poll(key).expect("the GET is let in");
    assert_eq!(world.engine.begin_poll(key), Err(Refusal::Overlap));
    assert_eq!(world.engine.find(&sid), None);
    assert_eq!(world.take(key).as_deref(), Some("1"));
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportError)]
    );
    assert_eq!(world.engine.transport(key), None, "its place is free");
}

#[test]
fn a_second_post_closes_the_session() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_post(key).expect("the POST is let in");
    assert_eq!(world.engine.begin_post(key), Err(Refusal::Overlap));
    assert_eq!(world.engine.begin_post(key), Err(Refusal::Unknown));
    assert_eq!(
        world.receive(key, Transport::Polling, "4late"),
        Outcome::Closed
    );
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportError)]
    );
}

#[test]
fn posts_follow_each_other_beside_a_get() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    for body in ["4a", "4b"] {
        world.engine.begin_post(key).expect("the POST is let in");
        assert_eq!(world.receive(key, Transport::Polling, body), GO_ON);
        world.engine.end_post(key);
    }
    assert_eq!(
        world.handler.take(),
        [Told::Message("a".into()), Told::Message("b".into())]
    );
}

#[test]
fn a_client_that_leaves_its_get_or_its_post_is_gone() {
    for abort in [Engine::abort_poll, Engine::abort_post] {
        let (world, key) = World::opened(Transport::Polling);
        let sid = world.engine.sid(key).expect("it is open");
        world.engine.begin_poll(key).expect("the GET is let in");
        world.engine.begin_post(key).expect("the POST is let in");
        abort(&world.engine, key);
        assert_eq!(world.engine.find(&sid), None);
        assert_eq!(
            world.handler.take(),
            [Told::Close(CloseReason::TransportError)]
        );
    }
}

#[test]
fn a_client_s_close_packet_releases_its_get_with_a_noop() {
    let (world, key) = World::opened(Transport::Polling);
    let sid = world.engine.sid(key).expect("it is open");
    world.engine.begin_poll(key).expect("the GET is let in");
    assert_eq!(world.receive(key, Transport::Polling, "1"), Outcome::Closed);
    assert_eq!(world.engine.find(&sid), None);
    assert_eq!(world.take(key).as_deref(), Some("6"));
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportClose)]
    );
}

#[test]
fn our_close_reaches_the_pending_get_after_what_was_queued() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.send(key, "bye");
    world.engine.close(key, CloseReason::ForcedClose);
    world.send(key, "never");
    // Apart: a client that finds both in one payload ends before it has looked at the message.
    assert_eq!(world.take(key).as_deref(), Some("4bye"));
    assert_eq!(world.poll(key), "1");
    assert_eq!(world.engine.transport(key), None);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ForcedClose)]
    );
}

#[test]
fn a_server_that_goes_away_says_no_close_packet() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.engine.close(key, CloseReason::ServerShuttingDown);
    assert_eq!(world.take(key).as_deref(), Some("6"));
    assert_eq!(world.engine.transport(key), None, "the next GET is unknown");
}

#[test]
fn our_close_waits_thirty_seconds_for_the_next_get() {
    for (wait, found) in [(29, true), (31, false)] {
        let (world, key) = World::opened(Transport::Polling);
        let sid = world.engine.sid(key).expect("it is open");
        world.engine.close(key, CloseReason::ForcedServerClose);
        assert_eq!(world.engine.session_count(), 0);
        world.wait(Duration::from_secs(wait));
        assert_eq!(world.engine.find(&sid).is_some(), found);
        if found {
            assert_eq!(world.poll(key), "1");
        }
        assert_eq!(world.engine.find(&sid), None);
        assert_eq!(world.engine.transport(key), None);
    }
}

#[test]
fn a_closing_session_takes_posts_and_ignores_them() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.close(key, CloseReason::ForcedClose);
    world.engine.begin_post(key).expect("the POST is let in");
    assert_eq!(
        world.receive(key, Transport::Polling, "4x"),
        Outcome::Closed
    );
    assert_eq!(world.receive(key, Transport::Polling, "1"), Outcome::Closed);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ForcedClose)]
    );
    assert_eq!(world.engine.transport(key), None, "nobody waits for the 1");
}

#[test]
fn packets_that_make_no_sense_are_ignored_but_a_ping_is_an_error() {
    let (world, key) = World::opened(Transport::Polling);
    for packet in ["0", "5", "6", "3"] {
        assert_eq!(world.receive(key, Transport::Polling, packet), GO_ON);
    }
    for ping in ["2", "2probe"] {
        let (world, key) = World::opened(Transport::WebSocket);
        let outcome = world.receive(key, Transport::WebSocket, ping);
        assert_eq!(outcome, Outcome::Closed);
        assert_eq!(
            world.handler.take(),
            [Told::Close(CloseReason::TransportError)]
        );
    }
}
