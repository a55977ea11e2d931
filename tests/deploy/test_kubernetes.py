"""The Helm chart, the Kubernetes files rendered from it, and compose.yaml.

`python tests/deploy/test_kubernetes.py --write` renders deploy/kubernetes anew after a change of the chart.
"""

import copy
import json
import re
import sys
import unittest

import kubernetes_validate
import yaml
from helm_python import Chart, lint

from support import ROOT

CHART = ROOT / "deploy/helm/project-yum"
FILES = ROOT / "deploy/kubernetes"
# The oldest that knows all fields used (the preStop sleep), a middle one, the newest that the validator knows.
VERSIONS = ["1.30", "1.33", "1.37"]
# Not Kubernetes' own, so the validator does not know it.
FOREIGN = {"ServiceMonitor"}
ALL_ON = {"ingress": {"enabled": True}, "autoscaling": {"connections": 5000}, "settings": {"LOG_LEVEL": "debug"}}


def render(values=None):
    """The chart's files by name, with what it was given."""
    with Chart.load(CHART) as chart:
        rendered = chart.render(values, name="project-yum", namespace="default")
    files = {path.rsplit("/", 1)[1]: text for path, text in rendered.items()}
    return {name: text.strip() + "\n" for name, text in files.items() if name.endswith(".yaml") and text.strip()}


def objects(files):
    return [thing for text in files.values() for thing in yaml.safe_load_all(text) if thing]


def of_kind(things, kind):
    return [thing for thing in things if thing["kind"] == kind]


