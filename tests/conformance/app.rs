//! The Socket.IO handlers: an [`App`] that shows each side of the protocol to a client.
//!
//! Namespaces `/`, `/custom` and every `/dyn-<digits>`; `/reject` refuses every CONNECT. Whoever
//! connects is first sent `auth` with the payload of its CONNECT. What else each event does stands
//! in [`Conformance::handle`]; one whose arguments are not as expected is dropped, like an unknown one.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use project_yum::engine::Transport;
use project_yum::hub::{App, Args, Audience, Event, Flags, Hub, Refusal, Socket, Task};
use project_yum::wire::Text;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// How long an acknowledgement is waited for where the client names no time.
const ACK_TIMEOUT: Duration = Duration::from_mins(1);

/// The app.
pub(crate) struct Conformance {
    hub: Hub,
}

/// What a client said in its CONNECT.
struct Auth(Box<RawValue>);

/// A room, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rooms {
    One(String),
    Several(Vec<String>),
}

impl App for Conformance {
    fn admits(&self, namespace: &str) -> bool {
        let is_dynamic =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        matches!(namespace, "/" | "/custom" | "/reject")
            || namespace.strip_prefix("/dyn-").is_some_and(is_dynamic)
    }

    fn on_connect(
        self: Rc<Self>,
        socket: Socket,
        auth: Box<RawValue>,
    ) -> LocalBoxFuture<'static, Result<(), Refusal>> {
        Box::pin(async move {
            if &**socket.namespace() == "/reject" {
                let data = r#"{"code":"E_AUTH","status":401}"#.to_owned();
                return Err(Refusal {
                    message: "not authorized".into(),
                    data: RawValue::from_string(data).ok(),
                });
            }
            socket.set_data(Rc::new(Auth(auth)));
            Ok(())
        })
    }

    fn on_connected(&self, socket: &Socket) {
        if let Some(auth) = socket.data::<Auth>() {
            socket.emit("auth", &Args::one(&auth.0));
        }
    }

    fn on_event(self: Rc<Self>, socket: Socket, event: Event) -> Task {
        Box::pin(async move {
            self.handle(socket, event).await;
        })
    }

    fn on_server_side_emit(self: Rc<Self>, namespace: Text, event: Event) -> Task {
        if &*event.name == "hello" && matches!(&*namespace, "/" | "/custom") {
            let clients = self.hub.of(&namespace).local();
            clients.emit("server-side-hello", &event.args);
            if let Some(ack) = event.ack {
                ack.send(&event.args);
            }
        }
        Box::pin(async {})
    }
}

impl Conformance {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { hub }
    }

    /// Handles one event. `None`: nothing is acknowledged.
    async fn handle(&self, socket: Socket, event: Event) -> Option<()> {
        let args = event.args;
        let room = || args.parse_at::<String>(0).ok();
        let everybody = || self.hub.of(socket.namespace());
        let answer = match &*event.name {
            "message" => {
                socket.emit("message-back", &args);
                return None;
            }
            "volatile" => {
                socket.emit_with("volatile-back", &args, volatile());
                return None;
            }
            "message-with-ack" => args,
            "emit-with-ack" => {
                emit_with_ack(&socket, &args);
                return None;
            }
            "ack-timeout" => return ack_timeout(&socket, &args),
            "join" => {
                socket.join(&room()?).await;
                Args::one("ok")
            }
            "leave" => {
                socket.leave(&room()?);
                Args::one("ok")
            }
            "rooms" => rooms(&socket),
            "to-room" => return emit(socket.broadcast().any(&room()?), &args, 1),
            "in-room" => return emit(union(everybody(), &args)?, &args, 1),
            "in-room-except" => {
                let except = args.parse_at::<String>(1).ok()?;
                return emit(everybody().any(&room()?).except_any(&except), &args, 2);
            }
            "room-ack" => return room_ack(&socket, everybody().any(&room()?), &args),
            "fetch" => {
                let found = everybody().any(&room()?).fetch_sockets().await.ok()?;
                let sids: Vec<&str> = found.iter().map(|socket| socket.id.as_str()).collect();
                Args::one(&sids)
            }
            "server-side" => {
                let namespace = socket.namespace();
                self.hub.server_side_emit(namespace, "hello", &args);
                return None;
            }
            "server-side-ack" => {
                let namespace = socket.namespace();
                let hub = &self.hub;
                let acked = hub.server_side_emit_with_ack(namespace, "hello", &args);
                let acks = acked.await.unwrap_or_else(|late| late.acks);
                firsts(&acks)
            }
            "remote-join" => {
                let joined: String = args.parse_at(1).ok()?;
                everybody().any(&room()?).sockets_join(&[&joined]);
                return None;
            }
            "remote-leave" => {
                let left: String = args.parse_at(1).ok()?;
                everybody().any(&room()?).sockets_leave(&[&left]);
                return None;
            }
            "remote-disconnect" => {
                let close = args.parse_at(1).ok()?;
                everybody().any(&room()?).disconnect_sockets(close);
                return None;
            }
            "disconnect-me" => {
                socket.disconnect(args.parse_at(0).ok()?);
                return None;
            }
            "transport" => match socket.transport()? {
                Transport::Polling => Args::one("polling"),
                Transport::WebSocket => Args::one("websocket"),
            },
            _ => return None,
        };
        event.ack?.send(&answer);
        Some(())
    }
}

