//! The raw Engine.IO echo: every message comes back unchanged, and nothing else is ever sent.

use project_yum::engine::{CloseReason, Engine, Flow, Handler, Handshake, Key};
use project_yum::hub::Spawn;
use project_yum::wire::Content;
use project_yum::wire::engine_io::Encoded;

/// With so much unsent, nothing more is read until half of it has gone.
const UNSENT_MAX: usize = 1 << 20;

/// The handler.
pub(crate) struct Echo {
    engine: Engine,
    spawn: Spawn,
}

impl Echo {
    pub(crate) fn new(engine: Engine, spawn: Spawn) -> Self {
        Self { engine, spawn }
    }
}

impl Handler for Echo {
    fn on_open(&self, _key: Key, _handshake: Handshake) {}

    fn on_message(&self, key: Key, content: Content) -> Flow {
        let packet = match &content {
            Content::Text(text) => Encoded::text('4', text),
            Content::Binary(bytes) => Encoded::binary(bytes),
        };
        self.engine.send(key, &[packet]);
        if self.engine.outbox_bytes(key) < UNSENT_MAX {
            return Flow::Continue;
        }
        let engine = self.engine.clone();
        (self.spawn)(Box::pin(async move {
            engine.drained(key, UNSENT_MAX / 2).await;
            engine.resume(key);
        }));
        Flow::Pause
    }

    fn on_close(&self, _key: Key, _reason: CloseReason) {}
}
