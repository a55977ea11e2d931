// Socket.IO 4.8 on Node: PEER=ws (the default engine) or PEER=uws (uWebSockets.js).
import http from "node:http";
import { createRequire } from "node:module";
import pg from "pg";
import { Server } from "socket.io";
import { INDEX, INSERT, OPTIONS, SELECT, TABLE, adapter, respond, serve } from "./chat.mjs";

async function open() {
  if (!process.env.DATABASE_URL) return null;
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
  await pool.query(TABLE);
  await pool.query(INDEX);
  return {
    append: ({ id, roomId, userId, content, timestamp }) =>
      pool.query({ name: "append", text: INSERT, values: [id, roomId, userId, content, timestamp] }),
    history: async (room, limit) => (await pool.query({ name: "history", text: SELECT, values: [room, limit] })).rows,
  };
}

const port = Number(process.env.PORT);
const store = await open();
const options = { ...OPTIONS, ...(await adapter()) };

if (process.env.PEER === "uws") {
  const { App } = createRequire(import.meta.url)("@trufflesuite/uws-js-unofficial");
  const app = App();
  const io = new Server(options);
  io.attachApp(app);
  serve(io, store);
  app.get("/*", (response, request) => {
    // What the request holds is gone after the first wait.
    const [path, query, authorization] = [request.getUrl(), request.getQuery(), request.getHeader("authorization")];
    let aborted = false;
    response.onAborted(() => (aborted = true));
    respond(path, query, authorization, store).then(([status, body]) => {
      if (aborted) return;
      response.cork(() => {
        response.writeStatus(`${status} ${http.STATUS_CODES[status]}`).writeHeader("content-type", "application/json").end(body);
      });
    });
  });
  app.listen("127.0.0.1", port, (listening) => {
    if (!listening) process.exit(1);
  });
} else {
  const server = http.createServer(async (request, response) => {
    const [path, query] = request.url.split("?");
    const [status, body] = await respond(path, query, request.headers.authorization, store);
    response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
    response.end(body);
  });
  const io = new Server(server, options);
  // As the documentation recommends for memory: the first request is not kept with each connection.
  io.engine.on("connection", (socket) => {
    socket.request = null;
  });
  serve(io, store);
  server.listen(port, "127.0.0.1", 4096);
}
