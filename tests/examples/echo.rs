//! A Socket.IO server in one page: every event comes back, and rooms can be joined and talked to.
//!
//! `cargo run --example echo`, then from any Socket.IO client:
//!
//! ```js
//! const socket = io("http://127.0.0.1:3000");
//! socket.emit("hello", 1, { two: 2 }, (...args) => {}); // acknowledged with the same
//! socket.emit("join", "lobby");
//! socket.emit("say", "lobby", "good morning"); // everybody in the lobby receives "say"
//! ```

use std::io;
use std::rc::Rc;

use project_yum::engine::{self, Engine};
use project_yum::env::Env;
use project_yum::hub::{self, App, Event, Hub, Socket, Task};
use project_yum::metrics::Metrics;
use project_yum::net::{self, Cors, Handoffs, Mount, Response, Site, Transports};
use project_yum::server::executor;

struct Echo;

impl App for Echo {
    fn on_event(self: Rc<Self>, socket: Socket, event: Event) -> Task {
        Box::pin(async move {
            let room = event.args.parse::<String>();
            match (&*event.name, room) {
                ("join", Ok(room)) => {
                    socket.join(&room).await;
                }
                ("say", Ok(room)) => {
                    let everybody = socket.hub().of(socket.namespace()).room(&room);
                    everybody.emit("say", &event.args.skip(1));
                }
                _ => socket.emit(&event.name, &event.args),
            }
            if let Some(ack) = event.ack {
                ack.send(&event.args);
            }
        })
    }
}

fn main() -> io::Result<()> {
    let listener = net::listen(([127, 0, 0, 1], 3000).into())?;
    let executor = executor::builder(0, None)
        .make()
        .map_err(|error| io::Error::other(error.to_string()))?;
    executor.run(async move {
        let env = Env::system();
        let engine = Engine::new(env.clone(), engine::Options::default());
        let spawn: hub::Spawn = Rc::new(|task| {
            glommio::spawn_local(task).detach();
        });
        let hub = Hub::new(env.clone(), engine.clone(), hub::Options::default(), spawn);
        hub.set_app(Rc::new(Echo));
        let site = Site {
            mounts: vec![Rc::new(Mount {
                path: "/socket.io/".into(),
                engine,
                transports: Transports::default(),
                admit: None,
                ports: net::flush::Ports::default(),
            })],
            respond: Rc::new(|_| {
                let nothing = Response::error(404, "not_found", "there is nothing here");
                Box::pin(async { nothing })
            }),
            cors: Cors::default(),
        };
        let handoffs = Handoffs::mesh(1).remove(0);
        let metrics = Rc::new(Metrics::new(0));
        let shard = net::Shard::new(env, net::Options::default(), site, metrics, handoffs);
        let tick = move |now| {
            hub.tick(now);
            hub.next_deadline()
        };
        net::run(shard, listener, net::Process::new(), Box::new(tick)).await;
    });
    Ok(())
}
