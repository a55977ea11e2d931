// Two servers with one PostgreSQL and one Redis behind HAProxy, restarted one after the other, again and again, while people
// chat: nothing is lost, nothing is there twice, nothing is out of order.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, chownSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { io } from "socket.io-client";
import { freePort, LONG, pause, startChat, token, until } from "../support.mjs";
import { startRedis } from "../fleet/servers.mjs";
import { Balancer } from "./balancer.mjs";

const ROUNDS = LONG ? 10 : 2;
const MESSAGES_MIN = LONG ? 100_000 : 2_000;
const ROOMS = 6;
// Of each room; the last one polls.
const MEMBERS = 3;
// Messages of one member that wait for their ack.
const WINDOW = LONG ? 6 : 2;
const ACK_MS = 8_000;
// What a client may be told that has to send again; everything else is a fault.
const AGAIN = new Set(["unavailable", "timeout", "draining", "not_in_room"]);

/** A private PostgreSQL, run as nobody when the tests are root's. */
async function startPostgres() {
  const folder = mkdtempSync(join(tmpdir(), "project-yum-postgres-"));
  const root = process.getuid() === 0;
  if (root) { chownSync(folder, 65534, 65534); chmodSync(folder, 0o700); }
  const programs = join("/usr/lib/postgresql", readdirSync("/usr/lib/postgresql").sort().at(-1), "bin");
  const as = (program, args) => (root
    ? ["setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", join(programs, program), ...args]]
    : [join(programs, program), args]);
  execFileSync(...as("initdb", ["--username=yum", "--auth=trust", "--encoding=UTF8", "--no-sync", "--pgdata", join(folder, "data")]), { cwd: folder, stdio: "ignore" });
  const port = await freePort();
  const child = spawn(...as("postgres", ["-D", join(folder, "data"), "-p", port, "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]), { cwd: folder, stdio: "ignore" });
  const ended = new Promise((done) => child.on("exit", done));
  process.on("exit", () => child.kill("SIGQUIT"));
  const answers = () => { try { execFileSync(join(programs, "pg_isready"), ["-h", "127.0.0.1", "-p", port], { stdio: "ignore" }); return true; } catch { return false; } };
  await until(answers, "PostgreSQL");
  return {
    url: `postgres://yum@127.0.0.1:${port}/postgres?sslmode=disable`,
    async stop() { child.kill("SIGINT"); await ended; rmSync(folder, { recursive: true, force: true }); },
  };
}

/** Somebody who sends and receives all the time, and comes back as the README says. */
class Member {
  constructor(url, user, room, transports) {
    Object.assign(this, { url, user, room, last: null, held: null, faults: [], repeats: 0, sent: 0, acked: 0, joined: false });
    this.token = token(user);
    this.socket = io(url, { transports, auth: { token: this.token }, withCredentials: true, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 400 });
    this.socket.on("connect", () => this.join());
    this.socket.on("disconnect", () => { this.joined = false; });
    this.socket.on("receiveMessage", (message) => this.take(message));
  }

  join() {
    const first = this.last === null;
    this.socket.emit("joinRoom", first ? { roomId: this.room } : { roomId: this.room, lastSeq: this.last }, (answer) => {
      if (!answer.ok) {
        if (!AGAIN.has(answer.error.code)) this.faults.push(`join: ${answer.error.code}`);
        setTimeout(() => this.socket.connected && this.join(), 50);
        return;
      }
      if (first) this.last = answer.seq;
      this.joined = true;
      // More was missed than is replayed: history has it. Meanwhile what arrives waits.
      if (!first && !answer.recovered) this.read(answer.seq);
    });
  }

  async read(to) {
    this.held = [];
    const headers = { authorization: `Bearer ${this.token}` };
    while (this.last < to) {
      const page = await fetch(`${this.url}/api/messages?roomId=${this.room}&afterSeq=${this.last}&limit=100`, { headers }).then((answer) => answer.json(), () => ({}));
      if (page.messages?.length) page.messages.forEach((message) => this.next(message));
      else await pause(50);
    }
    const held = this.held;
    this.held = null;
    // The newest of them may have been in history already.
    for (const message of held) if (message.seq > this.last) this.next(message);
  }

  take(message) {
    if (this.held) this.held.push(message);
    else this.next(message);
  }

  next(message) {
    if (message.seq === this.last + 1) this.last = message.seq;
    else this.faults.push(message.seq <= this.last ? `#${message.seq} twice` : `#${message.seq} after #${this.last}`);
  }

  /** Sends one message as often as it takes. */
  async say() {
    const clientMsgId = `${this.user}-${this.sent++}`;
    for (;;) {
      await until(() => this.joined, "being in the room", 60_000);
      const answer = await new Promise((done) => {
        const lost = () => done(null);
        this.socket.once("disconnect", lost);
        const late = setTimeout(lost, ACK_MS);
        this.socket.emit("sendMessage", { roomId: this.room, content: clientMsgId, clientMsgId }, (ack) => {
          clearTimeout(late);
          this.socket.off("disconnect", lost);
          done(ack);
        });
      });
      if (answer?.ok) { this.acked += 1; if (answer.duplicate) this.repeats += 1; return; }
      if (answer && !AGAIN.has(answer.error.code)) { this.faults.push(`send: ${answer.error.code}`); return; }
      await pause(20);
    }
  }
}

let postgres, redis, servers, balancer;
before(async () => {
  [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
  const env = { DATABASE_URL: postgres.url, REDIS_URL: redis.url, TRUST_PROXY: "127.0.0.1", DRAIN_SECONDS: "5" };
  servers = await Promise.all([startChat({ shards: 2, env }), startChat({ shards: 2, env })]);
  balancer = await new Balancer("haproxy", "cookie", servers).start();
});
after(async () => {
  await balancer?.remove();
  await Promise.all(servers?.map((server) => server.remove()) ?? []);
  await redis?.remove();
  await postgres?.stop();
});

test(`both servers restart ${ROUNDS} times under load`, async () => {
  const members = Array.from({ length: ROOMS * MEMBERS }, (_, number) => new Member(
    balancer.url, `user-${number}`, `room-${number % ROOMS}`, number < ROOMS * (MEMBERS - 1) ? ["websocket"] : ["polling"]));
  await until(() => members.every((member) => member.joined), "everybody is there");
  let restarted = false;
  const sent = () => members.reduce((sum, member) => sum + member.sent, 0);
  const sending = Promise.all(members.flatMap((member) => Array.from({ length: WINDOW }, async () => {
    while (!restarted || sent() < MESSAGES_MIN) {
      await member.say();
      // In the short form, leave the machine to the servers.
      if (!LONG) await pause(10);
    }
  })));
  for (let round = 0; round < ROUNDS; round++) {
    for (const server of servers) {
      assert.deepEqual(await server.stop(), { code: 0, signal: null }, server.log);
      // A supervisor starts it again when the busy database does not let it in in time.
      await server.start().catch(() => server.start());
      // Until the balancer has seen it twice.
      await pause(1500);
    }
  }
  restarted = true;
  await sending;
  const faults = () => members.flatMap((member) => member.faults.map((fault) => `${member.user}: ${fault}`));
  let total = 0;
  for (let room = 0; room < ROOMS; room++) {
    const here = members.filter((member) => member.room === `room-${room}`);
    const said = here.reduce((sum, member) => sum + member.acked, 0);
    assert.equal(said, here.reduce((sum, member) => sum + member.sent, 0));
    await until(() => here.every((member) => member.last >= said) || faults().length, `everybody in room ${room} has all ${said}`, 30_000);
    // More would be a message stored twice, fewer one that was acked and is not there.
    assert.deepEqual(here.map((member) => member.last), here.map(() => said), faults().slice(0, 5).join(", "));
    total += said;
  }
  assert.deepEqual(faults(), []);
  const repeats = members.reduce((sum, member) => sum + member.repeats, 0);
  console.log(`${total} messages over ${ROUNDS * 2} restarts: 0 lost, 0 doubled, 0 out of order; ${repeats} were sent again and known`);
  for (const member of members) member.socket.disconnect();
});
