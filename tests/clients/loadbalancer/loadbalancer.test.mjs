// Behind nginx and HAProxy: every transport works, a client comes back to its server, its address is known, and a server
// can leave without anybody seeing an error.

import assert from "node:assert/strict";
import { Agent } from "node:http";
import { after, before, describe, test } from "node:test";
import { io } from "socket.io-client";
import { ask as call, next, pause, token, until, within } from "../support.mjs";
import { ask, Balancer, startPair } from "./balancer.mjs";

const CLIENTS = 12;
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };

/** A client that comes from an address of its own, and keeps cookies as a browser does. */
function client(balancer, number, transports, options = {}) {
  const from = `127.0.0.${10 + number}`;
  return io(balancer.url, {
    transports,
    auth: { token: token(`user-${number}`) },
    withCredentials: true,
    // A connection a request: nothing but the balancer brings it back to its server.
    agent: new Agent({ localAddress: from, keepAlive: false }),
    forceNew: true,
    reconnectionDelay: 100,
    reconnectionDelayMax: 500,
    ...options,
  });
}

/** Sends a message in a room of one's own and waits until it comes back. */
async function talk(socket, room) {
  const [joined] = await call(socket, "joinRoom", { roomId: room });
  assert.equal(joined.ok, true, JSON.stringify(joined));
  const heard = next(socket, "receiveMessage");
  const [said] = await call(socket, "sendMessage", { roomId: room, content: "hello" });
  assert.equal(said.ok, true, JSON.stringify(said));
  await heard;
}

for (const program of ["nginx", "haproxy"]) {
  for (const file of ["cookie", "source"]) {
    describe(`${program}, affinity and address by ${file === "cookie" ? "cookie and header" : "source and PROXY protocol"}`, () => {
      let servers, balancer;
      before(async () => {
        servers = await startPair({ RATE_HTTP_PER_SECOND: "1", DRAIN_SECONDS: "5" });
        balancer = await new Balancer(program, file, servers).start();
      });
      after(async () => {
        await balancer?.remove();
        await Promise.all(servers?.map((server) => server.remove()) ?? []);
      });

      for (const [name, transports] of Object.entries(TRANSPORTS)) {
        test(`clients by ${name} stay with their server`, async () => {
          const all = await Promise.all(Array.from({ length: CLIENTS }, async (_, number) => {
            const socket = client(balancer, number, transports);
            const lost = [];
            socket.on("disconnect", (reason) => lost.push(reason));
            await next(socket, "connect");
            if (name === "upgrade") await until(() => socket.io.engine.transport.name === "websocket", "the upgrade");
            await talk(socket, `${name}-${number}`);
            await talk(socket, `${name}-${number}`);
            assert.deepEqual(lost, []);
            return socket;
          }));
          assert.equal(new Set(all.map((socket) => socket.id)).size, CLIENTS);
          for (const socket of all) socket.disconnect();
          const opened = await Promise.all(servers.map((server) => server.metric("yum_sessions_opened_total")));
          assert.ok(opened.every((count) => count > 0), `both servers have clients: ${opened}`);
        });
      }

      test("limits are the client's, not the balancer's", async () => {
        // An address may ask 100 times at once, then once a second.
        const path = "/api/messages?roomId=lobby";
        const busy = await Promise.all(Array.from({ length: 260 }, () => ask(balancer.url, path, { from: "127.0.0.200" })));
        assert.ok(busy.some(({ status }) => status === 429), "the busy address is limited");
        const other = await ask(balancer.url, path, { from: "127.0.0.201" });
        assert.equal(other.status, 401, "another one is not");
        if (file === "cookie") {
          // What a client claims does not make it somebody else.
          const liar = await Promise.all(Array.from({ length: 20 }, (_, number) =>
            ask(balancer.url, path, { from: "127.0.0.200", headers: { "x-forwarded-for": `9.9.9.${number}` } })));
          assert.ok(liar.every(({ status }) => status === 429), "a forged address is not believed");
        }
      });

      test("a server leaves, and no client that comes back sees an error", async () => {
        const errors = [];
        const clients = await Promise.all(Object.values(TRANSPORTS).flatMap((transports, kind) =>
          Array.from({ length: 6 }, async (_, number) => {
            const socket = client(balancer, 100 + kind * 10 + number, transports);
            socket.on("connect_error", (error) => errors.push(`${transports}: ${error.message} ${error.description ?? ""}`));
            await next(socket, "connect");
            return socket;
          })));
        const ids = clients.map((socket) => socket.id);
        const [leaving, staying] = servers;
        if (file === "source") {
          await balancer.takeOut(leaving);
          await pause(300);
        }
        const exit = await leaving.stop();
        assert.deepEqual(exit, { code: 0, signal: null });
        await until(() => clients.every((socket) => socket.connected), "everybody is back");
        assert.deepEqual(errors, []);
        const moved = clients.filter((socket, index) => socket.id !== ids[index]).length;
        assert.ok(moved > 0, "somebody had been there");
        await Promise.all(clients.map((socket, number) => talk(socket, `after-${number}`)));
        assert.ok(await staying.metric("yum_sockets") >= clients.length);
        for (const socket of clients) socket.disconnect();
      });
    });
  }
}

test("without affinity, these tests would see it", async () => {
  const servers = await startPair();
  const taking = (text) => text.replace(/^ *cookie yum_server.*$/m, "").replace("balance leastconn", "balance roundrobin");
  const balancer = await new Balancer("haproxy", "cookie", servers, taking).start();
  try {
    const socket = client(balancer, 1, ["polling"], { reconnection: false });
    const outcome = await within(new Promise((done) => {
      socket.on("connect_error", () => done("an error"));
      socket.on("disconnect", () => done("a disconnect"));
      socket.on("connect", () => socket.emit("joinRoom", { roomId: "room" }, () => done("nothing")));
    }), "what comes of it");
    socket.disconnect();
    assert.notEqual(outcome, "nothing");
  } finally {
    await balancer.remove();
    await Promise.all(servers.map((server) => server.remove()));
  }
});
