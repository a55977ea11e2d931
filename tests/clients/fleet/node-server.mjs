// A Socket.IO server as the official packages make it, with the same events as the conformance server
// (tests/conformance/app.rs). Run by `fork`: it says {port} once it serves, and does what its parent asks.

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const publisher = createClient({ url: process.env.REDIS_URL });
const subscriber = publisher.duplicate();
for (const client of [publisher, subscriber]) client.on("error", (error) => console.error(`redis: ${error}`));
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const io = new Server(http, { adapter: createAdapter(publisher, subscriber) });

for (const name of ["/", "/custom"]) {
  const namespace = io.of(name);
  namespace.on("connection", (socket) => serve(namespace, socket));
  namespace.on("hello", (...args) => {
    const ack = typeof args.at(-1) === "function" ? args.pop() : null;
    namespace.local.emit("server-side-hello", ...args);
    ack?.(args[0]);
  });
}

function serve(namespace, socket) {
  const on = (event, handler) => socket.on(event, (...args) => handler(...args));
  on("message", (...args) => socket.emit("message-back", ...args));
  on("join", async (room, ack) => { await socket.join(room); ack("ok"); });
  on("leave", async (room, ack) => { await socket.leave(room); ack("ok"); });
  on("rooms", (ack) => ack([...socket.rooms]));
  on("to-room", (room, ...event) => socket.to(room).emit(...event));
  on("in-room", (room, ...event) => namespace.in(room).emit(...event));
  on("in-room-except", (room, except, ...event) => namespace.in(room).except(except).emit(...event));
  on("room-ack", (room, ms, ...event) => namespace.in(room).timeout(ms).emit(...event, (error, acks) => {
    socket.emit(error ? "room-acks-timeout" : "room-acks", acks);
  }));
  on("fetch", async (room, ack) => ack((await namespace.in(room).fetchSockets()).map(({ id }) => id)));
  on("server-side", (...args) => namespace.serverSideEmit("hello", ...args));
  on("server-side-ack", (...args) => {
    const ack = args.pop();
    namespace.serverSideEmit("hello", ...args, (error, acks) => ack(acks));
  });
  on("remote-join", (room, joined) => namespace.in(room).socketsJoin(joined));
  on("remote-leave", (room, left) => namespace.in(room).socketsLeave(left));
  on("remote-disconnect", (room, close) => namespace.in(room).disconnectSockets(close));
}

/** What the parent may ask beside, by name. */
const asked = {
  volatile: (room, ...event) => { io.to(room).volatile.compress(false).emit(...event); },
  number: (room, ...event) => { io.to(Number(room)).emit(...event); },
  fetched: async (room) => (await io.in(room).fetchSockets()).map(({ id, rooms, handshake, data }) => ({ id, rooms: [...rooms], handshake, data })),
  allRooms: async () => [...await io.of("/").adapter.allRooms()],
  serverCount: () => io.of("/").adapter.serverCount(),
};

process.on("message", async ({ id, name, args }) => {
  try {
    process.send({ id, value: await asked[name](...args) ?? null });
  } catch (error) {
    process.send({ id, error: String(error) });
  }
});
process.on("disconnect", () => process.exit(0));

http.listen(0, "127.0.0.1", () => process.send({ port: http.address().port }));
