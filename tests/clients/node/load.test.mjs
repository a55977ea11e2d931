// Order and durability under load: many rooms at once, kill -9, a drain in the middle, clients that stop reading.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { after, describe, test } from "node:test";
import { randomBytes } from "node:crypto";
import { io } from "socket.io-client";
import { ask, LONG, pause, startChat, token, until, within } from "../support.mjs";

const servers = new Set();
async function chat(options) {
  const server = await startChat(options);
  servers.add(server);
  return server;
}
after(async () => { for (const server of servers) await server.remove(); });

const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

async function join(server, name, room, options = {}) {
  const socket = io(server.url, { auth: { token: token(name) }, forceNew: true, transports: ["websocket"], reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
  socket.messages = [];
  socket.on("receiveMessage", (message) => socket.messages.push(message));
  await within(new Promise((done, failed) => { socket.once("connect", done); socket.once("connect_error", failed); }), `${name} to connect`);
  const [answer] = await ask(socket, "joinRoom", { roomId: room });
  assert.equal(answer.ok, true, JSON.stringify(answer));
  return socket;
}

/** All of a room's history, page by page. */
async function history(server, room) {
  const messages = [];
  for (let afterSeq = 0; ;) {
    const { status, body } = await server.get(`/api/messages?roomId=${room}&limit=100&afterSeq=${afterSeq}`, { token: token("reader") });
    assert.equal(status, 200, JSON.stringify(body));
    messages.push(...body.messages);
    if (!body.hasMore) return messages;
    afterSeq = body.nextAfterSeq;
  }
}

describe("order", () => {
  const [ROOMS, CLIENTS, SENDERS, EACH] = LONG ? [8, 20, 4, 500] : [8, 20, 4, 40];
  for (const shards of [1, 2, 4]) {
    test(`${ROOMS} rooms of ${CLIENTS} clients agree with history, SHARDS=${shards}`, async () => {
      const server = await chat({ shards });
      const rooms = range(1, ROOMS).map((number) => ({ name: `load-${number}`, members: [] }));
      for (const room of rooms) {
        // Every third one by polling, so that both transports carry the same rooms.
        room.members = await Promise.all(range(1, CLIENTS).map((number) => join(server, `user-${number}`, room.name, { transports: [number % 3 === 0 ? "polling" : "websocket"] })));
      }
      await Promise.all(rooms.flatMap((room) => room.members.slice(0, SENDERS).map(async (sender, index) => {
        for (let number = 0; number < EACH; number++) {
          const [answer] = await ask(sender, "sendMessage", { roomId: room.name, content: `${index}:${number}` });
          assert.equal(answer.ok, true, JSON.stringify(answer));
        }
      })));
      for (const room of rooms) {
        const stored = await history(server, room.name);
        assert.deepEqual(stored.map((message) => message.seq), range(1, SENDERS * EACH), "dense");
        assert.equal(new Set(stored.map((message) => message.content)).size, SENDERS * EACH, "each once");
        for (const member of room.members) {
          await until(() => member.messages.length >= stored.length, `all of ${room.name}`, 60_000);
          assert.deepEqual(member.messages, stored);
        }
      }
      // Node's client opens a connection for each polling request, so most of them arrive at a shard that is not theirs.
      const moved = await server.metric("yum_connections_moved_total");
      if (shards === 1) assert.equal(moved, 0);
      else assert.ok(moved > 0, "connections moved to their session's shard");
      for (const socket of rooms.flatMap((room) => room.members)) socket.disconnect();
    });
  }
});

describe("durability", () => {
  const ROUNDS = LONG ? 20 : 5;
  test(`whatever was acked is in history once after kill -9, ${ROUNDS} times`, async () => {
    const server = await chat({ shards: 2 });
    const acked = new Map(); // clientMsgId -> seq
    let number = 0;
    const room = "kill";
    for (let round = 0; round < ROUNDS; round++) {
      const senders = await Promise.all(range(1, 8).map((index) => join(server, `sender-${index}`, room, { reconnection: false })));
      let busy = true;
      const loads = senders.map(async (socket) => {
        while (busy && socket.connected) {
          const clientMsgId = `k-${++number}`;
          const answer = await new Promise((done) => {
            socket.once("disconnect", () => done(null));
            socket.emit("sendMessage", { roomId: room, content: clientMsgId, clientMsgId }, done);
          });
          socket.off("disconnect");
          if (answer?.ok) acked.set(clientMsgId, answer.seq);
        }
      });
      const before = acked.size;
      await until(() => acked.size > before + 100, "messages to be acked");
      await pause(50 + 50 * round);
      await server.kill();
      busy = false;
      await Promise.all(loads);
      for (const socket of senders) socket.disconnect();
      await server.start();
    }
    const stored = await history(server, room);
    assert.deepEqual(stored.map((message) => message.seq), range(1, stored.length), "dense");
    const bySeq = new Map(stored.map((message) => [message.clientMsgId, message.seq]));
    assert.equal(bySeq.size, stored.length, "nothing twice");
    for (const [key, seq] of acked) assert.equal(bySeq.get(key), seq, `${key} was acked`);
    assert.ok(acked.size >= 100 * ROUNDS);
    // A resend after the restart is known, and nobody receives it again.
    const socket = await join(server, "sender-1", room);
    const [key] = stored.filter((message) => message.userId === "sender-1").map((message) => message.clientMsgId).slice(-1);
    const [again] = await ask(socket, "sendMessage", { roomId: room, content: key, clientMsgId: key });
    assert.deepEqual([again.ok, again.seq, again.duplicate], [true, bySeq.get(key), true]);
    await pause(200);
    assert.deepEqual(socket.messages, []);
    socket.disconnect();
  });

  test("a drain under load loses nothing that was acked, and tells everybody", async () => {
    const server = await chat({ shards: 2 });
    const room = "drain";
    const acked = [];
    const reasons = [];
    const sockets = await Promise.all(range(1, 60).map((index) => join(server, `user-${index}`, room, { transports: [index % 4 === 0 ? "polling" : "websocket"], reconnection: false })));
    for (const socket of sockets) socket.once("disconnect", (reason) => reasons.push(reason));
    const loads = sockets.slice(0, 6).map(async (socket) => {
      while (socket.connected) {
        const answer = await new Promise((done) => { socket.once("disconnect", () => done(null)); socket.emit("sendMessage", { roomId: room, content: `${acked.length}` }, done); });
        socket.off("disconnect");
        if (answer?.ok) acked.push(answer.seq);
      }
    });
    for (const socket of sockets.slice(0, 6)) socket.once("disconnect", (reason) => reasons.push(reason));
    await until(() => acked.length > 100, "messages to be acked");
    const begun = Date.now();
    const exit = await server.stop();
    assert.deepEqual(exit, { code: 0, signal: null }, server.log);
    assert.ok(Date.now() - begun < 8_000, "within DRAIN_SECONDS=5 and a little");
    await within(Promise.all(loads), "the senders to notice");
    await until(() => sockets.every((socket) => !socket.connected), "everybody to notice");
    for (const reason of reasons) assert.match(reason, /^transport (close|error)$/, "so that clients come back by themselves");
    await server.start();
    const stored = new Set((await history(server, room)).map((message) => message.seq));
    for (const seq of acked) assert.ok(stored.has(seq), `#${seq} was acked`);
    for (const socket of sockets) socket.disconnect();
  });
});

describe("slow consumers", () => {
  const COUNT = 1000;
  test(`${COUNT} sockets that stop reading cost bounded memory and are dropped`, async () => {
    const server = await chat({ shards: 2 });
    const room = "flood";
    const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, "utf8"))[1]) / 1024;
    const stuck = [];
    for (let index = 0; index < COUNT; index += 50) stuck.push(...await Promise.all(range(1, 50).map(() => stoppedReader(server, room))));
    const sender = await join(server, "sender", room);
    const reader = await join(server, "reader", room);
    const calm = resident();
    let peak = calm;
    const content = "x".repeat(60_000);
    const rounds = 200;
    // Somebody else, in another room, asks all the while.
    const bystander = await join(server, "bystander", "elsewhere");
    const waits = [];
    let flooding = true;
    const asking = (async () => {
      while (flooding) {
        const begun = performance.now();
        const [answer] = await ask(bystander, "sendMessage", { roomId: "elsewhere", content: "still quick?" });
        assert.equal(answer.ok, true, JSON.stringify(answer));
        waits.push(performance.now() - begun);
        await pause(5);
      }
    })();
    for (let number = 1; number <= rounds; number++) {
      const [answer] = await ask(sender, "sendMessage", { roomId: room, content });
      assert.equal(answer.ok, true, JSON.stringify(answer));
      peak = Math.max(peak, resident());
    }
    flooding = false;
    await asking;
    waits.sort((one, other) => one - other);
    const late = waits[Math.floor(waits.length * 0.99)];
    assert.ok(late < 5000, `an ack elsewhere took ${Math.round(late)} ms`);
    await until(() => reader.messages.length === rounds, "the reader to have all");
    await until(() => stuck.every((socket) => socket.gone), "the stopped ones to be dropped", 30_000);
    assert.ok(await server.metric("yum_slow_consumers_total") >= COUNT, "each is counted");
    assert.ok(peak - calm < 200, `grew by ${Math.round(peak - calm)} MiB`);
    assert.deepEqual(reader.messages.map((message) => message.seq), range(1, rounds));
    console.log(`grew by ${Math.round(peak - calm)} MiB; acks elsewhere: half within ${waits[waits.length >> 1].toFixed(1)} ms, 99 % within ${late.toFixed(1)} ms`);
    for (const socket of [sender, reader, bystander]) socket.disconnect();
    for (const socket of stuck) socket.destroy();
  });

  /** A WebSocket that joins the room and then reads nothing more. */
  async function stoppedReader(server, room) {
    const socket = connect(server.port, "127.0.0.1");
    socket.gone = false;
    socket.on("error", () => { socket.gone = true; });
    socket.on("close", () => { socket.gone = true; });
    let input = "";
    const sees = async (text) => {
      while (!input.includes(text)) {
        const [data] = await within(new Promise((done) => socket.once("data", (chunk) => done([chunk]))), `"${text}"`);
        input += data.toString("latin1");
      }
    };
    socket.write(`GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`);
    await sees("pingInterval");
    socket.write(frame(`40${JSON.stringify({ token: token("stuck") })}`));
    await sees('40{"sid"');
    socket.write(frame(`420${JSON.stringify(["joinRoom", { roomId: room }])}`));
    await sees('430[');
    socket.pause();
    // A paused stream does not see the end; asking the kernel by writing does.
    const probe = setInterval(() => { if (socket.gone) clearInterval(probe); else socket.write(frame("3")); }, 500);
    socket.on("close", () => clearInterval(probe));
    return socket;
  }

  /** A masked text frame. */
  function frame(text) {
    const data = Buffer.from(text);
    const head = data.length < 126 ? Buffer.from([0x81, 0x80 | data.length]) : Buffer.from([0x81, 0xfe, data.length >> 8, data.length & 0xff]);
    return Buffer.concat([head, Buffer.alloc(4), data]); // a mask of zeros leaves the data as it is
  }
});
