//! From polling to a WebSocket.

use super::*;

#[test]
fn an_upgrade_releases_the_get_and_moves_the_outbox() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.engine.begin_probe(key).expect("the probe is let in");
    assert_eq!(world.take(key), None, "nothing was probed yet");
    let changed = world.engine.changed(key);
    let answer = world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(answer, Outcome::AnswerProbe);
    assert!(is_ready(changed));
    assert_eq!(world.take(key).as_deref(), Some("6"));
    // Both ways stay open until `5`.
    assert_eq!(world.receive(key, Transport::Polling, "4posted"), GO_ON);
    world.send(key, "polled");
    assert_eq!(world.poll(key), "4polled");
    world.send(key, "waits");
    assert!(world.frames(key).is_empty());
    let done = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(done, Outcome::Upgraded);
    assert_eq!(world.frames(key), ["4waits"]);
    assert_eq!(world.engine.begin_poll(key), Err(Refusal::WrongTransport));
    assert_eq!(world.engine.begin_post(key), Err(Refusal::WrongTransport));
    assert_eq!(world.receive(key, Transport::WebSocket, "4framed"), GO_ON);
    assert_eq!(
        world.handler.take(),
        [
            Told::Message("posted".into()),
            Told::Message("framed".into())
        ]
    );
}

#[test]
fn our_close_during_an_upgrade_goes_by_the_websocket() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(world.take(key).as_deref(), Some("6"));
    // The client polls no more, and has not said `5` yet.
    world.send(key, "bye");
    world.engine.close(key, CloseReason::ForcedClose);
    assert!(world.engine.is_probing(key));
    let done = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(done, Outcome::Upgraded);
    assert_eq!(world.frames(key), ["4bye"]);
    assert_eq!(world.engine.closing(key), Some(CloseReason::ForcedClose));
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
}

#[test]
fn a_client_that_polls_on_during_its_upgrade_hears_of_our_close() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    world.engine.close(key, CloseReason::ForcedClose);
    for _ in 0..3 {
        assert_eq!(world.poll(key), "6");
    }
    assert_eq!(world.poll(key), "1");
    assert!(!world.engine.is_probing(key));
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
}

/// One that is closing was counted out already, as the session of a poller that it was.
#[test]
fn who_goes_over_while_closing_is_not_counted_again() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let world = World::new();
        world.engine.set_metrics(Rc::new(Metrics::new(0)));
        for closes_first in [false, true] {
            let key = world.open(Transport::Polling);
            world.engine.begin_probe(key).expect("the probe is let in");
            world.receive(key, Transport::WebSocket, "2probe");
            if closes_first {
                world.engine.close(key, CloseReason::ForcedClose);
            }
            let outcome = world.receive(key, Transport::WebSocket, "5");
            assert_eq!(outcome, Outcome::Upgraded);
            world.engine.close(key, CloseReason::TransportClose);
            world.engine.detach(key);
        }
    });
    let rendered = recorder.handle().render();
    let open = rendered
        .lines()
        .filter(|line| line.starts_with("yum_sessions{"));
    let open: Vec<_> = open.collect();
    assert_eq!(open.len(), 2, "{rendered}");
    assert!(open.iter().all(|line| line.ends_with(" 0")), "{open:?}");
}

#[test]
fn our_close_ends_a_probe_that_was_not_answered() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.engine.close(key, CloseReason::ForcedClose);
    assert!(!world.engine.is_probing(key));
    assert_eq!(world.poll(key), "1");
}

#[test]
fn a_get_that_is_still_pending_after_the_upgrade_gets_a_noop() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.upgrade(key);
    world.send(key, "framed");
    assert_eq!(world.take(key).as_deref(), Some("6"));
    assert_eq!(world.frames(key), ["4framed"]);
}

#[test]
fn a_probe_that_says_anything_else_first_is_refused_and_polling_goes_on() {
    for packet in ["5", "2", "4hello", "3probe", "1", "6"] {
        let (world, key) = World::opened(Transport::Polling);
        world.engine.begin_probe(key).expect("the probe is let in");
        let outcome = world.receive(key, Transport::WebSocket, packet);
        assert_eq!(outcome, Outcome::ProbeRefused, "{packet}");
        world.engine.detach(key);
        world.send(key, "on");
        assert_eq!(world.poll(key), "4on");
        world.upgrade(key);
        assert!(world.handler.take().is_empty());
    }
}

#[test]
fn a_message_between_probe_and_upgrade_is_refused() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    let outcome = world.receive(key, Transport::WebSocket, "4early");
    assert_eq!(outcome, Outcome::ProbeRefused);
    assert!(world.handler.take().is_empty());
}

#[test]
fn an_upgrade_must_end_in_time_and_polling_goes_on() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    world.dirty();
    world.wait(Duration::from_millis(9_900));
    assert!(world.engine.is_probing(key));
    world.wait(Duration::from_millis(600));
    assert!(!world.engine.is_probing(key));
    assert_eq!(world.dirty(), [key], "its driver is told");
    let late = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(late, Outcome::ProbeRefused);
    assert_eq!(
        world.engine.begin_probe(key),
        Err(Refusal::AlreadyUpgrading),
        "the old one is not gone yet"
    );
    world.engine.detach(key);
    world.send(key, "on");
    assert_eq!(world.poll(key), "4on");
    world.upgrade(key);
}

#[test]
fn a_second_upgrade_does_not_disturb_the_first() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    let refused = Err(Refusal::AlreadyUpgrading);
    assert_eq!(world.engine.begin_probe(key), refused);
    world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(world.engine.begin_probe(key), refused);
    let done = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(done, Outcome::Upgraded);
    assert_eq!(world.engine.begin_probe(key), refused);
}

#[test]
fn an_upgrade_clears_the_pong_s_deadline_and_pings_go_on() {
    let (world, key) = World::opened(Transport::Polling);
    world.wait(INTERVAL + INTERVAL / 64);
    assert_eq!(world.poll(key), "2");
    world.upgrade(key);
    world.wait(TIMEOUT);
    assert!(world.engine.is_open(key), "the pong may have been lost");
    world.wait(INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
    world.wait(TIMEOUT + INTERVAL / 64);
    assert!(!world.engine.is_open(key));
}

#[test]
fn an_upgrade_leaves_the_next_ping_where_it_was() {
    let (world, key) = World::opened(Transport::Polling);
    world.wait(INTERVAL / 2);
    world.upgrade(key);
    world.wait(INTERVAL / 2 + INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
}

#[test]
fn a_close_ends_the_probe_too() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.dirty();
    world.engine.close(key, CloseReason::PingTimeout);
    assert!(!world.engine.is_probing(key));
    assert_eq!(world.dirty(), [key]);
    let outcome = world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(outcome, Outcome::Closed);
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
}
