//! The chat on socketioxide: the same events and paths as project-yum, without its order, numbers and
//! deduplication. Stored with `DATABASE_URL`, over several servers with `REDIS_URL`.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, Data, Extension, SocketRef};
use socketioxide::handler::ConnectHandler;
use socketioxide_redis::{RedisAdapter, RedisAdapterCtr};
use tokio_postgres::NoTls;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS peer_messages (
  seq bigint GENERATED ALWAYS AS IDENTITY, id uuid PRIMARY KEY, room_id text NOT NULL, user_id text NOT NULL,
  content text NOT NULL, timestamp timestamptz NOT NULL);
  CREATE INDEX IF NOT EXISTS peer_messages_room ON peer_messages (room_id, seq)";
const INSERT: &str = "INSERT INTO peer_messages (id, room_id, user_id, content, timestamp) VALUES ($1, $2, $3, $4, $5)";
const SELECT: &str = "SELECT id, user_id, content, timestamp, seq FROM peer_messages
  WHERE room_id = $1 ORDER BY seq DESC LIMIT $2";

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct Auth {
    token: String,
}

#[derive(Deserialize)]
struct Room {
    #[serde(rename = "roomId")]
    room: String,
}

#[derive(Deserialize)]
struct Send {
    #[serde(rename = "roomId")]
    room: String,
    content: String,
}

#[derive(Clone, Serialize)]
struct Message {
    #[serde(rename = "roomId")]
    room: String,
    #[serde(rename = "userId")]
    user: String,
    content: String,
    timestamp: String,
    id: Uuid,
    /// In a page of the history alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
}

#[derive(Clone)]
struct User(Arc<str>);

#[derive(Clone)]
struct Shared {
    pool: Option<Pool>,
    start: Instant,
}

fn verify(token: &str) -> Option<String> {
    static KEY: OnceLock<(DecodingKey, Validation)> = OnceLock::new();
    let (key, validation) = KEY.get_or_init(|| {
        let secret = std::env::var("JWT_SECRET").expect("JWT_SECRET is set");
        let key = DecodingKey::from_secret(secret.as_bytes());
        (key, Validation::new(Algorithm::HS256))
    });
    let token = jsonwebtoken::decode::<Claims>(token, key, validation).ok()?;
    Some(token.claims.sub)
}

/// RFC 3339 with milliseconds.
fn timestamp(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Howard Hinnant's days_to_civil, for days since 1970.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

async fn append(pool: &Pool, message: &Message, at: SystemTime) -> Option<()> {
    let client = pool.get().await.ok()?;
    let insert = client.prepare_cached(INSERT).await.ok()?;
    let Message {
        id,
        room,
        user,
        content,
        ..
    } = message;
    client
        .execute(&insert, &[id, room, user, content, &at])
        .await
        .ok()
        .map(drop)
}

fn refused(code: &str) -> Value {
    json!({"ok": false, "error": {"code": code, "message": code}})
}

/// Says what becomes of events. Before the CONNECT is answered: a client may send at once, and what comes
/// before its handler is there is lost.
fn listen<A: Adapter>(socket: &SocketRef<A>) {
    socket.on(
        "joinRoom",
        async |socket: SocketRef<A>,
               Data(Room { room }): Data<Room>,
               ack: AckSender<A>,
               user: Extension<User>| {
            socket.join(room.clone());
            let notice = json!({"roomId": room, "userId": *user.0.0});
            let _ = socket.to(room.clone()).emit("userJoined", &notice).await;
            ack.send(&json!({"ok": true, "roomId": room})).ok();
        },
    );
    socket.on(
        "leaveRoom",
        async |socket: SocketRef<A>,
               Data(Room { room }): Data<Room>,
               ack: AckSender<A>,
               user: Extension<User>| {
            socket.leave(room.clone());
            let notice = json!({"roomId": room, "userId": *user.0.0});
            let _ = socket.to(room.clone()).emit("userLeft", &notice).await;
            ack.send(&json!({"ok": true, "roomId": room})).ok();
        },
    );
    socket.on("sendMessage", send::<A>);
    socket.on_disconnect(async |socket: SocketRef<A>, user: Extension<User>| {
        for room in socket.rooms() {
            let notice = json!({"roomId": room, "userId": *user.0.0});
            let _ = socket.to(room).emit("userLeft", &notice).await;
        }
    });
}

async fn send<A: Adapter>(
    socket: SocketRef<A>,
    Data(Send { room, content }): Data<Send>,
    ack: AckSender<A>,
    Extension(user): Extension<User>,
    socketioxide::extract::State(shared): socketioxide::extract::State<Shared>,
) {
    if room.is_empty() || room.len() > 128 || content.is_empty() || content.len() > 65_536 {
        ack.send(&refused("invalid_payload")).ok();
        return;
    }
    if !socket.rooms().iter().any(|joined| **joined == *room) {
        ack.send(&refused("not_in_room")).ok();
        return;
    }
    let at = SystemTime::now();
    let message = Message {
        room,
        user: user.0.to_string(),
        content,
        timestamp: timestamp(at),
        id: Uuid::new_v4(),
        seq: None,
    };
    if let Some(pool) = &shared.pool
        && append(pool, &message, at).await.is_none()
    {
        ack.send(&refused("unavailable")).ok();
        return;
    }
    let _ = socket
        .within(message.room.clone())
        .emit("receiveMessage", &message)
        .await;
    ack.send(&json!({"ok": true, "id": message.id, "timestamp": message.timestamp}))
        .ok();
}

/// Checks the token of a CONNECT.
async fn admit<A: Adapter>(
    socket: SocketRef<A>,
    Data(auth): Data<Auth>,
) -> Result<(), &'static str> {
    let user = verify(&auth.token).ok_or("unauthorized")?;
    socket.extensions.insert(User(user.into()));
    listen(&socket);
    Ok(())
}

