"""The NixOS module and the flake, as far as they can be seen without nixpkgs: which unit comes out, and that it would work.

`nix flake check -L` on a machine with a Nix cache shows the rest: that nixpkgs has what is named, that it builds, that it runs.
"""

import ast
import builtins
import json
import os
import re
import shutil
import unittest

from support import LONG, PROGRAM, ROOT, SECRET, TARGET, Folder, dockerfile, run

LOCK = {
    "rev": "02e08985a27c65ffd33d434eeb2e660a2e4dc84d",
    "narHash": "sha256-QvnceIGTBeDvDd9oCn+GvdsnkquliuwbVgpiRH68qaQ=",
    "lastModified": 1786711500,
}
KEY = {"jwt_secret": "/run/secrets/jwt"}
# A program that is denied one of these does not start, or starts and dies later.
NEEDED_CALLS = {"@aio", "@io-event", "@network-io", "@resources", "@memlock", "io_uring_setup", "io_uring_enter",
                "io_uring_register", "sched_setaffinity", "membarrier", "eventfd2"}


class Nix(Folder):
    def setUp(self):
        super().setUp()
        (self.folder / "nix.conf").write_text(
            "experimental-features = nix-command flakes\nsandbox = false\nbuild-users-group =\n"
            "substituters =\nflake-registry =\n"
        )
        self.env = dict(os.environ, NIX_CONF_DIR=str(self.folder), NIX_REMOTE=str(self.folder / "store"),
                        HOME=str(self.folder), XDG_CACHE_HOME=str(self.folder / "cache"), LC_ALL="C.UTF-8")

    def evaluate(self, **settings):
        """The module's outcome with these settings under services.project-yum."""
        given = self.folder / "settings.json"
        given.write_text(json.dumps({"enable": True, **settings}))
        expression = f"import {ROOT}/tests/deploy/nix/eval.nix {{ settings = builtins.fromJSON (builtins.readFile {given}); }}"
        code, out = run(["nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", "-E", expression], env=self.env)
        self.assertEqual(code, 0, out)
        return json.loads(out.splitlines()[-1])

    def unit(self, **settings):
        outcome = self.evaluate(**settings)
        self.assertEqual(outcome["refused"], [])
        return outcome["unit"]

    def configuration(self, unit):
        path = re.search(r"--config /nix/store/(\S+)", unit["serviceConfig"]["ExecStart"]).group(1)
        return (self.folder / "store/nix/store" / path).read_text()

    def unit_file(self, unit):
        """The unit as systemd would read it, with a program that is there."""
        def lines(key, value):
            values = value if isinstance(value, list) else [value]
            return [f"{key}={str(v).lower() if isinstance(v, bool) else v}" for v in values]
        program = self.folder / "project-yum"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        text = ["[Unit]", f"Description={unit['description']}", "[Service]"]
        text += [f'Environment="{key}={value}"' for key, value in unit["environment"].items()]
        for key, value in unit["serviceConfig"].items():
            text += lines(key, value)
        file = self.folder / "project-yum.service"
        file.write_text(re.sub(r"/package/\S+", str(program), "\n".join(text)) + "\n")
        return file

    # ---- the module

    def test_the_unit_has_what_io_uring_needs(self):
        service = self.unit()["serviceConfig"]
        self.assertEqual(service["LimitMEMLOCK"], "infinity")
        self.assertGreaterEqual(service["LimitNOFILE"], 65536)
        rules = service["SystemCallFilter"]
        allowed = " ".join(rule for rule in rules if not rule.startswith("~")).split()
        denied = " ".join(rule[1:] for rule in rules if rule.startswith("~")).split()
        self.assertIn("@system-service", allowed)
        self.assertEqual(NEEDED_CALLS & set(denied), set())
        self.assertEqual(set(service["RestrictAddressFamilies"]), {"AF_INET", "AF_INET6", "AF_UNIX"})
        # /proc/sys has to be seen, for the start-up's diagnosis.
        self.assertNotEqual(service.get("ProcSubset"), "pid")
        self.assertEqual(self.unit(memlock=67108864)["serviceConfig"]["LimitMEMLOCK"], "67108864")

    def test_systemd_accepts_the_unit_and_finds_little_exposed(self):
        for settings in [{}, {"settings": {"listen": {"port": 443}}, "credentials": KEY}]:
            file = self.unit_file(self.unit(**settings))
            env = dict(os.environ, SYSTEMD_UNIT_PATH=f"{self.folder}:")
            code, out = run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file], env=env)
            self.assertEqual((code, [line for line in out.splitlines() if "project-yum" in line]), (0, []), out)
            code, out = run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", file], env=env)
            self.assertEqual(code, 0, out[-2000:])

    def test_the_unit_for_other_systems_is_the_same(self):
        # Where the program is, where its settings come from, and where it keeps messages: that differs.
        own = {"ExecStart", "ExecReload", "Environment", "EnvironmentFile", "LoadCredential", "SupplementaryGroups"}
        flat = lambda value: " ".join(flat(one) for one in value) if isinstance(value, list) else str(value).lower()
        nixos = {key: flat(value) for key, value in self.unit()["serviceConfig"].items() if key not in own}
        plain = {}
        text = (ROOT / "deploy/systemd/project-yum.service").read_text()
        for line in text.split("[Service]")[1].split("[Install]")[0].splitlines():
            if "=" in line and not line.startswith("#"):
                key, value = line.split("=", 1)
                plain.setdefault(key, []).append({"yes": "true"}.get(value, value))
        plain = {key: flat(value) for key, value in plain.items() if key not in own}
        self.assertEqual(plain, nixos)
        file = self.folder / "project-yum.service"
        file.write_text(text.replace("/usr/local/bin/project-yum", "/bin/true"))
        code, out = run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file])
        self.assertEqual((code, [line for line in out.splitlines() if "project-yum" in line]), (0, []), out)

    def test_the_service_is_restarted_unless_that_cannot_help(self):
        service = self.unit(settings={"drain_seconds": 25})["serviceConfig"]
        self.assertEqual((service["Type"], service["Restart"]), ("notify", "always"))
        self.assertEqual(service["RestartPreventExitStatus"], [2, 3])
        self.assertEqual(service["TimeoutStopSec"], 35)
        self.assertIn("WatchdogSec", service)
        self.assertIn("-HUP $MAINPID", service["ExecReload"])

    def test_secrets_reach_the_program_by_path_alone(self):
        unit = self.unit(credentials={"jwt_secret": "/run/SENTINEL-a", "database_url": "/run/SENTINEL-b"})
        service = unit["serviceConfig"]
        self.assertEqual(sorted(service.pop("LoadCredential")), ["database_url:/run/SENTINEL-b", "jwt_secret:/run/SENTINEL-a"])
        self.assertEqual(unit["environment"], {"JWT_SECRET_FILE": "%d/jwt_secret", "DATABASE_URL_FILE": "%d/database_url"})
        self.assertNotIn("SENTINEL", json.dumps(unit) + self.configuration(unit))
        self.assertNotIn("database_url", self.configuration(unit))

    def test_neighbours_come_only_when_wanted(self):
        plain = self.evaluate(credentials=KEY)
        self.assertEqual((plain["services"], plain["ports"], plain["warnings"]), ({}, [], []))
        self.assertIn('database_url = "sqlite:/var/lib/project-yum/chat.db"', self.configuration(plain["unit"]))
        local = self.evaluate(credentials=KEY, database={"createLocally": True}, redis={"createLocally": True})
        unit, postgres = local["unit"], local["services"]["postgresql"]
        self.assertEqual(postgres["ensureUsers"], [{"name": unit["serviceConfig"]["User"], "ensureDBOwnership": True}])
        # postgresql.service does not wait for users and databases.
        self.assertLessEqual({"postgresql.target", "redis-project-yum.service"}, set(unit["after"]))
        self.assertEqual(unit["requires"], ["postgresql.target"])
        self.assertEqual(unit["serviceConfig"]["SupplementaryGroups"], ["redis-project-yum"])
        self.assertIn("redis+unix:///run/redis-project-yum/redis.sock", self.configuration(unit))
        watched = self.evaluate(credentials=KEY, prometheus={"scrape": True, "rules": True})["services"]["prometheus"]
        self.assertEqual(watched["scrapeConfigs"][0]["static_configs"], [{"targets": ["127.0.0.1:9464"]}])
        self.assertTrue(watched["ruleFiles"])
        host = self.evaluate(credentials=KEY, nginx={"enable": True, "virtualHost": "chat.example.org"})
        site = host["services"]["nginx"]["virtualHosts"]["chat.example.org"]
        self.assertTrue(site["forceSSL"] and site["enableACME"] and site["locations"]["/"]["proxyWebsockets"])
        self.assertIn("proxy_read_timeout 1h;", site["locations"]["/"]["extraConfig"])

    def test_only_the_clients_port_is_opened(self):
        outcome = self.evaluate(openFirewall=True, credentials=KEY, settings={"listen": {"address": "0.0.0.0"}})
        self.assertEqual((outcome["ports"], outcome["warnings"]), ([4000], []))

    def test_what_cannot_work_is_refused(self):
        public = {"listen": {"address": "0.0.0.0"}}
        web = {"enable": True, "virtualHost": "chat.example.org"}
        for settings in [
            {"settings": public},
            {"settings": {"listen": {"port": 9464}}},
            {"nginx": web},
            {"nginx": {"enable": True}, "credentials": KEY},
            {"nginx": {**web, "sslCertificate": "/etc/chat.pem"}, "credentials": KEY},
            {"credentials": {**KEY, "database_url": "/run/db"}, "database": {"createLocally": True}},
            {"credentials": {**KEY, "redis_url": "/run/redis"}, "redis": {"createLocally": True}},
            {"credentials": KEY, "settings": {"jwt_secret": "x" * 32}},
            {"credentials": KEY, "settings": {"database_url": "postgres://chat:secret@db/chat"}},
            {"credentials": {"JWT-SECRET": "/run/secrets/jwt"}},
        ]:
            with self.subTest(settings):
                self.assertEqual(len(self.evaluate(**settings)["refused"]), 1)
        self.assertEqual(self.evaluate(enable=False)["unit"], None)
        self.assertEqual(self.evaluate(credentials=KEY, settings=public)["refused"], [])

    def test_every_option_is_described(self):
        self.assertEqual(self.evaluate()["undescribed"], [])

    def test_the_program_accepts_the_files_it_is_given(self):
        locally = {"database": {"createLocally": True}, "redis": {"createLocally": True}}
        web = {"nginx": {"enable": True, "virtualHost": "chat.example.org"}}
        for settings in [{}, {"settings": {"drain_seconds": 20, "cors_origins": "https://a.example"}}, locally, web]:
            unit = self.unit(credentials=KEY, **settings)
            file = self.folder / "config.toml"
            file.write_text(self.configuration(unit))
            code, out = run([PROGRAM, "--config", file, "config", "check"], env={"JWT_SECRET": SECRET}, cwd=self.folder)
            self.assertEqual(code, 0, f"{file.read_text()}\n{out}")

    # ---- the image and the tests in virtual machines

    def test_the_image_is_for_nobody_in_particular(self):
        image = self.evaluate()["image"]
        config = image["config"]
        # A number, so that a kubelet can tell that it is not root; a fixed date, so that the same source gives the same image.
        self.assertRegex(config["User"], r"^[1-9]\d+:[1-9]\d+$")
        self.assertEqual(image["created"], "1970-01-01T00:00:01Z")
        self.assertEqual(config["Entrypoint"], ["/package/project-yum/bin/project-yum"])
        self.assertEqual(image["contents"], ["/package/project-yum", "/package/ca-certificates"])
        self.assertEqual(set(config["ExposedPorts"]), {"4000/tcp", "9464/tcp"})
        self.assertNotRegex(" ".join(config["Env"]), "SECRET|PASSWORD|TOKEN")
        self.assertIn("org.opencontainers.image.revision", config["Labels"])

    def test_both_images_run_alike(self):
        nix, docker = self.evaluate()["image"]["config"], dockerfile()
        self.assertEqual(nix["User"], docker["user"])
        self.assertEqual(sorted(nix["Env"]), sorted(docker["env"]))
        self.assertEqual(set(nix["ExposedPorts"]), set(docker["ports"]))
        self.assertEqual(list(nix["Volumes"]), docker["volumes"])

    def test_the_scripts_of_the_virtual_machines_are_python(self):
        driver = {"machine", "one", "two", "backend", "front", "start_all", "subtest"}
        for script in self.evaluate()["scripts"]:
            tree = ast.parse(script)
            names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            made |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            made |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
            used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
            self.assertEqual(used - made - driver - set(dir(builtins)), set())

    # ---- the flake

    def test_the_flake_locks_the_one_input_it_has(self):
        flake = (ROOT / "flake.nix").read_text()
        self.assertEqual(re.findall(r"inputs\.(\w+)\.url", flake), ["nixpkgs"])
        nodes = json.loads((ROOT / "flake.lock").read_text())["nodes"]
        self.assertEqual(set(nodes), {"root", "nixpkgs"})
        locked = nodes["nixpkgs"]["locked"]
        self.assertEqual({key: locked[key] for key in LOCK}, LOCK)
        code, out = run(["nix", "flake", "metadata", "--offline", "--no-update-lock-file", "--json", self.tracked()], env=self.env)
        self.assertEqual(code, 0, out)

    def tracked(self):
        """A copy of what a flake sees: the files that git knows."""
        copy = self.folder / "source"
        _, listed = run(["git", "-C", ROOT, "ls-files", "*.nix", "flake.lock", "Cargo.*"])
        for name in listed.split():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        return f"path:{copy}"

    def test_every_nix_file_parses_and_is_known_to_git(self):
        code, out = run(["git", "-C", ROOT, "ls-files", "-o", "--exclude-standard", "*.nix"])
        self.assertEqual((code, out), (0, ""))
        files = run(["git", "-C", ROOT, "ls-files", "*.nix"])[1].split()
        self.assertGreater(len(files), 8)
        code, out = run(["nix-instantiate", "--parse", *(ROOT / file for file in files)], env=self.env)
        self.assertEqual(code, 0, out[-500:])

    def test_every_crate_comes_from_the_registry_with_a_checksum(self):
        for package in (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]:
            if "\nsource = " in package:
                self.assertIn('source = "registry+https://github.com/rust-lang/crates.io-index"', package)
                self.assertIn("\nchecksum = ", package)

    def test_the_filtered_source_holds_all_that_the_build_reads(self):
        listed = re.search(r"unions \[(.*?)\]", (ROOT / "nixos-module/package.nix").read_text(), re.S).group(1)
        copy = self.folder / "source"
        copy.mkdir()
        for name in re.findall(r"\.\./(\S+)", listed):
            source = ROOT / name
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
        for file in copy.glob("src/**/*.rs"):
            # The unit tests' too, which the check below does not compile.
            for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
                self.assertTrue((file.parent / name).exists(), f"{file.relative_to(copy)} includes {name}")
        # A check shares the dependencies with the lints before it; a release build takes minutes.
        command = ["cargo", "build", "--release"] if LONG else ["cargo", "check"]
        target = TARGET / "filtered-source" if LONG else TARGET
        env = dict(os.environ, CARGO_TARGET_DIR=str(target), CARGO_NET_OFFLINE="true")
        code, out = run([*command, "--quiet", "--frozen", "--lib", "--bins"], env=env, cwd=copy, timeout=1800)
        self.assertEqual(code, 0, out[-3000:])


if __name__ == "__main__":
    unittest.main()
