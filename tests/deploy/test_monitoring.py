"""The alert rules and the dashboard: written right, and naming what exists. `tests/operations` has them fire in real faults."""

import json
import re
import subprocess
import time
import unittest
import urllib.request

import yaml

from support import PROGRAM, ROOT, SECRET, Folder, free_port, run

RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
PATIENCE = 60
NAMES = re.compile(r"\b(?:yum|process)_[a-z_0-9]+\b")


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

    def scrape(self):
        """What a server of the built program shows of itself at its start."""
        metrics = free_port()
        env = {"HOST": "127.0.0.1", "PORT": "0", "METRICS_ADDR": f"127.0.0.1:{metrics}", "SHARDS": "2", "JWT_SECRET": SECRET}
        log = open(self.folder / "log", "w+")
        self.addCleanup(log.close)
        server = subprocess.Popen([PROGRAM], env=env, cwd=self.folder, stdout=log, stderr=log)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        until = time.monotonic() + PATIENCE
        while "serves on http://" not in (self.folder / "log").read_text():
            self.assertTrue(server.poll() is None and time.monotonic() < until, (self.folder / "log").read_text())
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def test_every_metric_that_is_named_is_in_a_scrape(self):
        scrape = self.scrape()
        there = {line.split("{")[0].split(" ")[0] for line in scrape.splitlines() if line and not line.startswith("#")}
        # A histogram has no buckets before its first value.
        there |= {name + suffix for name in re.findall(r"^# TYPE (\w+) histogram", scrape, re.M) for suffix in ("_bucket", "_sum", "_count")}
        asked = " ".join([*expressions(), *(rule["expr"] for rule in rules())])
        self.assertEqual(set(NAMES.findall(asked)) - there, set())
        # And the other way round: nothing that the server counts for others is left out of the dashboard.
        shown = {re.sub("_(bucket|sum|count)$", "", name) for name in NAMES.findall(" ".join(expressions()))}
        own = set(re.findall(r"^# TYPE (yum_\w+)", scrape, re.M)) - {"yum_build_info"}
        self.assertEqual(own - shown, set())


if __name__ == "__main__":
    unittest.main()
