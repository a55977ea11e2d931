// The chat in a fleet with a server of Node's: what is said in a room is heard in the room on both.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Emitter } from "@socket.io/redis-emitter";
import { io } from "socket.io-client";
import { ask, next, startChat, token, until, within } from "../support.mjs";
import { dial, record, startNode, startRedis } from "./servers.mjs";

describe("the chat beside a server of Node's", () => {
  let redis;
  let chat;
  let node;
  let guest;
  const members = [];
  before(async () => {
    redis = await startRedis();
    node = await startNode(redis);
    chat = await startChat({ shards: 2, env: { REDIS_URL: redis.url } });
    await until(async () => (await redis.listeners("socket.io-request#/#")) === 3, "three nodes");
    [guest] = await dial(node);
    for (let nth = 0; nth < 6; nth += 1) {
      const member = io(chat.url, { forceNew: true, transports: ["websocket"], auth: { token: token(`user${nth}`) } });
      await next(member, "connect");
      members.push(member);
    }
    record([guest, ...members], "receiveMessage", "notice");
  });
  after(async () => {
    for (const client of [guest, ...members]) client?.disconnect();
    assert.ok(node.isAlive(), "Node's server is alive at the end");
    await chat?.remove();
    await node?.remove();
    await redis?.remove();
  });

  test("a stored message is heard by the members on Node's server, too", async () => {
    await ask(guest, "join", "lobby");
    for (const member of members) assert.equal((await ask(member, "joinRoom", { roomId: "lobby" }))[0].ok, true);
    for (let nth = 1; nth <= 30; nth += 1) {
      const [ack] = await ask(members[nth % members.length], "sendMessage", { roomId: "lobby", content: `${nth}` });
      assert.equal(ack.seq, nth);
    }
    const everybody = [guest, ...members];
    await until(() => everybody.every(({ seen }) => seen.length === 30), "the messages");
    for (const { seen } of everybody) {
      assert.deepEqual(seen.splice(0).map(([, { seq, content }]) => [seq, content]), Array.from({ length: 30 }, (_, index) => [index + 1, `${index + 1}`]));
    }
  });

  test("what Node's server and the emitter say comes as it is, and nothing of it counts as stored", async () => {
    guest.emit("to-room", "lobby", "notice", { from: "node", bytes: Buffer.from([1, 2]) });
    new Emitter(redis.client).to("lobby").emit("notice", { from: "emitter" });
    await until(() => members.every(({ seen }) => seen.length === 2), "the notices");
    for (const { seen } of members) {
      assert.deepEqual(new Set(seen.splice(0).map(([, { from }]) => from)), new Set(["node", "emitter"]));
    }
    guest.seen.splice(0);
    // A foreign message of the chat's own name has no number: the room goes on as if it were not.
    guest.emit("to-room", "lobby", "receiveMessage", { roomId: "lobby", seq: 1_000_000, content: "forged" });
    await until(() => members.every(({ seen }) => seen.length === 1), "the foreign message");
    const [ack] = await ask(members[0], "sendMessage", { roomId: "lobby", content: "genuine" });
    assert.equal(ack.seq, 31);
    await until(() => members.every(({ seen }) => seen.length === 2), "the genuine message");
    for (const { seen } of members) assert.deepEqual(seen.splice(0).map(([, { seq }]) => seq), [1_000_000, 31]);
  });

  test("Node's fetchSockets counts the chat's members without waiting in vain", async () => {
    for (let times = 0; times < 5; times += 1) {
      const [ids] = await within(ask(guest, "fetch", "lobby"), "fetchSockets", 2500);
      assert.deepEqual(new Set(ids), new Set([guest, ...members].map(({ id }) => id)));
    }
  });

  test("the emitter disconnects one of the chat's", async () => {
    const member = members.pop();
    const gone = next(member, "disconnect");
    new Emitter(redis.client).in(member.id).disconnectSockets(true);
    await gone;
    member.disconnect();
    const [ids] = await ask(guest, "fetch", "lobby");
    assert.equal(ids.length, members.length + 1);
  });
});

// A proxy stands before the chat: each member comes from 127.0.0.1, and says in its place who it is.
describe("the chat behind a proxy, beside a server of Node's", () => {
  const settings = { "the proxy is trusted": { TRUST_PROXY: "127.0.0.1" }, "no proxy is": { TRUST_PROXY: "none" } };
  for (const [name, env] of Object.entries(settings)) test(`fetchSockets has the client's address: ${name}`, async () => {
    const redis = await startRedis();
    const node = await startNode(redis);
    const chat = await startChat({ shards: 2, env: { REDIS_URL: redis.url, ...env } });
    const members = [];
    try {
      await until(async () => (await redis.listeners("socket.io-request#/#")) === 3, "three nodes");
      const expected = new Map();
      for (const [transport, forwarded, client] of [
        ["websocket", "203.0.113.7", "203.0.113.7"],
        ["polling", "203.0.113.8", "203.0.113.8"],
        // What the client itself wrote there stands to the left of what the proxy adds.
        ["websocket", "198.51.100.1, 2001:db8::9", "2001:db8::9"],
      ]) {
        const extraHeaders = { "X-Forwarded-For": forwarded };
        const member = io(chat.url, { forceNew: true, transports: [transport], extraHeaders, auth: { token: token("walker") } });
        members.push(member);
        await next(member, "connect");
        assert.equal((await ask(member, "joinRoom", { roomId: "gate" }))[0].ok, true);
        expected.set(member.id, env.TRUST_PROXY === "none" ? "127.0.0.1" : client);
      }
      const fetched = await node.ask("fetched", "gate");
      assert.deepEqual(new Map(fetched.map(({ id, handshake }) => [id, handshake.address])), expected);
    } finally {
      for (const member of members) member.disconnect();
      await chat.remove();
      await node.remove();
      await redis.remove();
    }
  });
});
