// Starts the server as a newcomer does, with nothing set, and reads what it serves: page, health, two tokens that work.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { ask, next, startDemo } from "../support.mjs";

const server = await startDemo();
try {
  const page = await server.get("/");
  assert.equal(page.status, 200);
  assert.match(page.headers.get("content-type"), /^text\/html/);
  const demo = JSON.parse(/<script type="application\/json" id="demo">(.*?)<\/script>/s.exec(page.text)[1]);
  for (const { id, token } of demo.users) {
    const socket = io(server.url, { auth: { token } });
    await next(socket, "connect");
    const [answer] = await ask(socket, "joinRoom", { roomId: demo.room });
    assert.equal(answer.ok, true, JSON.stringify(answer));
    socket.disconnect();
    console.log(`${id} can enter ${demo.room}`);
  }
} finally {
  const exit = await server.remove();
  assert.deepEqual(exit, { code: 0, signal: null }, server.log);
}
console.log("started, served, stopped");
