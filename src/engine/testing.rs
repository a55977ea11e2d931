//! Sessions that nobody above hears of, for tests of what is below.

use std::net::Ipv4Addr;
use std::rc::Rc;

use super::{CloseReason, Engine, Flow, Handler, Handshake, Key, Options, Transport};
use crate::env::Env;
use crate::wire::Content;

struct Nobody;

impl Handler for Nobody {
    fn on_open(&self, _key: Key, _handshake: Handshake) {}
    fn on_message(&self, _key: Key, _content: Content) -> Flow {
        Flow::Continue
    }
    fn on_close(&self, _key: Key, _reason: CloseReason) {}
}

/// An engine without sessions.
pub(crate) fn engine(options: Options) -> Engine {
    let engine = Engine::new(Env::seeded(1), options);
    engine.set_handler(Rc::new(Nobody));
    engine
}

/// A session, whose open packet waits.
pub(crate) fn open(engine: &Engine, transport: Transport) -> Key {
    let handshake = Handshake {
        address: Ipv4Addr::LOCALHOST.into(),
        headers: Vec::new(),
        query: Box::default(),
        secure: false,
        issued_wall_ms: 0,
    };
    engine.open(transport, handshake)
}
