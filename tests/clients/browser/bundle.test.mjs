// The official client's browser bundle, from another origin, as a web application would use it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startChat, token } from "../support.mjs";
import { launch, openPage } from "./chromium.mjs";

const packageFile = createRequire(import.meta.url).resolve("socket.io-client/package.json");
const BUNDLE = readFileSync(join(dirname(packageFile), "dist/socket.io.min.js"));
const PAGE = '<!doctype html><meta charset="utf-8"><title>bundle</title><script src="/bundle.js"></script>';

describe("the official browser bundle", () => {
  let site;
  let origin;
  let server;
  let browser;
  before(async () => {
    site = createServer((request, response) => {
      const bundle = request.url === "/bundle.js";
      response.writeHead(request.url === "/favicon.ico" ? 204 : 200, { "content-type": bundle ? "text/javascript" : "text/html" });
      response.end(request.url === "/favicon.ico" ? undefined : bundle ? BUNDLE : PAGE);
    });
    await new Promise((done) => site.listen(0, "127.0.0.1", done));
    origin = `http://127.0.0.1:${site.address().port}`;
    server = await startChat({ shards: 4, env: { CORS_ORIGINS: origin } });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server?.remove();
    site?.close();
  });

  for (const [name, transports, ends] of [["polling", ["polling"], "polling"], ["WebSocket", ["websocket"], "websocket"], ["the upgrade", ["polling", "websocket"], "websocket"]]) {
    test(`chats by ${name}`, async () => {
      const page = await openPage(browser, origin);
      const seen = await page.evaluate(async ({ url, tokens, room, transports, ends }) => {
        const open = (token) => new Promise((done, failed) => {
          // eslint-disable-next-line no-undef
          const socket = io(url, { auth: { token }, transports, forceNew: true, withCredentials: true });
          socket.on("connect", () => done(socket));
          socket.on("connect_error", (error) => failed(new Error(`${error.message} ${JSON.stringify(error.description ?? null)}`)));
        });
        const [alice, bob] = await Promise.all(tokens.map(open));
        const received = [];
        const all = new Promise((done) => bob.on("receiveMessage", (message) => { received.push(message); if (received.length === 20) done(); }));
        const acks = [];
        for (const socket of [alice, bob]) acks.push(await socket.timeout(10_000).emitWithAck("joinRoom", { roomId: room }));
        for (let number = 0; number < 20; number++) acks.push(await alice.timeout(10_000).emitWithAck("sendMessage", { roomId: room, content: `${number} 🐎` }));
        await all;
        const end = Date.now() + 15_000;
        while (alice.io.engine.transport.name !== ends && Date.now() < end) await new Promise((done) => setTimeout(done, 20));
        const history = await (await fetch(`${url}/api/messages?roomId=${room}`, { headers: { authorization: `Bearer ${tokens[0]}` } })).json();
        const transport = alice.io.engine.transport.name;
        alice.disconnect();
        bob.disconnect();
        return { received, acks, transport, history: history.messages };
      }, { url: server.url, tokens: [token("alice"), token("bob")], room: `bundle-${ends}-${transports.length}`, transports, ends });
      assert.ok(seen.acks.every((ack) => ack.ok), JSON.stringify(seen.acks));
      assert.deepEqual(seen.received.map(({ seq, content }) => [seq, content]), Array.from({ length: 20 }, (_, index) => [index + 1, `${index} 🐎`]));
      assert.deepEqual(seen.history, seen.received);
      assert.equal(seen.transport, ends);
      assert.deepEqual(page.complaints, []);
      await page.context().close();
    });
  }

  test("an origin that is not on the list gets nothing", async () => {
    const page = await openPage(browser, `http://localhost:${site.address().port}`);
    for (const transport of ["polling", "websocket"]) {
      const outcome = await page.evaluate(({ url, auth, transport }) => new Promise((done) => {
        // eslint-disable-next-line no-undef
        const socket = io(url, { auth, transports: [transport], reconnection: false, forceNew: true });
        socket.on("connect", () => done("connected"));
        socket.on("connect_error", () => done("refused"));
      }), { url: server.url, auth: { token: token("alice") }, transport });
      assert.equal(outcome, "refused", transport);
    }
    await page.context().close();
  });
});