fn volatile() -> Flags {
    Flags {
        volatile: true,
        ..Flags::default()
    }
}

/// Emits the event that is named at `index`, with the arguments behind it.
fn emit(audience: Audience, args: &Args, index: usize) -> Option<()> {
    let event: String = args.parse_at(index).ok()?;
    audience.emit(&event, &args.skip(index + 1));
    Some(())
}

/// The members of the room or rooms that the first argument names.
fn union(everybody: Audience, args: &Args) -> Option<Audience> {
    let rooms = match args.parse_at(0).ok()? {
        Rooms::One(room) => vec![room],
        Rooms::Several(rooms) => rooms,
    };
    Some(
        rooms
            .iter()
            .fold(everybody, |audience, room| audience.any(room)),
    )
}

/// All the rooms of a socket, its own first.
fn rooms(socket: &Socket) -> Args {
    let (id, joined) = (socket.id(), socket.rooms());
    let rooms = joined.iter().map(|room| &**room);
    let all: Vec<&str> = std::iter::once(id.as_str()).chain(rooms).collect();
    Args::one(&all)
}

/// Asks the client, and sends it what it answered.
fn emit_with_ack(socket: &Socket, args: &Args) {
    let asked = socket.clone();
    socket.emit_with_ack("emit-with-ack", args, ACK_TIMEOUT, move |acked| {
        if let Ok(answer) = acked {
            asked.emit("emit-with-ack", &answer);
        }
    });
}

/// Asks the client, and tells it whether its time ran out.
fn ack_timeout(socket: &Socket, args: &Args) -> Option<()> {
    let timeout = Duration::from_millis(args.parse_at(0).ok()?);
    let asked = socket.clone();
    socket.emit_with_ack("no-reply", &Args::none(), timeout, move |acked| {
        asked.emit("ack-timeout", &Args::one(&acked.is_err()));
    });
    Some(())
}

/// Asks a room, and tells the client what was answered.
fn room_ack(socket: &Socket, room: Audience, args: &Args) -> Option<()> {
    let timeout = Duration::from_millis(args.parse_at(1).ok()?);
    let event: String = args.parse_at(2).ok()?;
    let asking = socket.clone();
    room.emit_with_ack(&event, &args.skip(3), timeout, move |acked| {
        let (name, acks) = match acked {
            Ok(acks) => ("room-acks", acks),
            Err(late) => ("room-acks-timeout", late.acks),
        };
        asking.emit(name, &firsts(&acks));
    });
    Some(())
}

/// What each of many answered first, as one list, with what is attached.
fn firsts(acks: &[Args]) -> Args {
    let (mut attachments, mut list) = (Vec::new(), Vec::new());
    for ack in acks {
        let mut first = ack.parse().unwrap_or(Value::Null);
        renumber(&mut first, attachments.len());
        attachments.extend_from_slice(ack.attachments());
        list.push(first);
    }
    Args::one(&list).with_attachments(attachments)
}

/// Makes placeholders name attachments that stand so many places later.
fn renumber(value: &mut Value, by: usize) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| renumber(item, by)),
        Value::Object(object) if object.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = object.get("num").and_then(Value::as_u64).unwrap_or(0);
            object.insert("num".into(), (number + by as u64).into());
        }
        Value::Object(object) => object.values_mut().for_each(|item| renumber(item, by)),
        _ => {}
    }
}
