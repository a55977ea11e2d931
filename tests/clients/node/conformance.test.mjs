// Three generations of the official client against the conformance server, by each transport.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ask, LONG, next, startConformance, until, within } from "../support.mjs";

const CLIENTS = { "4.8": "socket.io-client", "4.0": "socket.io-client-4.0", "3.1": "socket.io-client-3.1" };
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
const BURST = 1000;
const NAMESPACES = LONG ? 100 : 30;

for (const shards of [1, 4]) {
  describe(`conformance server with SHARDS=${shards}`, () => {
    let server;
    before(async () => { server = await startConformance({ shards }); });
    after(() => server.remove());
    for (const [version, packageName] of Object.entries(CLIENTS)) {
      for (const [name, transports] of Object.entries(TRANSPORTS)) {
        describe(`socket.io-client ${version} by ${name}`, () => matrix(() => server, packageName, transports));
      }
    }
  });
}

function matrix(server, packageName, transports) {
  let io;
  let socket;
  before(async () => {
    const client = await import(packageName);
    io = client.io ?? client.default;
  });
  after(() => socket?.disconnect());

  const dial = (path = "", options = {}) => io(server().url + path, { forceNew: true, transports, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
  const connected = async (path, options) => {
    const fresh = dial(path, options);
    await within(new Promise((done, failed) => { fresh.once("connect", done); fresh.once("connect_error", failed); }), `a connection to ${path || "/"}`);
    return fresh;
  };
  /** Emits an event and gives what comes back under `answer`. */
  const echo = (event, answer, ...args) => { const back = next(socket, answer); socket.emit(event, ...args); return back; };
  const transportName = () => socket.io.engine.transport.name;
  /** Buffers in what came, as plain numbers: clients differ in the class that they give. */
  const bytes = (value) => [...(value instanceof ArrayBuffer ? new Uint8Array(value) : value)];

  test("connects, and the auth payload arrives as the first event", async () => {
    socket = dial("", { auth: { token: "123", nested: { list: [1, "two", null] } } });
    const [auth] = await next(socket, "auth");
    assert.deepEqual(auth, { token: "123", nested: { list: [1, "two", null] } });
    assert.equal(socket.connected, true);
    assert.equal(socket.id.length, 20);
    assert.notEqual(socket.id, socket.io.engine.id, "the session's id is a secret");
  });

  test("ends on the transport that was asked for", async () => {
    const expected = transports.at(-1);
    await until(() => transportName() === expected, `transport ${expected}`);
    await until(async () => (await ask(socket, "transport"))[0] === expected, `the server to be on ${expected}`);
  });

  test("events carry every kind of JSON value", async () => {
    const values = [1, -0.5, 1e21, "2", true, false, null, [], {}, [[], [{}]], { b: 1, a: { z: [1, 2], "": 0 }, __proto_: 1 }];
    assert.deepEqual(await echo("message", "message-back", ...values), values);
    assert.deepEqual(await echo("message", "message-back"), []);
  });

  test("unicode arrives as it was sent", async () => {
    const text = "žluťoučký kůň · 日本語 · 🐎👩‍👩‍👧‍👦 · \u0000\u001e\u007f\u2028\u2029 · \"\\/ · עברית";
    assert.deepEqual(await echo("message", "message-back", text, { [text]: text }), [text, { [text]: text }]);
    assert.deepEqual(await ask(socket, "message-with-ack", text), [text]);
  });

  test("acks come back with their arguments", async () => {
    assert.deepEqual(await ask(socket, "message-with-ack"), []);
    assert.deepEqual(await ask(socket, "message-with-ack", 1, "2", { 3: [true] }), [1, "2", { 3: [true] }]);
    const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => ask(socket, "message-with-ack", index)));
    assert.deepEqual(answers, Array.from({ length: 50 }, (_, index) => [index]));
  });

  test("the server asks for acks too, with a time-out", async () => {
    const question = new Promise((done) => socket.once("emit-with-ack", (...args) => { args.pop()("answer", ...args); done(args); }));
    socket.emit("emit-with-ack", 1, "two");
    assert.deepEqual(await within(question, "the question"), [1, "two"]);
    assert.deepEqual(await next(socket, "emit-with-ack"), ["answer", 1, "two"]);
    assert.deepEqual(await echo("ack-timeout", "ack-timeout", 60), [true], "nobody answered");
    socket.once("no-reply", (...args) => args.pop()());
    assert.deepEqual(await echo("ack-timeout", "ack-timeout", 15_000), [false], "answered in time");
  });

  test("binary comes back as binary, wherever it is nested", async () => {
    const one = Buffer.from([1, 2, 3]);
    const two = Buffer.from([0, 255, 30, 10, 128]);
    const [direct, nested, list] = await echo("message", "message-back", one, { deep: { two } }, ["x", one, { two }]);
    assert.deepEqual(bytes(direct), [...one]);
    assert.deepEqual(bytes(nested.deep.two), [...two]);
    assert.deepEqual([list[0], bytes(list[1]), bytes(list[2].two)], ["x", [...one], [...two]]);
    const [acked] = await ask(socket, "message-with-ack", { two });
    assert.deepEqual(bytes(acked.two), [...two]);
    const [empty] = await ask(socket, "message-with-ack", Buffer.alloc(0));
    assert.deepEqual(bytes(empty), []);
    const ten = await ask(socket, "message-with-ack", ...Array.from({ length: 10 }, (_, index) => Buffer.from([index])));
    assert.deepEqual(ten.map(bytes), Array.from({ length: 10 }, (_, index) => [index]));
  });

  test("messages of 900 KB go both ways, and binary up to the limit", async () => {
    const text = "0123456789".repeat(90_000);
    const [back] = await echo("message", "message-back", text);
    assert.ok(back === text, "the text came back whole");
    // By polling the limit counts base64, which is a third longer.
    const size = transportName() === "websocket" ? 1_000_000 : 740_000;
    const data = Buffer.alloc(size);
    for (let index = 0; index < size; index += 997) data[index] = index % 251;
    const [answer] = await ask(socket, "message-with-ack", data);
    assert.ok(Buffer.from(answer).equals(data), "the bytes came back whole");
  });

  test("a thousand events in a burst stay in order", async () => {
    const numbers = Array.from({ length: BURST }, (_, index) => index);
    const received = [];
    const collect = (number) => received.push(number);
    socket.on("message-back", collect);
    for (const number of numbers) socket.emit("message", number);
    await until(() => received.length >= BURST, `${BURST} answers, have ${received.length}`);
    socket.off("message-back", collect);
    assert.deepEqual(received, numbers);
  });

  test("many namespaces share one connection", async () => {
    const manager = socket.io;
    const spaces = Array.from({ length: NAMESPACES }, (_, index) => manager.socket(index === 0 ? "/custom" : `/dyn-${index}`));
    try {
      await Promise.all(spaces.map((space) => next(space, "connect")));
      const answers = await Promise.all(spaces.map((space, index) => ask(space, "message-with-ack", space.nsp, index)));
      assert.deepEqual(answers, spaces.map((space, index) => [space.nsp, index]));
      assert.equal(new Set(spaces.map((space) => space.id)).size, NAMESPACES, "each has an id of its own");
    } finally {
      for (const space of spaces) space.disconnect();
    }
    assert.deepEqual(await ask(socket, "message-with-ack", "still here"), ["still here"]);
  });

  test("unknown and refusing namespaces say why", async () => {
    for (const [path, message, data] of [["/nobody", "Invalid namespace", undefined], ["/reject", "not authorized", { code: "E_AUTH", status: 401 }]]) {
      const refused = dial(path);
      const [error] = await next(refused, "connect_error");
      assert.equal(error.message, message);
      assert.deepEqual(error.data, data);
      refused.disconnect();
    }
  });

  test("rooms deliver to their members", async () => {
    const room = `room-${Math.random()}`;
    const others = [await connected(), await connected(), await connected()];
    try {
      for (const member of [socket, others[0], others[1]]) assert.deepEqual(await ask(member, "join", room), ["ok"]);
      assert.deepEqual((await ask(socket, "rooms"))[0].sort(), [socket.id, room].sort());
      assert.deepEqual((await ask(socket, "fetch", room))[0].sort(), [socket.id, others[0].id, others[1].id].sort());
      const seen = [socket, ...others].map((member) => { const list = []; member.on("told", (...args) => list.push(args)); return list; });
      socket.emit("to-room", room, "told", "to");
      socket.emit("in-room", [room, room], "told", "in", { n: 1 });
      socket.emit("in-room-except", room, others[0].id, "told", "except");
      const expected = [[["in", { n: 1 }], ["except"]], [["to"], ["in", { n: 1 }]], [["to"], ["in", { n: 1 }], ["except"]], []];
      await until(() => seen.every((list, index) => list.length >= expected[index].length), "the broadcasts");
      for (const member of [socket, ...others]) await ask(member, "message-with-ack");
      assert.deepEqual(seen, expected);
      for (const member of [socket, others[0], others[1]]) member.once("question", (...args) => args.pop()(member.id));
      const answers = next(socket, "room-acks");
      socket.emit("room-ack", room, 15_000, "question");
      assert.deepEqual((await answers)[0].sort(), [socket.id, others[0].id, others[1].id].sort());
      assert.deepEqual(await ask(others[1], "leave", room), ["ok"]);
      assert.equal((await ask(socket, "fetch", room))[0].length, 2);
    } finally {
      for (const other of others) other.disconnect();
    }
  });

  test("the server can disconnect a socket, or the whole connection", async () => {
    for (const whole of [false, true]) {
      const doomed = await connected("", { reconnection: false });
      const reason = next(doomed, "disconnect");
      doomed.emit("disconnect-me", whole);
      assert.equal((await reason)[0], "io server disconnect");
      doomed.disconnect();
    }
  });

  test("comes back by itself when the server has restarted", async () => {
    const before = socket.id;
    const again = next(socket, "connect");
    await server().restart();
    await again;
    assert.notEqual(socket.id, before);
    assert.deepEqual(await ask(socket, "message-with-ack", "again"), ["again"]);
  });
}
