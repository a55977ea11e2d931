"""The alert rules and the dashboard: written right, naming what exists, and true when something really breaks.

The fault run has a real Prometheus scrape real servers, one for each fault and one that is well. The rules are the shipped
ones with shorter windows (`[5m]` is 8 s, `for:` is 1 s), because a test cannot wait for minutes.
"""

import ctypes
import glob
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

import yaml

from support import PROGRAM, ROOT, SECRET, Folder, free_port, run

RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
PATIENCE = 60
NAMES = re.compile(r"\b(?:yum|process)_[a-z_0-9]+\b")


def fetch(url, body=None, headers=None):
    request = urllib.request.Request(url, data=body, headers=headers or {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


class Server:
    """A server of the built program, with its metrics on a port of their own."""

    def __init__(self, folder, descriptors=None, **settings):
        self.port, self.metrics = free_port(), free_port()
        self.folder = folder
        folder.mkdir()
        env = {"HOST": "127.0.0.1", "PORT": str(self.port), "METRICS_ADDR": f"127.0.0.1:{self.metrics}", "SHARDS": "2",
               "JWT_SECRET": SECRET, "DATABASE_URL": "sqlite:chat.db", "DRAIN_SECONDS": "1", **settings}

        def fewer():
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen([PROGRAM], env=env, cwd=folder, stdout=self.log, stderr=self.log, preexec_fn=fewer)

    def ready(self):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fetch(f"http://127.0.0.1:{self.port}/health/ready")
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self.folder / "log").read_text())
                time.sleep(0.05)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def scrape(self):
        return fetch(f"http://127.0.0.1:{self.metrics}/metrics")

    def threads(self, name):
        """The ids of its threads of that name."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]


class Client:
    """A Socket.IO client by long-polling, which reads only when it is asked to."""

    def __init__(self, server, user):
        code, token = run([PROGRAM, "token", "--sub", user], env={"JWT_SECRET": SECRET}, cwd=server.folder)
        assert code == 0, token
        self.url = f"http://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=polling"
        sid = json.loads(fetch(self.url)[1:])["sid"]
        self.url += f"&sid={sid}"
        self.post("40" + json.dumps({"token": token.strip()}))
        self.read()
        self.post('421["joinRoom",{"roomId":"lobby"}]')
        self.read()

    def post(self, packet):
        fetch(self.url, packet.encode())

    def read(self):
        return fetch(self.url)

    def say(self, text):
        self.post("422" + json.dumps(["sendMessage", {"roomId": "lobby", "content": text}]))


class Postgres:
    """A private PostgreSQL."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        folder.mkdir(mode=0o700)
        self.user = []
        if os.geteuid() == 0:
            # It refuses root.
            os.chown(folder, 65534, 65534)
            folder.parent.chmod(0o755)
            self.user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        self.programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        code, out = run([*self.user, f"{self.programs}/initdb", "--username=yum", "--auth=trust", "--encoding=UTF8", "--no-sync",
                         "--pgdata", folder / "data"], cwd=folder)
        assert code == 0, out
        self.process = subprocess.Popen(
            [*self.user, f"{self.programs}/postgres", "-D", str(folder / "data"), "-p", str(self.port), "-k", str(folder),
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + PATIENCE
        while run([*self.user, f"{self.programs}/pg_isready", "-h", "127.0.0.1", "-p", self.port], cwd=folder)[0] != 0:
            assert self.process.poll() is None and time.monotonic() < until
            time.sleep(0.05)

    @property
    def url(self):
        return f"postgres://yum@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions():
    """All that the dashboard asks, with Grafana's own variables filled in."""
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [note["expr"] for note in board["annotations"]["list"]]
    return [expr.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*") for expr in asked]


class Files(Folder):
    def test_the_rules_are_right_and_fire_on_what_they_are_for(self):
        for command in [["promtool", "check", "rules", RULES], ["promtool", "test", "rules", RULES.with_name("rules.test.yml")],
                        ["promtool", "check", "config", RULES.with_name("prometheus.yml")]]:
            code, out = run(command)
            self.assertEqual(code, 0, out)

    def test_every_rule_has_its_unit_test_and_says_what_to_do(self):
        tested = RULES.with_name("rules.test.yml").read_text()
        for rule in rules():
            # Once with alerts expected, at least.
            self.assertRegex(tested, rf"alertname: {rule['alert']}\n +eval_time: \w+\n +exp_alerts:")
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
            self.assertEqual(set(rule["annotations"]), {"summary", "description"})

    def test_the_dashboard_asks_what_prometheus_understands(self):
        file = self.folder / "asked.yml"
        recorded = [{"record": f"asked:{at}", "expr": expr} for at, expr in enumerate(expressions())]
        self.assertGreater(len(recorded), 40)
        file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": recorded}]}))
        code, out = run(["promtool", "check", "rules", file])
        self.assertEqual(code, 0, out)

    def test_no_panel_hides_another(self):
        panels = json.loads(DASHBOARD.read_text())["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = {}
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, f"{panel['title']} and {taken.get((x, y))}")
                    taken[x, y] = panel["title"]
            self.assertTrue(panel["type"] == "row" or panel["description"])

    def test_every_metric_that_is_named_is_in_a_scrape(self):
        server = Server(self.folder / "server")
        self.addCleanup(server.end)
        scrape = server.ready().scrape()
        there = {line.split("{")[0].split(" ")[0] for line in scrape.splitlines() if line and not line.startswith("#")}
        # A histogram has no buckets before its first value.
        there |= {name + suffix for name in re.findall(r"^# TYPE (\w+) histogram", scrape, re.M) for suffix in ("_bucket", "_sum", "_count")}
        asked = " ".join([*expressions(), *(rule["expr"] for rule in rules())])
        self.assertEqual(set(NAMES.findall(asked)) - there, set())
        # And the other way round: nothing that the server counts for others is left out of the dashboard.
        shown = {re.sub("_(bucket|sum|count)$", "", name) for name in NAMES.findall(" ".join(expressions()))}
        own = set(re.findall(r"^# TYPE (yum_\w+)", scrape, re.M)) - {"yum_build_info"}
        self.assertEqual(own - shown, set())


class Faults(unittest.TestCase):
    """One fault a server, all at the same time."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="project-yum-faults-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.stop = threading.Event()
        self.addCleanup(self.stop.set)

    def start(self, name, **settings):
        server = Server(self.folder / name, **settings)
        self.addCleanup(server.end)
        return server

    def start_prometheus(self, servers):
        short = re.sub(r"\[\d+m\]", "[8s]", re.sub(r"for: \w+", "for: 1s", RULES.read_text()))
        (self.folder / "rules.yml").write_text(short)
        targets = [{"targets": [f"127.0.0.1:{server.metrics}"], "labels": {"instance": name}} for name, server in servers.items()]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "project-yum", "static_configs": targets}],
        }))
        self.prometheus = free_port()
        log = open(self.folder / "prometheus.log", "w")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            ["prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.prometheus}"], stdout=log, stderr=log, cwd=self.folder)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def firing(self):
        """The alerts that fire, as pairs of server and name; nothing while Prometheus starts."""
        try:
            answer = json.loads(fetch(f"http://127.0.0.1:{self.prometheus}/api/v1/alerts"))
        except (OSError, ValueError):
            return None
        alerts = answer["data"]["alerts"]
        return {(alert["labels"]["instance"], alert["labels"]["alertname"]) for alert in alerts if alert["state"] == "firing"}

    def seen(self):
        """How often the servers were scraped."""
        query = "min(count_over_time(up[1h]))"
        try:
            answer = json.loads(fetch(f"http://127.0.0.1:{self.prometheus}/api/v1/query?query={query}"))
        except (OSError, ValueError):
            return 0
        result = answer["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def until(self, holds, what):
        end = time.monotonic() + PATIENCE
        while not holds():
            self.assertLess(time.monotonic(), end, f"{what}: {self.firing()}")
            time.sleep(0.1)

    # ---- the faults

    def hold_a_shard(self, server):
        """Stops one thread, as a debugger would, until the test is over."""
        libc = ctypes.CDLL(None, use_errno=True)
        seize, interrupt, detach, all_kinds = 0x4206, 0x4207, 17, 0x40000000
        thread = server.threads("shard-0")[0]

        def hold():
            # Whoever takes hold of it has to let it go.
            for request in (seize, interrupt):
                self.assertEqual(libc.ptrace(request, thread, None, None), 0, os.strerror(ctypes.get_errno()))
            libc.waitpid(thread, None, all_kinds)
            held.set()
            # The process ends itself after 10 s.
            self.stop.wait(9)
            libc.ptrace(detach, thread, None, None)
        held = threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        self.addCleanup(holder.join)
        self.addCleanup(self.stop.set)
        self.assertTrue(held.wait(PATIENCE))

    def stop_reading(self, server):
        """Members of a room who never read, and one who talks to them."""
        for number in range(6):
            Client(server, f"deaf-{number}")
        speaker = Client(server, "speaker")
        for _ in range(4):
            speaker.say("x" * 60_000)
            speaker.read()

    def take_descriptors(self, server, share):
        """Keeps so many connections open that this share of the descriptors is used."""
        limit = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0]
        used = pathlib.Path(f"/proc/{server.process.pid}/fd")

        def keep():
            sockets = []
            while not self.stop.wait(0.05):
                # The server keeps a reserve: beyond it, connections are not taken, so a share above that is never reached.
                while len(list(used.iterdir())) < limit * share and not self.stop.is_set():
                    sockets.append(socket.create_connection(("127.0.0.1", server.port), timeout=2))
            for one in sockets:
                one.close()
        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        self.addCleanup(keeper.join)
        self.addCleanup(self.stop.set)

    def test_each_alert_fires_for_its_fault_and_no_other_does(self):
        database = Postgres(self.folder / "postgres")
        self.addCleanup(database.end)
        redis_port = free_port()
        redis = subprocess.Popen(["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""],
                                 cwd=self.folder, stdout=subprocess.DEVNULL)
        self.addCleanup(redis.wait)
        self.addCleanup(redis.kill)
        servers = {
            "well": self.start("well"),
            "without-redis": self.start("without-redis", REDIS_URL=f"redis://127.0.0.1:{redis_port}"),
            "without-database": self.start("without-database", DATABASE_URL=database.url),
            "stalled": self.start("stalled"),
            "deaf-clients": self.start("deaf-clients", OUTBOX_BYTES_MAX="65536"),
            "crowded": self.start("crowded", descriptors=512, SHARDS="1"),
            "gone": self.start("gone"),
        }
        for server in servers.values():
            server.ready()
        self.start_prometheus(servers)
        friends = [Client(servers["well"], name) for name in ("alice", "bob")]

        def chat():
            # Ordinary life goes on where all is well.
            while not self.stop.wait(0.3):
                friends[0].say("hello")
                for friend in friends:
                    friend.read()
        chatting = threading.Thread(target=chat, daemon=True)
        chatting.start()
        self.addCleanup(chatting.join)
        self.addCleanup(self.stop.set)

        self.until(lambda: self.seen() >= 4, "four scrapes")
        self.assertEqual(self.firing(), set(), "all is quiet before anything happens")

        database.end()
        redis.kill()
        servers["gone"].process.kill()
        self.take_descriptors(servers["crowded"], 0.84)
        self.stop_reading(servers["deaf-clients"])
        self.hold_a_shard(servers["stalled"])
        expected = {
            ("without-database", "YumStoreDown"),
            ("without-redis", "YumBusDown"),
            ("stalled", "YumShardStalled"),
            ("deaf-clients", "YumSlowConsumers"),
            ("crowded", "YumDescriptorsShort"),
            ("gone", "YumServerDown"),
        }
        fired = set()

        def all_fired():
            fired.update(self.firing() or set())
            return expected <= fired
        self.until(all_fired, "every alert fires")
        self.assertEqual(fired, expected, "and no other")


if __name__ == "__main__":
    unittest.main()