async fn on_connect<A: Adapter>(_socket: SocketRef<A>) {}

async fn health(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({"status": "ok", "uptimeSeconds": shared.start.elapsed().as_secs()}))
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "roomId")]
    room: String,
    limit: Option<i64>,
}

async fn messages(
    State(shared): State<Shared>,
    Query(Page { room, limit }): Query<Page>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    token.and_then(verify).ok_or(StatusCode::UNAUTHORIZED)?;
    let failed = StatusCode::SERVICE_UNAVAILABLE;
    let client = shared
        .pool
        .as_ref()
        .ok_or(failed)?
        .get()
        .await
        .map_err(|_| failed)?;
    let select = client.prepare_cached(SELECT).await.map_err(|_| failed)?;
    let limit = limit.unwrap_or(50).clamp(1, 100);
    // One more than asked tells whether there are more.
    let mut rows = client
        .query(&select, &[&room, &(limit + 1)])
        .await
        .map_err(|_| failed)?;
    let asked = usize::try_from(limit).unwrap_or_default();
    let has_more = rows.len() > asked;
    rows.truncate(asked);
    let messages = rows.iter().rev().map(|row| Message {
        room: room.clone(),
        id: row.get(0),
        user: row.get(1),
        content: row.get(2),
        timestamp: timestamp(row.get(3)),
        seq: row.get(4),
    });
    let messages: Vec<Message> = messages.collect();
    let next = messages.first().and_then(|first| first.seq);
    Ok(Json(json!({
        "roomId": room,
        "messages": messages,
        "hasMore": has_more,
        "nextBeforeSeq": next,
    })))
}

async fn open() -> Option<Pool> {
    let url = std::env::var("DATABASE_URL")
        .ok()
        .filter(|url| !url.is_empty())?;
    let config = url.parse().expect("DATABASE_URL is one of PostgreSQL");
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(config, NoTls, recycling);
    let pool = Pool::builder(manager).max_size(10).build().expect("a pool");
    let client = pool.get().await.expect("PostgreSQL answers");
    client
        .batch_execute(TABLE)
        .await
        .expect("the table can be made");
    drop(client);
    Some(pool)
}

#[tokio::main]
async fn main() {
    let shared = Shared {
        pool: open().await,
        start: Instant::now(),
    };
    let router = axum::Router::new()
        .route("/health", get(health))
        .route("/api/messages", get(messages))
        .with_state(shared.clone());
    let builder = SocketIo::builder()
        .with_state(shared)
        .ping_interval(Duration::from_secs(25));
    let router = match std::env::var("REDIS_URL")
        .ok()
        .filter(|url| !url.is_empty())
    {
        Some(url) => {
            let client =
                redis::Client::open(format!("{url}?protocol=resp3")).expect("REDIS_URL is one");
            let adapter = RedisAdapterCtr::new_with_redis(&client)
                .await
                .expect("Redis answers");
            let (layer, io) = builder
                .with_adapter::<RedisAdapter<_>>(adapter)
                .build_layer();
            io.ns("/", on_connect.with(admit))
                .await
                .expect("the namespace begins");
            router.layer(layer)
        }
        None => {
            let (layer, io) = builder.build_layer();
            io.ns("/", on_connect.with(admit));
            router.layer(layer)
        }
    };
    let port = std::env::var("PORT").unwrap_or_default();
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("the port is free");
    use axum::serve::ListenerExt as _;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.expect("it serves");
}
