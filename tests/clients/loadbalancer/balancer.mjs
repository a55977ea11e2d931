// nginx and HAProxy with the files from deploy/, changed only in their addresses, in front of two servers.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { freePort, startChat, until } from "../support.mjs";

const DEPLOY = resolve(import.meta.dirname, "../../../deploy");

/** Two servers that believe a proxy on this machine, and listen for the PROXY protocol too. */
export async function startPair(env = {}) {
  const start = async () => {
    const proxied = await freePort();
    const server = await startChat({ env: { TRUST_PROXY: "127.0.0.1", PROXY_PROTOCOL_ADDR: `127.0.0.1:${proxied}`, ...env } });
    return Object.assign(server, { proxied });
  };
  return Promise.all([start(), start()]);
}

/** The balancer `nginx` or `haproxy` with the shipped file `cookie` or `source`; `change` edits its text. */
export class Balancer {
  constructor(program, file, servers, change = (text) => text) {
    Object.assign(this, { program, file, servers, change });
    this.folder = mkdtempSync(join(tmpdir(), `project-yum-${program}-`));
    this.log = "";
  }

  async start() {
    this.port = await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    this.write();
    const args = this.program === "nginx"
      ? ["-p", this.folder, "-c", join(this.folder, "main.conf"), "-g", "daemon off;"]
      : ["-db", "-f", join(this.folder, "haproxy.cfg")];
    this.child = spawn(this.program, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.ended = new Promise((done) => this.child.on("exit", done));
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", (data) => { this.log += data; });
    process.on("exit", () => this.child.kill("SIGKILL"));
    // Both servers are seen as ready, not only the first.
    let well = 0;
    await until(async () => {
      const answer = await ask(this.url, "/health/ready").catch(() => null);
      well = answer?.status === 200 ? well + 1 : 0;
      return well > 3;
    }, "the balancer").catch((error) => { throw new Error(`${error.message}; it wrote:\n${this.log}`); });
    return this;
  }

  /** Writes the configuration; `down` names a server that is to get nobody any more. */
  write(down) {
    let text = readFileSync(join(DEPLOY, this.program, `${this.file}.${this.program === "nginx" ? "conf" : "cfg"}`), "utf8");
    const here = (port) => `127.0.0.1:${port}`;
    this.servers.forEach((server, index) => {
      const away = `10.0.0.${index + 1}`;
      text = text.replaceAll(`${away}:4000`, here(server.port)).replaceAll(`${away}:4001`, here(server.proxied))
        .replaceAll(`${away.replaceAll(".", "\\.")}:4000`, here(server.port).replaceAll(".", "\\."));
      // HAProxy asks for a server's health at the port for everybody.
      text = text.replace(`server ${["one", "two"][index]} ${here(server.proxied)}`, (line) => `${line} port ${server.port}`);
    });
    text = this.change(text.replace("check port 4000", "check").replace("listen 80;", `listen 127.0.0.1:${this.port};`)
      .replace("bind :80", `bind 127.0.0.1:${this.port}`).replaceAll("/run/haproxy/admin.sock", this.socket));
    if (down) text = text.replace(new RegExp(`(server 127\\.0\\.0\\.1:${down.proxied}) [^;]*;`), "$1 down;");
    if (this.program === "haproxy") return writeFileSync(join(this.folder, "haproxy.cfg"), text);
    mkdirSync(join(this.folder, "logs"), { recursive: true });
    writeFileSync(join(this.folder, "balancer.conf"), text);
    const common = "pid nginx.pid; error_log stderr;";
    const events = "events { worker_connections 4096; }";
    const user = process.getuid() === 0 ? "user root;" : "";
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${name};`).join(" ");
    writeFileSync(join(this.folder, "main.conf"), this.file === "source"
      ? `load_module /usr/lib/nginx/modules/ngx_stream_module.so; ${user} ${common} ${events} stream { include balancer.conf; }`
      : `${user} ${common} ${events} http { access_log off; ${paths} include balancer.conf; }`);
  }

  get socket() { return join(this.folder, "admin.sock"); }

  /** Takes a server out, as an operator does before stopping it. */
  async takeOut(server) {
    if (this.program === "nginx") {
      this.write(server);
      this.child.kill("SIGHUP");
      return;
    }
    const name = ["one", "two"][this.servers.indexOf(server)];
    await new Promise((done, failed) => {
      const socket = connect(this.socket, () => socket.end(`set server servers/${name} state drain\n`));
      socket.on("error", failed).on("close", done).resume();
    });
  }

  async remove() {
    this.child.kill("SIGTERM");
    setTimeout(() => this.child.kill("SIGKILL"), 2000).unref();
    await this.ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** One request on a connection of its own, from the given address of this machine. */
export function ask(url, path, { from = "127.0.0.1", headers = {} } = {}) {
  return new Promise((done, failed) => {
    const sent = request(url + path, { localAddress: from, headers, agent: new Agent({ keepAlive: false }), timeout: 5000 }, (answer) => {
      let text = "";
      answer.on("data", (data) => { text += data; }).on("end", () => done({ status: answer.statusCode, headers: answer.headers, text }));
    });
    sent.on("error", failed).on("timeout", () => sent.destroy(new Error("no answer"))).end();
  });
}
