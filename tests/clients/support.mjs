// What the client tests share: a server process with its own data, tokens, and waiting with a limit.

import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
const TARGET = resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target");
const CHAT = process.env.PROJECT_YUM_BIN ?? join(TARGET, "debug/project-yum");
const CONFORMANCE = process.env.PROJECT_YUM_CONFORMANCE_BIN ?? join(TARGET, "debug/examples/conformance");

/** True in `tests/run --long`. */
export const LONG = process.env.TESTS_LONG === "1";
/** How long anything may take that should take a moment: generous, because the machine may be busy. */
export const PATIENCE_MS = 20_000;
const START_MS = 30_000;
const STOP_MS = 15_000;
const SECRET = "a secret that only the tests know and long enough";

const running = new Set();
process.on("exit", () => { for (const child of running) child.kill("SIGKILL"); });

// ---- tokens ----

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token as an identity service would make it. */
export function token(sub, { ttl = 3600, secret = SECRET, alg = "HS256", ...claims } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const signed = `${part({ alg, typ: "JWT" })}.${part({ sub, iat: now, exp: now + ttl, ...claims })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

// ---- servers ----

/** A server process. It keeps its port and its data over `restart`. */
class Server {
  constructor(program, env, port, folder) {
    Object.assign(this, { program, env, port, folder, log: "", child: null });
    this.url = `http://127.0.0.1:${port}`;
  }

  async start() {
    this.ended = false;
    // Nothing of the caller's environment reaches the server: a test means what it says.
    const child = spawn(this.program, this.args ?? [], {
      cwd: this.folder,
      env: { PATH: process.env.PATH, HOME: this.folder, HOST: "127.0.0.1", PORT: String(this.port), ...this.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child = child;
    running.add(child);
    this.exit = new Promise((done) => {
      child.on("error", (error) => { this.log += `${error}\n`; this.ended = true; done({ code: null, signal: null, error }); });
      child.on("exit", (code, signal) => { running.delete(child); this.ended = true; done({ code, signal }); });
    });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => { this.log = (this.log + data).slice(-65_536); });
    const until = Date.now() + START_MS;
    while (!(await this.answers())) {
      if (this.ended || Date.now() > until) {
        child.kill("SIGKILL");
        throw new Error(`${this.program} does not answer on port ${this.port}; it wrote:\n${this.log}`);
      }
      await pause(40);
    }
    return this;
  }

  async answers() {
    try { return (await fetch(this.url + this.probe, { signal: AbortSignal.timeout(2000) })).status === this.probeStatus; }
    catch { return false; }
  }

  /** SIGTERM, then the exit: `{code, signal}`. */
  async stop() {
    if (!this.ended) this.child.kill("SIGTERM");
    const late = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
    const exit = await this.exit;
    clearTimeout(late);
    return exit;
  }

  /** SIGKILL: no chance to finish anything. */
  async kill() { this.child.kill("SIGKILL"); return this.exit; }

  async restart() { await this.stop(); return this.start(); }

  /** Ends the process and forgets its data. */
  async remove() {
    const exit = await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
    return exit;
  }

  /** A REST call. */
  async get(path, { token: bearer, ...options } = {}) {
    const headers = bearer ? { authorization: `Bearer ${bearer}` } : {};
    const response = await fetch(this.url + path, { headers, signal: AbortSignal.timeout(PATIENCE_MS), ...options });
    const text = await response.text();
    let body = null;
    try { body = JSON.parse(text); } catch { /* not every answer is JSON */ }
    return { status: response.status, headers: response.headers, text, body };
  }

  /** One metric's sum over all its labels. */
  async metric(name) {
    const text = await (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text();
    return text.split("\n").filter((line) => line.startsWith(name) && !line.startsWith("#"))
      .filter((line) => /^[ {]/.test(line.slice(name.length)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }
}

const folder = () => mkdtempSync(join(tmpdir(), "project-yum-test-"));

/** Starts the chat with its own database; limits on rates are off. */
export async function startChat({ shards = 1, env = {} } = {}) {
  const metricsPort = await freePort();
  const server = new Server(CHAT, {
    SHARDS: String(shards),
    DATABASE_URL: "sqlite:chat.db",
    JWT_SECRET: SECRET,
    METRICS_ADDR: `127.0.0.1:${metricsPort}`,
    RATE_MESSAGES_PER_SECOND: "0",
    RATE_HTTP_PER_SECOND: "0",
    RATE_CONNECTIONS_PER_SECOND: "0",
    LOG_LEVEL: "warn",
    DRAIN_SECONDS: "5",
    ...env,
  }, await freePort(), folder());
  Object.assign(server, { metricsPort, probe: "/health/ready", probeStatus: 200 });
  return server.start();
}

/** Starts the demo: no settings but where to listen. */
export async function startDemo({ env = {} } = {}) {
  const metricsPort = await freePort();
  const server = new Server(CHAT, { METRICS_ADDR: `127.0.0.1:${metricsPort}`, ...env }, await freePort(), folder());
  Object.assign(server, { metricsPort, probe: "/health/ready", probeStatus: 200 });
  return server.start();
}

/** Starts the conformance server with the clients' usual heartbeat. */
export async function startConformance({ shards = 1, env = {} } = {}) {
  const server = new Server(CONFORMANCE, {
    SHARDS: String(shards),
    PING_INTERVAL_MS: "25000",
    PING_TIMEOUT_MS: "20000",
    CONNECT_TIMEOUT_MS: "45000",
    MAX_PAYLOAD_BYTES: "1000000",
    ...env,
  }, await freePort(), folder());
  // Any answer of the Engine.IO layer shows that it listens.
  Object.assign(server, { probe: "/socket.io/", probeStatus: 400 });
  return server.start();
}

export function freePort() {
  return new Promise((done, failed) => {
    const socket = createServer();
    socket.on("error", failed);
    socket.listen(0, "127.0.0.1", () => { const { port } = socket.address(); socket.close(() => done(port)); });
  });
}

// ---- waiting ----

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The promise's value, or an error that says what was waited for. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, failed) => { timer = setTimeout(() => failed(new Error(`waited ${ms} ms for ${what}`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until `condition` holds. */
export async function until(condition, what, ms = PATIENCE_MS) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await pause(10);
  }
}

/** The arguments of the next `event`. */
export const next = (emitter, event, ms) => within(new Promise((done) => emitter.once(event, (...args) => done(args))), `event ${event}`, ms);

/** Sends an event and gives the ack's arguments; works with every version of the client. */
export const ask = (socket, event, ...args) => within(new Promise((done) => socket.emit(event, ...args, (...answer) => done(answer))), `the ack of ${event}`);
