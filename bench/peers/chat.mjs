// The chat on Socket.IO, for every peer that is written in JavaScript: the same events and paths as project-yum,
// without its order, numbers and deduplication. Stored with DATABASE_URL, over several servers with REDIS_URL.
import { createHmac, createSecretKey, randomUUID, timingSafeEqual } from "node:crypto";

// A KeyObject: with a string the key would be prepared anew for each token, which costs far more than the check itself.
const key = createSecretKey(Buffer.from(process.env.JWT_SECRET));

export function verify(token) {
  const [head, body, signature] = String(token).split(".");
  if (JSON.parse(Buffer.from(head, "base64url")).alg !== "HS256") throw new Error("algorithm");
  const expected = createHmac("sha256", key).update(`${head}.${body}`).digest();
  const given = Buffer.from(signature, "base64url");
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw new Error("signature");
  const claims = JSON.parse(Buffer.from(body, "base64url"));
  if (typeof claims.sub !== "string" || !(claims.exp > Date.now() / 1000)) throw new Error("claims");
  return claims.sub;
}

const isRoom = (room) => typeof room === "string" && room.length > 0 && room.length <= 128;
const isContent = (content) => typeof content === "string" && content.length > 0 && content.length <= 65536;

// `store` has append(message) and history(room, limit), or is null: then nothing is kept.
export function serve(io, store) {
  io.use((socket, next) => {
    try {
      socket.data.user = verify(socket.handshake.auth.token);
      next();
    } catch {
      next(new Error("unauthorized"));
    }
  });
  io.on("connection", (socket) => {
    const user = socket.data.user;
    socket.on("joinRoom", (payload, ack) => {
      const room = payload?.roomId;
      if (!isRoom(room)) return ack?.({ ok: false, error: { code: "invalid_payload", message: "roomId" } });
      socket.join(room);
      socket.to(room).emit("userJoined", { roomId: room, userId: user });
      ack?.({ ok: true, roomId: room });
    });
    socket.on("leaveRoom", (payload, ack) => {
      const room = payload?.roomId;
      socket.leave(room);
      socket.to(room).emit("userLeft", { roomId: room, userId: user });
      ack?.({ ok: true, roomId: room });
    });
    socket.on("sendMessage", async (payload, ack) => {
      const { roomId, content } = payload ?? {};
      if (!isRoom(roomId) || !isContent(content)) {
        return ack?.({ ok: false, error: { code: "invalid_payload", message: "roomId, content" } });
      }
      if (!socket.rooms.has(roomId)) return ack?.({ ok: false, error: { code: "not_in_room", message: "join first" } });
      const message = { roomId, userId: user, content, timestamp: new Date().toISOString(), id: randomUUID() };
      try {
        if (store) await store.append(message);
      } catch {
        return ack?.({ ok: false, error: { code: "unavailable", message: "not stored" } });
      }
      io.to(roomId).emit("receiveMessage", message);
      ack?.({ ok: true, id: message.id, timestamp: message.timestamp });
    });
    socket.on("disconnecting", () => {
      for (const room of socket.rooms) {
        if (room !== socket.id) socket.to(room).emit("userLeft", { roomId: room, userId: user });
      }
    });
  });
}

// Answers GET: [status, body].
export async function respond(path, query, authorization, store) {
  if (path === "/health") {
    return [200, JSON.stringify({ status: "ok", uptimeSeconds: Math.floor(process.uptime()) })];
  }
  if (path !== "/api/messages") return [404, '{"error":{"code":"not_found"}}'];
  try {
    verify(authorization?.split(" ")[1]);
  } catch {
    return [401, '{"error":{"code":"unauthorized"}}'];
  }
  const parameters = new URLSearchParams(query);
  const room = parameters.get("roomId");
  const limit = Math.min(Math.max(Number(parameters.get("limit") ?? 50) || 50, 1), 100);
  if (!isRoom(room) || !store) return [400, '{"error":{"code":"invalid_payload"}}'];
  // One more than asked tells whether there are more.
  const rows = await store.history(room, limit + 1);
  const messages = rows.slice(0, limit).reverse();
  const body = { roomId: room, messages, hasMore: rows.length > limit, nextBeforeSeq: messages[0]?.seq ?? null };
  return [200, JSON.stringify(body)];
}

export const TABLE = `CREATE TABLE IF NOT EXISTS peer_messages (
  seq bigint GENERATED ALWAYS AS IDENTITY, id uuid PRIMARY KEY, room_id text NOT NULL, user_id text NOT NULL,
  content text NOT NULL, timestamp timestamptz NOT NULL)`;
export const INDEX = "CREATE INDEX IF NOT EXISTS peer_messages_room ON peer_messages (room_id, seq)";
export const INSERT = "INSERT INTO peer_messages (id, room_id, user_id, content, timestamp) VALUES ($1, $2, $3, $4, $5)";
export const SELECT = `SELECT id, room_id AS "roomId", user_id AS "userId", content, timestamp, seq::int AS seq FROM peer_messages
  WHERE room_id = $1 ORDER BY seq DESC LIMIT $2`;

export const OPTIONS = { path: "/socket.io/", perMessageDeflate: false, maxHttpBufferSize: 1e6 };

export async function adapter() {
  if (!process.env.REDIS_URL) return {};
  const { Redis } = await import("ioredis");
  const { createAdapter } = await import("@socket.io/redis-adapter");
  const publishing = new Redis(process.env.REDIS_URL);
  return { adapter: createAdapter(publishing, publishing.duplicate()) };
}
