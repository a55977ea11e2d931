//! The handler's side: pauses, reentry, waiting for the output.

use super::*;

#[test]
fn a_pause_lasts_until_the_resume_and_wakes_the_transport() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.handler.pause.set(true);
    let outcome = world.receive(key, Transport::WebSocket, "4a");
    assert_eq!(outcome, Outcome::Taken(Flow::Pause));
    assert!(world.engine.is_paused(key));
    world.dirty();
    let changed = world.engine.changed(key);
    world.engine.resume(key);
    assert!(!world.engine.is_paused(key));
    assert!(is_ready(changed));
    assert_eq!(world.dirty(), [key]);
}

#[test]
fn a_resume_that_comes_before_its_pause_wins() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.handler.pause.set(true);
    let engine = world.engine.clone();
    *world.handler.reenter.borrow_mut() = Some(Box::new(move |key| engine.resume(key)));
    world.receive(key, Transport::WebSocket, "4a");
    assert!(!world.engine.is_paused(key));
}

#[test]
fn a_handler_may_step_the_engine_from_inside_every_call() {
    let world = World::new();
    let engine = world.engine.clone();
    *world.handler.reenter.borrow_mut() = Some(Box::new(move |key| {
        engine.send(key, &[Encoded::text('4', "inside")]);
        let _ = engine.keys();
        engine.close(key, CloseReason::ForcedClose);
    }));
    let key = world.open(Transport::WebSocket);
    assert_eq!(world.frames(key).len(), 2);
    let told = world.handler.take();
    assert_eq!(told, [Told::Open, Told::Close(CloseReason::ForcedClose)]);
}

#[test]
fn drained_waits_until_enough_has_left() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.send(key, "hello");
    world.send(key, "hello");
    let mut cx = Context::from_waker(Waker::noop());
    let mut drained = pin!(world.engine.drained(key, 100));
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    world.engine.transmitted(key, 7);
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    world.engine.transmitted(key, 1);
    assert!(drained.as_mut().poll(&mut cx).is_ready());
    world.send(key, "hello");
    world.send(key, "hello");
    let mut gone = pin!(world.engine.drained(key, 0));
    assert!(gone.as_mut().poll(&mut cx).is_pending());
    world.engine.detach(key);
    assert!(gone.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn nobody_waits_for_the_output_of_a_session_that_is_closing() {
    for transport in [Transport::Polling, Transport::WebSocket] {
        let (world, key) = World::opened(transport);
        world.send(key, "hello");
        let mut cx = Context::from_waker(Waker::noop());
        let mut drained = pin!(world.engine.drained(key, 0));
        assert!(drained.as_mut().poll(&mut cx).is_pending());
        world.engine.close(key, CloseReason::ForcedServerClose);
        assert!(world.engine.outbox_bytes(key) > 0, "it is still sent");
        assert!(drained.as_mut().poll(&mut cx).is_ready(), "{transport:?}");
    }
}

#[test]
fn nobody_waits_for_the_output_of_a_session_that_is_asked_to_go() {
    let (world, key) = World::opened(Transport::Polling);
    world.send(key, "hello");
    let mut cx = Context::from_waker(Waker::noop());
    let mut drained = pin!(world.engine.drained(key, 0));
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    let _ = world.engine.drain(key);
    assert!(world.engine.is_open(key) && !world.engine.is_staying(key));
    assert!(drained.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn output_of_a_closing_session_that_nobody_takes_is_given_up() {
    let met = bounds_met(|| {
        let (world, key) = World::opened(Transport::WebSocket);
        world.engine.set_metrics(Rc::new(Metrics::new(0)));
        world.send(key, "hello");
        world.engine.close(key, CloseReason::ForcedServerClose);
        world.engine.take_dirty(&mut Vec::new());
        world.env.advance(Duration::from_secs(29));
        world.engine.tick();
        assert!(world.engine.outbox_bytes(key) > 0, "it has its time");
        world.env.advance(Duration::from_secs(2));
        world.engine.tick();
        assert_eq!(world.engine.outbox_bytes(key), 0);
        let mut dirty = Vec::new();
        world.engine.take_dirty(&mut dirty);
        assert_eq!(dirty, [key], "its connection is told");
    });
    assert_eq!(met, BTreeMap::from([("farewell_time".to_owned(), 1)]));
}

#[test]
fn a_change_counts_from_the_making_of_its_future() {
    let (world, key) = World::opened(Transport::Polling);
    let before = world.engine.changed(key);
    world.send(key, "a");
    let after = world.engine.changed(key);
    assert!(is_ready(before));
    assert!(!is_ready(after));
}

#[test]
fn an_idle_session_is_small() {
    let size = std::mem::size_of::<Session>();
    assert!(size <= 160, "{size} bytes");
}