class Kubernetes(unittest.TestCase):
    def setUp(self):
        self.things = objects(render())
        self.pod = of_kind(self.things, "Deployment")[0]["spec"]["template"]["spec"]
        self.server = self.pod["containers"][0]

    def test_helm_finds_nothing_wrong(self):
        for values in [None, ALL_ON, {"seccomp": {"type": "Unconfined"}}]:
            report = lint(CHART, values, strict=True)
            self.assertEqual(report["errors"], [])
            self.assertEqual([m for m in report["messages"] if m["severity"] > 1], [])

    def test_every_object_is_what_kubernetes_knows(self):
        for values in [None, ALL_ON, {"seccomp": {"type": "Unconfined"}}]:
            things = [thing for thing in objects(render(values)) if thing["kind"] not in FOREIGN]
            self.assertGreater(len(things), 5)
            for version in VERSIONS:
                for thing in things:
                    with self.subTest(version=version, kind=thing["kind"]):
                        kubernetes_validate.validate(thing, version, strict=True)

    def test_the_validator_would_see_a_wrong_field(self):
        wrong = copy.deepcopy(of_kind(self.things, "Deployment")[0])
        wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)

    def test_the_files_are_what_the_chart_renders(self):
        rendered = render()
        listed = yaml.safe_load((FILES / "kustomization.yaml").read_text())["resources"]
        self.assertEqual(sorted(listed), sorted(rendered))
        for name, text in rendered.items():
            self.assertEqual((FILES / name).read_text(), text, f"{name}: render it anew (see this test's head)")

    def test_the_pod_may_do_little_and_has_io_uring(self):
        # What Pod Security calls `restricted`.
        self.assertEqual(self.pod["automountServiceAccountToken"], False)
        around = self.pod["securityContext"]
        self.assertTrue(around["runAsNonRoot"] and around["runAsUser"] == 65532)
        self.assertEqual(around["seccompProfile"], {"type": "Localhost", "localhostProfile": "project-yum.json"})
        own = self.server["securityContext"]
        self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
        self.assertEqual((own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]), (False, True))

    def test_the_profile_that_is_installed_is_the_one_that_is_tested(self):
        tested = (ROOT / "deploy/seccomp.json").read_text()
        self.assertEqual((CHART / "files/seccomp.json").read_text(), tested)
        profile = of_kind(self.things, "ConfigMap")[0]
        self.assertEqual(json.loads(profile["data"]["project-yum.json"]), json.loads(tested))
        installer = of_kind(self.things, "DaemonSet")[0]["spec"]["template"]["spec"]
        self.assertIn("project-yum.json", installer["initContainers"][0]["command"][-1])
        self.assertEqual(installer["volumes"][1]["hostPath"]["path"], "/var/lib/kubelet/seccomp")

    def test_a_pod_has_time_to_drain(self):
        env = {entry["name"]: entry["value"] for entry in self.server["env"]}
        pause = self.server["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = self.pod["terminationGracePeriodSeconds"]
        self.assertGreaterEqual(grace, pause + int(env["DRAIN_SECONDS"]) + 10)
        # While it drains, /health says 503: that must not have it killed.
        alive = self.server["livenessProbe"]
        self.assertGreaterEqual(alive["periodSeconds"] * alive["failureThreshold"], int(env["DRAIN_SECONDS"]) + pause)
        rolling = of_kind(self.things, "Deployment")[0]["spec"]["strategy"]["rollingUpdate"]
        self.assertEqual(rolling, {"maxUnavailable": 0, "maxSurge": 1})

    def test_alive_is_not_ready(self):
        paths = {probe: self.server[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        self.assertEqual(paths, {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/health/ready"})

    def test_objects_find_each_other(self):
        deployment = of_kind(self.things, "Deployment")[0]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        selectors = [deployment["spec"]["selector"]["matchLabels"]]
        selectors += [service["spec"]["selector"] for service in of_kind(self.things, "Service")]
        selectors += [of_kind(self.things, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"]]
        selectors += [of_kind(self.things, "NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"]]
        for selector in selectors:
            self.assertLessEqual(selector.items(), labels.items())
        self.assertEqual(of_kind(self.things, "HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"])
        ports = {port["name"] for port in self.server["ports"]}
        for service in of_kind(self.things, "Service"):
            for port in service["spec"]["ports"]:
                self.assertIn(port["targetPort"], ports)
        monitor = of_kind(self.things, "ServiceMonitor")[0]
        watched = [service for service in of_kind(self.things, "Service")
                   if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()]
        self.assertEqual([service["spec"]["ports"][0]["name"] for service in watched], [monitor["spec"]["endpoints"][0]["port"]])

    def test_secrets_come_as_files(self):
        for entry in self.server["env"]:
            self.assertNotRegex(entry["name"], r"SECRET$|PASSWORD|TOKEN")
        self.assertEqual(of_kind(self.things, "Secret"), [])


class Compose(unittest.TestCase):
    def setUp(self):
        self.file = ROOT / "deploy/compose.yaml"
        self.services = yaml.safe_load(self.file.read_text())["services"]

    def test_the_server_gets_what_io_uring_needs_and_little_else(self):
        server = self.services["server"]
        self.assertIn("seccomp:./seccomp.json", server["security_opt"])
        self.assertGreaterEqual(server["ulimits"]["memlock"], 8 << 20)
        self.assertTrue(server["read_only"] and server["cap_drop"] == ["ALL"])
        self.assertIn("no-new-privileges:true", server["security_opt"])
        grace = int(server["stop_grace_period"].removesuffix("s"))
        self.assertGreaterEqual(grace, int(server["environment"]["DRAIN_SECONDS"]) + 10)

    def test_every_file_it_names_is_there(self):
        folder = self.file.parent
        named = [folder / service["build"]["context"] / service["build"]["dockerfile"]
                 for service in self.services.values() if "build" in service]
        named += [folder / volume.split(":")[0] for service in self.services.values()
                  for volume in service.get("volumes", []) if volume.startswith("./")]
        named.append(folder / "seccomp.json")
        self.assertGreater(len(named), 5)
        for path in named:
            self.assertTrue(path.exists(), path)

    def test_no_secret_has_a_value(self):
        text = self.file.read_text()
        for secret in re.findall(r"(\w*(?:SECRET|PASSWORD)\w*): (.*)", text):
            self.assertIn("${", secret[1], secret)
            self.assertIn(":?", secret[1], secret)


if __name__ == "__main__":
    if "--write" in sys.argv:
        for name, text in render().items():
            (FILES / name).write_text(text)
    else:
        unittest.main()
