// Servers of two kinds in one fleet: Node's with the official Redis adapter, and ours.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Emitter } from "@socket.io/redis-emitter";
import { ask, LONG, next, PATIENCE_MS, until, within } from "../support.mjs";
import { dial, record, startNode, startOurs, startRedis, together } from "./servers.mjs";

/** An answer that takes longer was waited for in vain: the adapter gives up after 5 s. */
const SOON_MS = 2500;
const VALKEY = process.env.VALKEY_SERVER;
const FLEETS = [
  ["ours and Node's", [startOurs, startNode], "redis-server"],
  ["two of ours", [startOurs, startOurs], "redis-server"],
  ...(LONG ? [["two of Node's", [startNode, startNode], "redis-server"]] : []),
  ...(VALKEY ? [["ours and Node's, on Valkey", [startOurs, startNode], VALKEY]] : []),
];

let roomCount = 0;
/** A room of this test alone. */
const room = () => `room ${roomCount += 1}`;
/** Buffers as plain numbers, wherever they are. */
const plain = (value) => JSON.parse(JSON.stringify(value, (_, inner) => inner?.type === "Buffer" ? { bytes: inner.data } : inner));
const soon = (promise, what) => within(promise, what, SOON_MS);
const sorted = (list) => [...list].sort();

for (const [title, starts, program] of FLEETS) {
  describe(title, () => {
    let redis;
    let servers = [];
    let sides = [];
    let emitter;
    before(async () => {
      redis = await startRedis(program);
      emitter = new Emitter(redis.client);
      for (const start of starts) servers.push(await start(redis));
      await together(redis, servers);
      for (const server of servers) sides.push(await dial(server));
      record(sides.flat(), "ev", "marker", "server-side-hello");
    });
    after(async () => {
      for (const client of sides.flat()) client.disconnect();
      for (const server of servers) assert.ok(server.isAlive(), `${server.kind} is alive at the end`);
      for (const server of servers) await server.remove();
      await redis?.remove();
    });

    const everybody = () => sides.flat();
    const join = async (name, clients = everybody()) => { for (const client of clients) assert.deepEqual(await ask(client, "join", name), ["ok"]); };
    /** One client of each side, and the clients of the other. */
    const directions = () => [[sides[0][0], sides[1]], [sides[1][0], sides[0]]];
    /** What everybody has got since the last time, once all that was sent by `from` has come. */
    const gathered = async (from) => {
      const nonce = Math.random();
      for (const client of from ? [from] : []) client.emit("in-room", everybody().map(({ id }) => id), "marker", nonce);
      if (!from) emitter.emit("marker", nonce);
      const isMarked = (client) => client.seen.some(([event, value]) => event === "marker" && value === nonce);
      await until(() => everybody().every(isMarked), "the marker");
      return everybody().map((client) => client.seen.splice(0).filter(([event]) => event !== "marker"));
    };
    /** Asserts that exactly these clients got exactly one event. */
    const assertGot = async (from, clients, ...args) => {
      const got = await gathered(from);
      everybody().forEach((client, index) => {
        const expected = clients.includes(client) ? [["ev", ...args]] : [];
        assert.deepEqual(plain(got[index]), plain(expected), `client ${index}`);
      });
    };

    test("a broadcast reaches the members on both, whatever is in it", async () => {
      const name = room();
      await join(name);
      const values = [0, -1, 255, 65_536, 2 ** 53, -(2 ** 31), 0.1, -2.5e-9, "", "ä\u2028\"\\\n😀", "x".repeat(70_000), true, null, [], {}, [[[1], "a"]],
        { a: { b: Buffer.from([1, 2, 3]), "c d": [Buffer.alloc(300, 7)] } }, Buffer.alloc(0), Array.from({ length: 40 }, (_, nth) => nth),
        Object.fromEntries(Array.from({ length: 20 }, (_, nth) => [`key${nth}`, nth]))];
      for (const [from] of directions()) {
        from.emit("in-room", name, "ev", ...values);
        await assertGot(from, everybody(), ...values);
      }
    });

    test("leaves out the sender, and whoever is not there", async () => {
      const name = room();
      for (const [from, others] of directions()) {
        await join(name, [from, others[0]]);
        from.emit("to-room", name, "ev", 1);
        await assertGot(from, [others[0]], 1);
        for (const client of [from, others[0]]) await ask(client, "leave", name);
      }
    });

    test("several rooms add up, exceptions are left out", async () => {
      const [one, two] = [room(), room()];
      await join(one);
      await join(two, [sides[0][0], sides[1][0]]);
      for (const [from] of directions()) {
        from.emit("in-room", [one, two, room()], "ev", 2);
        await assertGot(from, everybody(), 2);
        from.emit("in-room-except", one, two, "ev", 3);
        await assertGot(from, everybody().filter((client) => client !== sides[0][0] && client !== sides[1][0]), 3);
      }
    });

    test("a socket's id is a room", async () => {
      for (const [from, others] of directions()) {
        for (const other of others) {
          from.emit("in-room", other.id, "ev", 4);
          await assertGot(from, [other], 4);
        }
      }
    });

    test("acknowledgements of all members come together", async () => {
      const name = room();
      await join(name);
      everybody().forEach((client, index) => client.on("ask", (value, blob, ack) => ack({ index, value, blob, bytes: Buffer.from([index]) })));
      for (const [from] of directions()) {
        const acks = next(from, "room-acks", SOON_MS);
        from.emit("room-ack", name, PATIENCE_MS, "ask", "what", Buffer.from([9]));
        const answers = (await acks)[0].sort((a, b) => a.index - b.index);
        const expected = everybody().map((_, index) => ({ index, value: "what", blob: Buffer.from([9]), bytes: Buffer.from([index]) }));
        assert.deepEqual(plain(answers), plain(expected));
      }
    });

    test("fetchSockets counts both, and waits for nobody", async () => {
      const name = room();
      await join(name);
      for (const [from] of directions()) {
        for (let times = 0; times < 10; times += 1) {
          const [ids] = await soon(ask(from, "fetch", name), "fetchSockets");
          assert.deepEqual(sorted(ids), sorted(everybody().map(({ id }) => id)));
        }
      }
    });

    test("a server-side emit reaches all other nodes, once", async () => {
      for (const [from] of directions()) {
        from.emit("server-side", "news", { nested: [1] });
        const got = await gathered(from);
        everybody().forEach((client, index) => {
          assert.deepEqual(got[index], client === from ? [] : [["server-side-hello", "news", { nested: [1] }]], `client ${index}`);
        });
      }
    });

    test("a server-side emit is answered by all other nodes", async () => {
      for (const [from] of directions()) {
        const [answers] = await soon(ask(from, "server-side-ack", { question: 1 }), "the answers");
        assert.deepEqual(answers, Array.from({ length: everybody().length - 1 }, () => ({ question: 1 })));
        await gathered(from);
      }
    });

    test("sockets join and leave from afar", async () => {
      for (const [from] of directions()) {
        const [first, second] = [room(), room()];
        await join(first);
        from.emit("remote-join", first, second);
        await until(async () => (await Promise.all(everybody().map((client) => ask(client, "rooms")))).every(([rooms]) => rooms.includes(second)), "the joins");
        from.emit("in-room", second, "ev", 6);
        await assertGot(from, everybody(), 6);
        from.emit("remote-leave", first, second);
        await until(async () => (await Promise.all(everybody().map((client) => ask(client, "rooms")))).every(([rooms]) => !rooms.includes(second)), "the leaves");
        from.emit("in-room", second, "ev", 7);
        await assertGot(from, []);
      }
    });

    test("sockets are disconnected from afar", async () => {
      for (const [index, [from]] of directions().entries()) {
        const guests = await dial(servers[1 - index]);
        const name = room();
        await join(name, guests);
        const reasons = guests.map((guest) => next(guest, "disconnect"));
        from.emit("remote-disconnect", name, index === 0);
        for (const reason of reasons) assert.match((await reason)[0], index === 0 ? /server disconnect|transport close/ : /server disconnect/);
        for (const guest of guests) guest.disconnect();
      }
    });

    test("namespaces do not hear each other", async () => {
      const customs = [await dial(servers[0], "/custom"), await dial(servers[1], "/custom")];
      const name = room();
      await join(name);
      record(customs.flat(), "ev");
      await join(name, customs.flat());
      customs[0][0].emit("in-room", name, "ev", "custom");
      await until(() => customs.flat().every((client) => client.seen.length === 1), "the event in /custom");
      customs[1][0].emit("in-room", name, "ev", "custom");
      await until(() => customs.flat().every((client) => client.seen.length === 2), "the event in /custom");
      await assertGot(sides[0][0], []);
      emitter.of("/custom").to(name).emit("ev", "emitted");
      await until(() => customs.flat().every((client) => client.seen.length === 3), "the emitted event in /custom");
      await assertGot(null, []);
      for (const client of customs.flat()) client.disconnect();
    });

    test("the emitter reaches everybody, rooms and sockets", async () => {
      const [one, two] = [room(), room()];
      await join(one);
      await join(two, [sides[0][0], sides[1][0]]);
      emitter.emit("ev", "all", Buffer.from([1]));
      await assertGot(null, everybody(), "all", Buffer.from([1]));
      emitter.to(one).emit("ev", "one");
      await assertGot(null, everybody(), "one");
      emitter.to([one, two]).emit("ev", "both");
      await assertGot(null, everybody(), "both");
      emitter.to(one).except(two).emit("ev", "rest");
      await assertGot(null, everybody().filter((client) => client !== sides[0][0] && client !== sides[1][0]), "rest");
      emitter.except(two).volatile.compress(false).emit("ev", "all but two");
      await assertGot(null, everybody().filter((client) => client !== sides[0][0] && client !== sides[1][0]), "all but two");
      for (const client of everybody()) {
        emitter.to(client.id).emit("ev", "you");
        await assertGot(null, [client], "you");
      }
      emitter.serverSideEmit("hello", "from the emitter");
      await until(() => everybody().every(({ seen }) => seen.length > 0), "the server-side emit");
      for (const seen of await gathered()) assert.deepEqual(seen, [["server-side-hello", "from the emitter"]]);
    });

    test("the emitter moves and disconnects sockets", async () => {
      const guests = [...await dial(servers[0]), ...await dial(servers[1])];
      const [one, two] = [room(), room()];
      await join(one, guests);
      record(guests, "ev");
      emitter.in(one).socketsJoin([two]);
      const inRoom = async (name) => (await Promise.all(guests.map((guest) => ask(guest, "rooms")))).filter(([rooms]) => rooms.includes(name)).length;
      await until(async () => (await inRoom(two)) === guests.length, "the joins");
      emitter.to(two).emit("ev", 8);
      await until(() => guests.every(({ seen }) => seen.length === 1), "the event");
      emitter.in(one).socketsLeave(two);
      await until(async () => (await inRoom(two)) === 0, "the leaves");
      const ends = guests.map((guest) => next(guest, "disconnect"));
      emitter.in(one).disconnectSockets(true);
      await Promise.all(ends);
    });

    const node = () => servers.find(({ kind }) => kind === "node");
    /** Whose marker follows what Node's server itself sent. */
    const nodeClient = () => sides[servers.indexOf(node())][0];

    if (starts.includes(startNode)) test("what only Node's API asks", async () => {
      const name = room();
      await join(name);
      const ids = everybody().map(({ id }) => id);
      const fetched = await soon(node().ask("fetched", name), "fetchSockets");
      assert.deepEqual(sorted(fetched.map(({ id }) => id)), sorted(ids));
      for (const socket of fetched) {
        assert.deepEqual(sorted(socket.rooms).filter((joined) => [socket.id, name].includes(joined)), sorted([socket.id, name]));
        assert.equal(typeof socket.handshake.issued, "number", JSON.stringify(socket.handshake));
        assert.equal(typeof socket.handshake.headers, "object");
      }
      const rooms = await soon(node().ask("allRooms"), "allRooms");
      for (const expected of [...ids, name]) assert.ok(rooms.includes(expected), `${expected} is a room`);
      assert.equal(await node().ask("serverCount"), servers.reduce((sum, server) => sum + server.nodes, 0));
      await node().ask("volatile", name, "ev", 9);
      await assertGot(nodeClient(), everybody(), 9);
    });

    if (new Set(starts).size === 2) test("a room that is a number is one with its text", async () => {
      const ours = sides[servers.findIndex(({ kind }) => kind === "ours")];
      const name = String(500 + roomCount);
      await join(name, ours);
      await node().ask("number", name, "ev", 10);
      await assertGot(nodeClient(), ours, 10);
    });

    test("what took two ways comes once, and in order", async () => {
      const name = room();
      await join(name);
      for (const [from] of directions()) {
        const expected = [];
        for (let nth = 0; nth < 10; nth += 1) {
          // Too short for a link to be given up, long enough for the mesh to take over.
          const silence = redis.pause(60);
          for (const value of [nth, 100 + nth]) {
            from.emit("in-room", name, "ev", value);
            expected.push(["ev", value]);
          }
          await silence;
        }
        for (const got of await gathered(from)) assert.deepEqual(got, expected);
      }
    });

    // More than this Node's adapter does not survive: it dies of one bad message where it has members, or of a
    // request that is only half right. tests/redis/rubbish.rs sends ours all of it.
    if (new Set(starts).size === 2 && program !== VALKEY) test("ten thousand messages of rubbish harm nobody", async () => {
      const ours = sides.filter((_, index) => servers[index].kind === "ours").flat();
      const name = room();
      await join(name, ours);
      const rubbish = [Buffer.from([0xc1]), Buffer.from([0x93, 0xa1]), Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]), Buffer.from("{\"type\":"), Buffer.from("{]"), Buffer.from([0xc6, 0x7f, 0xff, 0xff, 0xff, 1])];
      const everything = [...rubbish, Buffer.alloc(0), Buffer.alloc(5000, 0x91), Buffer.from("null"), Buffer.from('{"type":3,"data":{},"uid":"0123456789abcdef","nsp":"/"}'), Buffer.from([0x93, 0xc0, 0xc0, 0xc0])];
      for (let sent = 0; sent < 10_000; sent += 500) {
        const batch = [];
        for (let nth = 0; nth < 500; nth += 1) {
          batch.push(redis.client.publish(`socket.io#/#${name}#`, everything[nth % everything.length]));
          batch.push(redis.client.publish("socket.io-request#/#", rubbish[nth % rubbish.length]));
          batch.push(redis.client.publish("socket.io-response#/#", rubbish[nth % rubbish.length]));
        }
        await Promise.all(batch);
      }
      for (const [from] of directions()) {
        from.emit("in-room", name, "ev", 12);
        await assertGot(from, ours, 12);
        const [ids] = await soon(ask(from, "fetch", name), "fetchSockets");
        assert.deepEqual(sorted(ids), sorted(ours.map(({ id }) => id)));
      }
      assert.ok(servers.every((server) => server.isAlive()));
    });

    test("a fourth element harms nobody", async () => {
      const name = room();
      await join(name);
      // ["zzzzzz", {type: 2, data: ["ev", 11], nsp: "/"}, {rooms: [name], except: [], flags: {}}, [1, nil, nil]]
      const text = (value) => Buffer.concat([Buffer.from([0xa0 | value.length]), Buffer.from(value)]);
      const tuple = Buffer.concat([Buffer.from([0x94]), text("zzzzzz"), Buffer.from([0x83]), text("type"), Buffer.from([2]), text("data"), Buffer.from([0x92]), text("ev"),
        Buffer.from([11]), text("nsp"), text("/"), Buffer.from([0x83]), text("rooms"), Buffer.from([0x91]), text(name), text("except"), Buffer.from([0x90]), text("flags"),
        Buffer.from([0x80]), Buffer.from([0x93, 1, 0xc0, 0xc0])]);
      await redis.client.publish(`socket.io#/#${name}#`, tuple);
      await assertGot(null, everybody(), 11);
      assert.ok(servers.every((server) => server.isAlive()));
    });
  });
}
