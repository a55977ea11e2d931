// The chat, through the official client: every event, each transport, one shard and four.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { io } from "socket.io-client";
import { ask, next, pause, startChat, token, until, within } from "../support.mjs";

const TRANSPORTS = {
  "polling alone": ["polling"],
  "WebSocket alone": ["websocket"],
  "polling, then the upgrade": ["polling", "websocket"],
};

for (const shards of [1, 4]) {
  describe(`chat with SHARDS=${shards}`, () => {
    let server;
    const open = new Set();
    let rooms = 0;
    const newRoom = () => `room-${++rooms}`;

    before(async () => { server = await startChat({ shards }); });
    after(async () => {
      for (const socket of open) socket.disconnect();
      const exit = await server.remove();
      assert.deepEqual(exit, { code: 0, signal: null }, `a clean exit on SIGTERM; the server wrote:\n${server.log}`);
    });

    /** A connection that is not waited for. */
    function dial(auth, options = {}) {
      const socket = io(server.url, { auth, forceNew: true, transports: ["websocket"], ...options });
      open.add(socket);
      return socket;
    }

    /** A connected user, whose received messages and notices are kept. */
    async function user(sub, options = {}) {
      const { claims, ...rest } = options;
      const socket = dial({ token: token(sub, claims) }, rest);
      keep(socket);
      await within(new Promise((done, failed) => { socket.once("connect", done); socket.once("connect_error", failed); }), `${sub} to connect`);
      return socket;
    }

    function keep(socket) {
      Object.assign(socket, { messages: [], notices: [], exceptions: [] });
      socket.on("receiveMessage", (message) => socket.messages.push(message));
      socket.on("userJoined", (notice) => socket.notices.push(["joined", notice.roomId, notice.userId]));
      socket.on("userLeft", (notice) => socket.notices.push(["left", notice.roomId, notice.userId]));
      socket.on("exception", (exception) => socket.exceptions.push(exception));
    }

    const call = async (socket, event, payload) => (await ask(socket, event, payload))[0];
    async function good(socket, event, payload) {
      const answer = await call(socket, event, payload);
      assert.equal(answer.ok, true, `${event} ${JSON.stringify(payload)} gave ${JSON.stringify(answer)}`);
      return answer;
    }
    async function refused(socket, event, payload, code) {
      const answer = await call(socket, event, payload);
      assert.equal(answer.ok, false, `${event} ${JSON.stringify(payload)} gave ${JSON.stringify(answer)}`);
      assert.equal(answer.error.code, code, JSON.stringify(answer));
      assert.equal(typeof answer.error.message, "string");
      return answer;
    }
    const send = (socket, roomId, content, more = {}) => good(socket, "sendMessage", { roomId, content, ...more });
    const got = (socket, count) => until(() => socket.messages.length >= count, `${count} messages, have ${socket.messages.length}`);
    const seqs = (messages) => messages.map((message) => message.seq);
    const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

    for (const [name, transports] of Object.entries(TRANSPORTS)) {
      test(`two users exchange messages over ${name}`, async () => {
        const room = newRoom();
        const alice = await user("alice", { transports });
        const bob = await user("bob", { transports });
        if (transports.length === 2) {
          for (const socket of [alice, bob]) await until(() => socket.io.engine.transport.name === "websocket", "the upgrade");
        }
        assert.deepEqual(await good(alice, "joinRoom", { roomId: room }), { ok: true, roomId: room, seq: 0, replayed: 0 });
        await good(bob, "joinRoom", { roomId: room });
        for (let round = 0; round < 5; round++) {
          await send(alice, room, `a ${round} – žluťoučký 🐎 "quoted" \\ </script>`);
          await send(bob, room, `b ${round}`);
        }
        await Promise.all([got(alice, 10), got(bob, 10)]);
        assert.deepEqual(alice.messages, bob.messages, "both see the same, the sender's own messages included");
        assert.deepEqual(seqs(alice.messages), range(1, 10));
        const [first] = alice.messages;
        assert.equal(first.content, `a 0 – žluťoučký 🐎 "quoted" \\ </script>`);
        assert.deepEqual([first.roomId, first.userId], [room, "alice"]);
        assert.match(first.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
        assert.match(first.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
        const history = await server.get(`/api/messages?roomId=${room}`, { token: token("alice") });
        assert.deepEqual(history.body.messages, alice.messages, "history has the same messages in the same order");
        alice.disconnect();
        bob.disconnect();
      });
    }

    test("the ack of sendMessage carries what was stored", async () => {
      const room = newRoom();
      const alice = await user("alice");
      await good(alice, "joinRoom", { roomId: room });
      const answer = await send(alice, room, "hello", { userId: "alice", clientMsgId: "k1" });
      await got(alice, 1);
      const { id, seq, timestamp } = alice.messages[0];
      assert.deepEqual(answer, { ok: true, id, seq, timestamp });
      assert.equal(alice.messages[0].clientMsgId, "k1");
      assert.equal(alice.disconnect().connected, false);
    });

    test("joinRoom and sendMessage may be sent back to back", async () => {
      const room = newRoom();
      const alice = await user("alice");
      const answers = await Promise.all([call(alice, "joinRoom", { roomId: room }), call(alice, "sendMessage", { roomId: room, content: "at once" })]);
      assert.deepEqual(answers.map((answer) => answer.ok), [true, true], JSON.stringify(answers));
      await got(alice, 1);
      alice.disconnect();
    });

    test("a burst of one client is stored and delivered in the order sent", async () => {
      const room = newRoom();
      const alice = await user("alice");
      const bob = await user("bob", { transports: ["polling"] });
      await good(alice, "joinRoom", { roomId: room });
      await good(bob, "joinRoom", { roomId: room });
      const answers = await Promise.all(range(1, 200).map((number) => call(alice, "sendMessage", { roomId: room, content: String(number) })));
      assert.deepEqual(answers.map((answer) => answer.seq), range(1, 200));
      await Promise.all([got(alice, 200), got(bob, 200)]);
      for (const socket of [alice, bob]) {
        assert.deepEqual(socket.messages.map((message) => message.content), range(1, 200).map(String));
        assert.deepEqual(seqs(socket.messages), range(1, 200));
        socket.disconnect();
      }
    });

    test("a join with lastSeq replays what was missed, before anything live", async () => {
      const room = newRoom();
      const alice = await user("alice");
      await good(alice, "joinRoom", { roomId: room });
      for (let number = 1; number <= 20; number++) await send(alice, room, String(number));
      let busy = true;
      const flood = (async () => { while (busy) await send(alice, room, "live"); })();
      const bob = await user("bob");
      const answer = await good(bob, "joinRoom", { roomId: room, lastSeq: 5 });
      assert.equal(answer.recovered, true);
      assert.equal(answer.replayed, answer.seq - 5);
      await got(bob, answer.replayed + 5);
      busy = false;
      await flood;
      await until(() => bob.messages.at(-1).seq === alice.messages.at(-1).seq, "the last message");
      assert.deepEqual(seqs(bob.messages), range(6, alice.messages.at(-1).seq), "no gap, no repeat");
      assert.deepEqual(await good(bob, "joinRoom", { roomId: room, lastSeq: 0 }).then(({ ok, replayed }) => ({ ok, replayed })), { ok: true, replayed: 0 }, "already in the room");
      alice.disconnect();
      bob.disconnect();
    });

    test("a replay stops at 500, and says when it cannot be complete", async () => {
      const room = newRoom();
      const alice = await user("alice");
      await good(alice, "joinRoom", { roomId: room });
      await Promise.all(range(1, 501).map((number) => call(alice, "sendMessage", { roomId: room, content: String(number) })));
      const join = async (lastSeq) => {
        const bob = await user("bob");
        const { recovered, replayed, seq } = await good(bob, "joinRoom", { roomId: room, lastSeq });
        await got(bob, replayed);
        const received = seqs(bob.messages);
        bob.disconnect();
        return { recovered, replayed, seq, received };
      };
      assert.deepEqual(await join(1), { recovered: true, replayed: 500, seq: 501, received: range(2, 501) });
      assert.deepEqual(await join(0), { recovered: false, replayed: 0, seq: 501, received: [] }, "501 were missed");
      assert.deepEqual(await join(600), { recovered: false, replayed: 0, seq: 501, received: [] }, "lastSeq is from another life");
      assert.deepEqual(await join(501), { recovered: true, replayed: 0, seq: 501, received: [] });
      alice.disconnect();
    });

    test("history pages in both directions", async () => {
      const room = newRoom();
      const alice = await user("alice");
      await good(alice, "joinRoom", { roomId: room });
      for (let number = 1; number <= 25; number++) await send(alice, room, String(number));
      const bearer = token("bob");
      const page = async (query) => {
        const { status, body, headers } = await server.get(`/api/messages?roomId=${room}&${query}`, { token: bearer });
        assert.equal(status, 200, JSON.stringify(body));
        assert.match(headers.get("content-type"), /^application\/json/);
        assert.equal(headers.get("cache-control"), "no-store");
        return body;
      };
      const newest = await page("limit=10");
      assert.deepEqual([seqs(newest.messages), newest.hasMore, newest.nextBeforeSeq], [range(16, 25), true, 16]);
      const older = await page(`limit=10&beforeSeq=${newest.nextBeforeSeq}`);
      assert.deepEqual([seqs(older.messages), older.hasMore], [range(6, 15), true]);
      const oldest = await page(`limit=10&beforeSeq=${older.nextBeforeSeq}`);
      assert.deepEqual([seqs(oldest.messages), oldest.hasMore], [range(1, 5), false]);
      const forward = await page("limit=10&afterSeq=0");
      assert.deepEqual([seqs(forward.messages), forward.hasMore, forward.nextAfterSeq], [range(1, 10), true, 10]);
      const end = await page("limit=100&afterSeq=10");
      assert.deepEqual([seqs(end.messages), end.hasMore], [range(11, 25), false]);
      const empty = (await server.get("/api/messages?roomId=nobody-was-here", { token: bearer })).body;
      assert.deepEqual([empty.roomId, empty.messages, empty.hasMore], ["nobody-was-here", [], false]);
      alice.disconnect();
    });

    test("a repeated clientMsgId gives the first ack again and is delivered once", async () => {
      const room = newRoom();
      const alice = await user("alice");
      const bob = await user("bob");
      for (const socket of [alice, bob]) await good(socket, "joinRoom", { roomId: room });
      const first = await send(alice, room, "once", { clientMsgId: "key" });
      const second = await send(alice, room, "once", { clientMsgId: "key" });
      assert.deepEqual(second, { ...first, duplicate: true });
      const other = await send(bob, room, "mine", { clientMsgId: "key" });
      assert.equal(other.seq, first.seq + 1, "the key is the sender's own");
      await Promise.all([got(alice, 2), got(bob, 2)]);
      await pause(150);
      for (const socket of [alice, bob]) assert.deepEqual(seqs(socket.messages), [1, 2]);
      alice.disconnect();
      bob.disconnect();
    });

    test("userJoined and userLeft come once for a user with several sockets", async () => {
      const room = newRoom();
      const watcher = await user("watcher");
      await good(watcher, "joinRoom", { roomId: room });
      const sockets = [];
      for (let index = 0; index < 4; index++) sockets.push(await user("guest", { transports: [index % 2 ? "polling" : "websocket"] }));
      for (const socket of sockets) await good(socket, "joinRoom", { roomId: room });
      await until(() => watcher.notices.length >= 1, "userJoined");
      await good(sockets[0], "leaveRoom", { roomId: room });
      sockets[1].disconnect();
      sockets[2].disconnect();
      await pause(300);
      assert.deepEqual(watcher.notices, [["joined", room, "guest"]], "not while one socket is there");
      assert.deepEqual(sockets[3].notices, [], "nothing about oneself");
      sockets[3].disconnect();
      await until(() => watcher.notices.length >= 2, "userLeft");
      await pause(100);
      assert.deepEqual(watcher.notices, [["joined", room, "guest"], ["left", room, "guest"]]);
      sockets[0].disconnect();
      watcher.disconnect();
    });

    test("nothing arrives from a room after leaving it", async () => {
      const room = newRoom();
      const alice = await user("alice");
      const bob = await user("bob");
      for (const socket of [alice, bob]) await good(socket, "joinRoom", { roomId: room });
      await send(alice, room, "one");
      await got(bob, 1);
      assert.deepEqual(await good(bob, "leaveRoom", { roomId: room }), { ok: true, roomId: room });
      assert.deepEqual(await good(bob, "leaveRoom", { roomId: room }), { ok: true, roomId: room }, "again: fine, and nothing announced");
      await send(alice, room, "two");
      await got(alice, 2);
      await pause(150);
      assert.deepEqual(seqs(bob.messages), [1]);
      await refused(bob, "sendMessage", { roomId: room, content: "x" }, "not_in_room");
      assert.deepEqual(alice.notices.filter(([what]) => what === "left"), [["left", room, "bob"]]);
      alice.disconnect();
      bob.disconnect();
    });

    test("bad payloads are refused by name, with and without an ack", async () => {
      const room = newRoom();
      const alice = await user("alice");
      await good(alice, "joinRoom", { roomId: room });
      const bad = [
        ["joinRoom", undefined], ["joinRoom", null], ["joinRoom", 7], ["joinRoom", {}], ["joinRoom", { roomId: 5 }], ["joinRoom", { roomId: "" }],
        ["joinRoom", { roomId: "x".repeat(129) }], ["joinRoom", { roomId: "a\u0007b" }], ["joinRoom", { roomId: room, lastSeq: -1 }], ["joinRoom", { roomId: room, lastSeq: "1" }],
        ["leaveRoom", {}], ["sendMessage", { roomId: room }], ["sendMessage", { roomId: room, content: "" }], ["sendMessage", { roomId: room, content: 1 }],
        ["sendMessage", { roomId: room, content: "x".repeat(65_537) }], ["sendMessage", { roomId: room, content: "a\u0000b" }],
        ["sendMessage", { roomId: room, content: "a", clientMsgId: "" }], ["sendMessage", { roomId: room, content: "a", clientMsgId: "k".repeat(65) }],
        ["sendMessage", { content: "a" }], ["authenticate", {}],
      ];
      for (const [event, payload] of bad) await refused(alice, event, payload, "invalid_payload");
      await send(alice, room, "x".repeat(65_536));
      alice.emit("sendMessage", { roomId: room, content: "" });
      await until(() => alice.exceptions.length === 1, "the exception");
      assert.equal(alice.exceptions[0].event, "sendMessage");
      assert.equal(alice.exceptions[0].error.code, "invalid_payload");
      await refused(alice, "sendMessage", { roomId: room, content: "a", userId: "bob" }, "forbidden");
      await refused(alice, "sendMessage", { roomId: newRoom(), content: "a" }, "not_in_room");
      assert.equal(alice.connected, true);
      alice.disconnect();
    });

    test("a token that limits rooms is obeyed everywhere", async () => {
      const claims = { rooms: ["only-this", "team-*"] };
      const alice = await user("alice", { claims });
      await good(alice, "joinRoom", { roomId: "only-this" });
      await good(alice, "joinRoom", { roomId: "team-9" });
      await refused(alice, "joinRoom", { roomId: "only-this-not" }, "forbidden");
      await refused(alice, "joinRoom", { roomId: "elsewhere" }, "forbidden");
      const limited = token("alice", claims);
      assert.equal((await server.get("/api/messages?roomId=team-1", { token: limited })).status, 200);
      const { status, body } = await server.get("/api/messages?roomId=elsewhere", { token: limited });
      assert.deepEqual([status, body.error.code], [403, "forbidden"]);
      alice.disconnect();
    });

    test("a connection without a valid token is refused with a code", async () => {
      const cases = [
        [undefined, "unauthorized"], [{}, "unauthorized"], [{ token: 5 }, "unauthorized"], [{ token: "nonsense" }, "unauthorized"],
        [{ token: token("alice", { secret: "another secret that is long enough to be one" }) }, "unauthorized"],
        [{ token: token("alice", { alg: "none" }) }, "unauthorized"], [{ token: token(undefined) }, "unauthorized"],
        [{ token: token("alice", { ttl: -60 }) }, "token_expired"],
      ];
      for (const transports of [["websocket"], ["polling"]]) {
        for (const [auth, code] of cases) {
          const socket = dial(auth, { transports, reconnection: false });
          const [error] = await next(socket, "connect_error");
          assert.equal(error.data?.code, code, `${JSON.stringify(auth)} gave ${error.message} ${JSON.stringify(error.data)}`);
          assert.equal(typeof error.data.message, "string");
          socket.disconnect();
        }
      }
    });

    test("a token that runs out ends the connection, a new one keeps it", async () => {
      const short = await user("short", { claims: { ttl: 2 }, reconnection: false });
      const renewed = await user("renewed", { claims: { ttl: 2 }, reconnection: false });
      const stolen = await call(renewed, "authenticate", { token: token("somebody else") });
      assert.equal(stolen.ok, false, "a connection stays its user's");
      const answer = await good(renewed, "authenticate", { token: token("renewed") });
      assert.ok("expiresAt" in answer, JSON.stringify(answer));
      const [reason] = await next(short, "disconnect");
      assert.equal(reason, "io server disconnect");
      assert.equal(short.exceptions[0]?.error.code, "token_expired");
      await pause(1500);
      assert.equal(renewed.connected, true);
      renewed.disconnect();
    });

    test("REST refuses what it cannot serve, in one shape", async () => {
      const bearer = token("alice");
      const cases = [
        ["/api/messages?roomId=r", {}, 401, "unauthorized"], ["/api/messages?roomId=r", { token: "nonsense" }, 401, "unauthorized"],
        ["/api/messages?roomId=r", { token: token("alice", { ttl: -60 }) }, 401, "token_expired"],
        ["/api/messages", { token: bearer }, 400, "invalid_payload"], ["/api/messages?roomId=", { token: bearer }, 400, "invalid_payload"],
        ["/api/messages?roomId=r&roomId=s", { token: bearer }, 400, "invalid_payload"], [`/api/messages?roomId=${"x".repeat(129)}`, { token: bearer }, 400, "invalid_payload"],
        ...["0", "101", "-1", "1.5", "", "ten", "+5"].map((limit) => [`/api/messages?roomId=r&limit=${encodeURIComponent(limit)}`, { token: bearer }, 400, "invalid_payload"]),
        ["/api/messages?roomId=r&afterSeq=1&beforeSeq=3", { token: bearer }, 400, "invalid_payload"], ["/api/messages?roomId=r&afterSeq=x", { token: bearer }, 400, "invalid_payload"],
        ["/api/messages?roomId=r", { token: bearer, method: "POST" }, 405, "method_not_allowed"], ["/nowhere", {}, 404, "not_found"], ["/", {}, 404, "not_found"],
      ];
      for (const [path, options, status, code] of cases) {
        const answer = await server.get(path, options);
        assert.deepEqual([answer.status, answer.body?.error?.code], [status, code], `${path}: ${answer.text}`);
        assert.equal(typeof answer.body.error.message, "string");
        if (status === 401) assert.match(answer.headers.get("www-authenticate"), /^Bearer/);
        if (status === 405) assert.match(answer.headers.get("allow"), /GET/);
        assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
      }
    });

    test("health says what runs", async () => {
      const health = await server.get("/health");
      assert.equal(health.status, 200);
      assert.equal(health.body.status, "ok");
      assert.equal(health.body.shards, shards);
      assert.equal(typeof health.body.version, "string");
      assert.equal(typeof health.body.uptimeSeconds, "number");
      assert.equal((await server.get("/health/ready")).status, 200);
      const head = await server.get("/health", { method: "HEAD" });
      assert.deepEqual([head.status, head.text], [200, ""]);
    });

    test("clients come back after a restart and miss nothing", async () => {
      const room = newRoom();
      const fast = { reconnectionDelay: 50, reconnectionDelayMax: 200 };
      const sockets = [];
      for (const [index, transports] of Object.values(TRANSPORTS).entries()) sockets.push(await user(`user-${index}`, { transports, ...fast }));
      for (const socket of sockets) await good(socket, "joinRoom", { roomId: room });
      for (let number = 0; number < 5; number++) await send(sockets[number % 3], room, `before ${number}`);
      const resend = { clientMsgId: "over the restart" };
      const first = await send(sockets[0], room, "kept", resend);
      await Promise.all(sockets.map((socket) => got(socket, 6)));
      const back = sockets.map((socket) => next(socket, "connect"));
      const reasons = Promise.all(sockets.map(async (socket) => (await next(socket, "disconnect"))[0]));
      const exit = await server.stop();
      assert.deepEqual(exit, { code: 0, signal: null }, server.log);
      for (const reason of await reasons) assert.notEqual(reason, "io server disconnect", "that would tell the client to stay away");
      await server.start();
      await Promise.all(back);
      const writer = sockets[1];
      await good(writer, "joinRoom", { roomId: room, lastSeq: 6 });
      await send(writer, room, "after");
      for (const socket of [sockets[0], sockets[2]]) {
        const answer = await good(socket, "joinRoom", { roomId: room, lastSeq: 6 });
        assert.deepEqual([answer.recovered, answer.replayed], [true, 1]);
      }
      assert.deepEqual(await send(sockets[0], room, "kept", resend), { ...first, duplicate: true });
      await send(writer, room, "last");
      await Promise.all(sockets.map((socket) => got(socket, 8)));
      for (const socket of sockets) {
        assert.deepEqual(seqs(socket.messages), range(1, 8), "dense, in order, nothing twice");
        socket.disconnect();
      }
    });
  });
}
