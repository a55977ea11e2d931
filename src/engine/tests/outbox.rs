//! What waits to be sent on a WebSocket, and the end of a session.

use super::*;

#[test]
fn a_partial_send_goes_on_where_it_stopped() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.send(key, "hello");
    world.send(key, "you");
    let sent = |waiting: Waiting<'_>| waiting.sent();
    assert_eq!(world.engine.transmit(key, sent), 0);
    world.engine.transmitted(key, 5);
    assert_eq!(world.engine.transmit(key, sent), 5);
    assert_eq!(world.waiting(key), [&b"llo"[..], b"\x81\x044you"]);
    world.engine.transmitted(key, 3);
    assert_eq!(world.engine.transmit(key, sent), 0);
    world.engine.transmitted(key, 1);
    assert_eq!(world.waiting(key), [&b"\x044you"[..]]);
    assert_eq!(world.engine.outbox_bytes(key), 6 + 64);
    world.engine.transmitted(key, 5);
    assert_eq!(world.engine.outbox_bytes(key), 0);
    assert!(world.engine.is_writable(key));
}

#[test]
fn marks_a_websocket_dirty_once_until_it_is_taken() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.dirty();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(world.engine.poll_dirty(&mut cx).is_pending());
    world.send(key, "a");
    world.send(key, "b");
    assert!(world.engine.poll_dirty(&mut cx).is_ready());
    assert_eq!(world.dirty(), [key]);
    assert!(world.dirty().is_empty());
    world.send(key, "c");
    assert_eq!(world.dirty(), [key]);
}

#[test]
fn a_slow_consumer_is_closed_and_told_apart() {
    let world = World::with(Options {
        outbox_bytes_max: 1000,
        ..Options::default()
    });
    let key = world.open(Transport::WebSocket);
    world.frames(key);
    let packet = Encoded::text('4', &"x".repeat(90));
    for _ in 0..6 {
        world.engine.send(key, std::slice::from_ref(&packet));
    }
    assert!(
        world.engine.is_open(key),
        "{}",
        world.engine.outbox_bytes(key)
    );
    world.engine.send(key, &[packet]);
    assert_eq!(
        world.handler.take(),
        [Told::Open, Told::Close(CloseReason::SlowConsumer)]
    );
    assert_eq!(CloseReason::SlowConsumer.as_str(), "transport error");
    assert_eq!(world.engine.outbox_bytes(key), 0);
}

#[test]
fn a_send_to_many_is_a_send_to_each() {
    let world = World::with(Options {
        outbox_bytes_max: 300,
        ..Options::default()
    });
    let [slow, closed, last] = [(); 3].map(|()| world.open(Transport::WebSocket));
    let polling = world.open(Transport::Polling);
    world.poll(polling);
    for key in [slow, closed, last] {
        world.frames(key);
    }
    world.engine.detach(closed);
    world.send(slow, &"x".repeat(200));
    world.dirty();
    world.handler.take();
    let mut cx = Context::from_waker(Waker::noop());
    let mut changed = pin!(world.engine.changed(polling));
    assert!(changed.as_mut().poll(&mut cx).is_pending());

    let packets = ["one", "two"].map(|body| Encoded::text('4', body));
    let keys = [slow, closed, polling, last];
    world.engine.send_all(&keys, &packets);
    let told = world.handler.take();
    assert_eq!(told, [Told::Close(CloseReason::SlowConsumer)]);
    assert_eq!(world.engine.outbox_bytes(slow), 0);
    assert!(changed.as_mut().poll(&mut cx).is_ready());
    assert_eq!(world.dirty(), [slow, last]);
    assert_eq!(world.engine.outbox_bytes(last), 2 * (6 + 64));
    assert_eq!(world.poll(polling), "4one\u{1e}4two");
    assert_eq!(world.frames(last), ["4one", "4two"]);
    let bytes = world.engine.inner.table.borrow().outbox_bytes();
    assert_eq!(bytes, 0, "nobody is owed anything");
}

#[test]
fn our_close_still_sends_what_was_queued_on_a_websocket() {
    let (world, key) = World::opened(Transport::WebSocket);
    let sid = world.engine.sid(key).expect("it is open");
    world.send(key, "bye");
    world.engine.close(key, CloseReason::ServerShuttingDown);
    assert_eq!(
        world.engine.closing(key),
        Some(CloseReason::ServerShuttingDown)
    );
    assert_eq!(world.engine.find(&sid), None);
    assert_eq!(world.frames(key), ["4bye"]);
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ServerShuttingDown)]
    );
}

#[test]
fn the_handler_is_told_of_the_end_once() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.engine.close(key, CloseReason::ForcedClose);
    world.engine.close(key, CloseReason::TransportError);
    world.engine.close(key, CloseReason::ForcedClose);
    world.engine.detach(key);
    world.engine.close(key, CloseReason::ForcedClose);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ForcedClose)]
    );
    assert_eq!(world.engine.session_count(), 0);
}

#[test]
fn a_websocket_that_goes_takes_its_session_along() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.engine.detach(key);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportClose)]
    );
    assert_eq!(world.engine.transport(key), None);
}

#[test]
fn a_key_is_never_used_twice() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.engine.detach(key);
    let next = world.open(Transport::WebSocket);
    assert_eq!(next.index, key.index);
    assert_ne!(next, key);
    world.send(key, "to nobody");
    world.engine.close(key, CloseReason::ForcedClose);
    assert!(world.engine.is_open(next));
    assert_eq!(world.frames(next).len(), 1);
}
