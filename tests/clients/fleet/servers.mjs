// A Redis of one's own, and servers of either kind that join its fleet.

import { fork, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createClient } from "redis";
import { io } from "socket.io-client";
import { freePort, pause, startConformance, until, within } from "../support.mjs";

/** A Redis server on a free port, and a client of it. */
export async function startRedis(program = "redis-server") {
  const [port, folder] = [await freePort(), mkdtempSync(join(tmpdir(), "project-yum-redis-"))];
  const child = spawn(program, ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder], { stdio: "ignore" });
  process.on("exit", () => child.kill("SIGKILL"));
  const url = `redis://127.0.0.1:${port}`;
  const client = createClient({ url });
  client.on("error", () => {});
  await within(client.connect(), "Redis to start");
  return {
    url,
    client,
    /** Answers nothing for so long. */
    async pause(ms) {
      child.kill("SIGSTOP");
      await pause(ms);
      child.kill("SIGCONT");
    },
    /** How many connections listen to a channel. */
    listeners: async (channel) => Object.values(await client.pubSubNumSub([channel]))[0],
    async remove() {
      client.destroy();
      child.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Node's server, in a process of its own. */
export async function startNode(redis) {
  const child = fork(resolve(import.meta.dirname, "node-server.mjs"), { env: { ...process.env, REDIS_URL: redis.url }, stdio: ["ignore", "inherit", "inherit", "ipc"] });
  process.on("exit", () => child.kill("SIGKILL"));
  const waiting = new Map();
  let nextId = 0;
  const serves = new Promise((done, failed) => {
    child.on("message", (message) => {
      if (message.port) return done(message.port);
      const { answer, refuse } = waiting.get(message.id);
      if (message.error) refuse(new Error(message.error)); else answer(message.value);
    });
    child.on("exit", (code, signal) => failed(new Error(`Node's server ended: ${code ?? signal}`)));
  });
  const port = await within(serves, "Node's server");
  return {
    kind: "node",
    /** Nodes of the fleet in it. */
    nodes: 1,
    url: `http://127.0.0.1:${port}`,
    isAlive: () => child.exitCode === null && child.signalCode === null,
    ask: (name, ...args) => within(new Promise((answer, refuse) => {
      nextId += 1;
      waiting.set(nextId, { answer, refuse });
      child.send({ id: nextId, name, args });
    }), name),
    remove: async () => { child.kill("SIGKILL"); },
  };
}

/** Ours, with two shards: two nodes of the fleet. */
export async function startOurs(redis, shards = 2) {
  const server = await startConformance({ shards, env: { REDIS_URL: redis.url } });
  return {
    kind: "ours",
    nodes: shards,
    url: server.url,
    isAlive: () => !server.ended,
    remove: () => server.remove(),
  };
}

/** Waits until all the nodes of these servers are there. */
export async function together(redis, servers) {
  const nodes = servers.reduce((sum, server) => sum + server.nodes, 0);
  for (const name of ["/", "/custom"]) {
    await until(async () => (await redis.listeners(`socket.io-request#${name}#`)) === nodes, `${nodes} nodes in ${name}`);
  }
}

/** The shard of a server of ours that a socket is on: it stands in the id. */
const shardOf = (server, id) => server.kind === "ours" ? Buffer.from(id, "base64url")[2] : 0;

/** Clients of a server, one on each of its shards at least. */
export async function dial(server, namespace = "/") {
  const clients = [];
  const reached = new Set();
  for (let tries = 0; reached.size < server.nodes && tries < 60; tries += 1) {
    const client = io(server.url + namespace, { forceNew: true, transports: ["websocket"], reconnection: false });
    await within(new Promise((done, failed) => { client.once("connect", done); client.once("connect_error", failed); }), "a connection");
    const shard = shardOf(server, client.id);
    if (reached.has(shard)) { client.disconnect(); continue; }
    reached.add(shard);
    clients.push(client);
  }
  return clients;
}

/** Keeps what arrives under these names. */
export function record(clients, ...events) {
  for (const client of clients) {
    client.seen ??= [];
    for (const event of events) client.on(event, (...args) => client.seen.push([event, ...args]));
  }
}
