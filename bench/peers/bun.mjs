// Socket.IO 4.8 on Bun, with the engine that its authors made for it.
import { Server as Engine } from "@socket.io/bun-engine";
import { SQL } from "bun";
import { Server } from "socket.io";
import { INDEX, INSERT, OPTIONS, SELECT, TABLE, adapter, respond, serve } from "./chat.mjs";

async function open() {
  if (!process.env.DATABASE_URL) return null;
  const sql = new SQL(process.env.DATABASE_URL, { max: 10 });
  await sql.unsafe(TABLE);
  await sql.unsafe(INDEX);
  return {
    append: ({ id, roomId, userId, content, timestamp }) =>
      sql.unsafe(INSERT, [id, roomId, userId, content, timestamp]),
    history: async (room, limit) => [...(await sql.unsafe(SELECT, [room, limit]))],
  };
}

const store = await open();
const engine = new Engine({ path: OPTIONS.path, maxHttpBufferSize: OPTIONS.maxHttpBufferSize });
const io = new Server(await adapter());
io.bind(engine);
serve(io, store);
const handler = engine.handler();

export default {
  ...handler,
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  async fetch(request, server) {
    const { pathname, search } = new URL(request.url);
    if (pathname.startsWith(OPTIONS.path)) return engine.handleRequest(request, server);
    const [status, body] = await respond(pathname, search, request.headers.get("authorization"), store);
    return new Response(body, { status, headers: { "content-type": "application/json" } });
  },
};
