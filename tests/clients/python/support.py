"""What the Python client tests share: a server process of their own, tokens, clients that keep what they receive."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import socketio
from engineio.payload import Payload

# The client's own setting: it takes 16 packets a poll unless told otherwise, and a Socket.IO server may send more.
Payload.max_decode_packets = 2000
# unittest runs asyncio in its debug mode, which reports every step of more than 0.1 s: no news on a busy machine.
logging.getLogger("asyncio").setLevel(logging.ERROR)

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
CHAT = os.environ.get("PROJECT_YUM_BIN", str(TARGET / "debug/project-yum"))
CONFORMANCE = os.environ.get("PROJECT_YUM_CONFORMANCE_BIN", str(TARGET / "debug/examples/conformance"))
SECRET = "a secret that only the tests know and long enough"
PATIENCE = 20
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}


def token(sub, ttl=3600, **claims):
    """A token as an identity service would make it."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    now = int(time.time())
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"sub": sub, "iat": now, "exp": now + ttl, **claims})
    mac = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).rstrip(b"=")
    return (signed + b"." + mac).decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process. It keeps its port and its data over `restart`."""

    def __init__(self, program, probe, probe_status, env):
        self.program, self.probe, self.probe_status = program, probe, probe_status
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.mkdtemp(prefix="project-yum-test-")
        # Nothing of the caller's environment reaches the server.
        self.env = {"PATH": os.environ["PATH"], "HOME": self.folder, "HOST": "127.0.0.1", "PORT": str(self.port), **env}
        self.start()

    def start(self):
        self.log = open(pathlib.Path(self.folder) / "server.log", "ab")
        self.child = subprocess.Popen([self.program], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 30
        while not self.answers():
            if self.child.poll() is not None or time.monotonic() > end:
                self.child.kill()
                raise RuntimeError(f"{self.program} does not answer:\n{pathlib.Path(self.log.name).read_text()}")
            time.sleep(0.05)

    def answers(self):
        try:
            return self.get(self.probe)[0] == self.probe_status
        except OSError:
            return False

    def get(self, path, bearer=None):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def stop(self):
        """SIGTERM, then the exit code."""
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()
        finally:
            self.log.close()

    def restart(self):
        self.stop()
        self.start()

    def remove(self):
        code = self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


def start_chat(shards):
    return Server(CHAT, "/health/ready", 200, {
        "SHARDS": str(shards), "DATABASE_URL": "sqlite:chat.db", "JWT_SECRET": SECRET, "METRICS_ADDR": f"127.0.0.1:{free_port()}",
        "RATE_MESSAGES_PER_SECOND": "0", "RATE_HTTP_PER_SECOND": "0", "RATE_CONNECTIONS_PER_SECOND": "0", "LOG_LEVEL": "warn", "DRAIN_SECONDS": "5",
    })


def start_conformance(shards):
    return Server(CONFORMANCE, "/socket.io/", 400, {
        "SHARDS": str(shards), "PING_INTERVAL_MS": "25000", "PING_TIMEOUT_MS": "20000", "CONNECT_TIMEOUT_MS": "45000", "MAX_PAYLOAD_BYTES": "1000000",
    })


async def until(condition, what, seconds=PATIENCE):
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        await asyncio.sleep(0.01)
    return value


class Client:
    """A client that keeps every event it receives."""

    def __init__(self, url, transports, auth=None, namespaces=None):
        self.url, self.transports, self.auth, self.namespaces = url, transports, auth, namespaces
        self.io = socketio.AsyncClient(reconnection_delay=0.05, reconnection_delay_max=0.2)
        self.events = []
        self.connects = 0
        self.io.on("connect", self._connected)
        self.io.on("*", self._event)

    async def _connected(self):
        self.connects += 1

    async def _event(self, event, *args):
        self.events.append((event, list(args)))

    async def connect(self):
        await self.io.connect(self.url, transports=self.transports, auth=self.auth, namespaces=self.namespaces, wait_timeout=PATIENCE)
        return self

    async def ask(self, event, data=None, namespace=None):
        return await self.io.call(event, data, namespace=namespace, timeout=PATIENCE)

    def named(self, event):
        return [args for name, args in self.events if name == event]

    async def next(self, event, count=1):
        await until(lambda: len(self.named(event)) >= count, f"{count} × {event}, have {len(self.named(event))}")
        return self.named(event)[count - 1]

    async def close(self):
        await self.io.disconnect()
