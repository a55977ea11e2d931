"""The image's content, run by runc as nobody in particular with the profile that we ship - and without what it needs.

The same layout as in the image of deploy/Dockerfile, made by the same script; user, entry point and environment are
read from that file. Only the program may be a debug build.
"""

import json
import os
import pathlib
import resource
import subprocess
import tempfile
import time
import unittest
import urllib.request

from support import PROGRAM, ROOT, SECRET, dockerfile, free_port, run

AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
PATIENCE = 30
# Nothing of this is anybody's business in a container.
DANGEROUS = {"bpf", "clone3", "delete_module", "init_module", "finit_module", "kexec_load", "keyctl", "add_key",
             "request_key", "mount", "umount2", "move_mount", "fsopen", "open_by_handle_at", "perf_event_open", "pivot_root",
             "process_vm_readv", "process_vm_writev", "ptrace", "reboot", "setns", "unshare", "userfaultfd", "swapon", "chroot"}


class Container(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="project-yum-image-"))
        cls.addClassCleanup(lambda: run([*AS_ROOT, "rm", "-rf", cls.folder]))
        image = dockerfile()
        layout, rough, cls.bundle = cls.folder / "image", cls.folder / "rough", cls.folder / "bundle"
        config = [f"--config.user={image['user']}"]
        config += [f"--config.entrypoint={word}" for word in image["entrypoint"]]
        config += [f"--config.env={word}" for word in image["env"]]
        for command in [
            ["umoci", "init", "--layout", layout],
            ["umoci", "new", "--image", f"{layout}:chat"],
            [*AS_ROOT, "umoci", "unpack", "--image", f"{layout}:chat", rough],
            [*AS_ROOT, ROOT / "deploy/rootfs.sh", PROGRAM, rough / "rootfs"],
            [*AS_ROOT, "chown", image["user"], rough / "rootfs/data"],
            [*AS_ROOT, "umoci", "repack", "--image", f"{layout}:chat", rough],
            ["umoci", "config", "--image", f"{layout}:chat", *config],
            [*AS_ROOT, "umoci", "unpack", "--image", f"{layout}:chat", cls.bundle],
            [*AS_ROOT, "chmod", "-R", "a+rX", cls.bundle],
        ]:
            code, out = run(command)
            if code != 0:
                raise RuntimeError(f"{command[:4]}: {out}")

    def start(self, change=lambda spec: None, profile="deploy/seccomp.json", memlock=8 << 20):
        """Starts the container as Docker would with the README's flags; `change` alters the specification first."""
        spec = json.loads((self.bundle / "config.json").read_text())
        process = spec["process"]
        self.port = free_port()
        process["terminal"] = False
        # --cap-drop ALL, --ulimit, --read-only, -v /data, --security-opt seccomp=…, --network host
        process["capabilities"] = {kind: [] for kind in process["capabilities"]}
        memlock = min(memlock, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]) if memlock > 65536 else memlock
        process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096},
                              {"type": "RLIMIT_MEMLOCK", "hard": memlock, "soft": memlock}]
        process["env"] += ["HOST=127.0.0.1", f"PORT={self.port}", f"JWT_SECRET={SECRET}", "METRICS_ADDR=none", "SHARDS=2"]
        spec["root"]["readonly"] = True
        spec["linux"]["namespaces"] = [space for space in spec["linux"]["namespaces"] if space["type"] != "network"]
        user = dockerfile()["user"].split(":")
        spec["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs",
                               "options": ["nosuid", "nodev", "noexec", f"uid={user[0]}", f"gid={user[1]}", "mode=700"]})
        spec["linux"]["seccomp"] = json.loads((ROOT / profile).read_text())
        change(spec)
        own = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        spec["root"]["path"] = str(self.bundle / "rootfs")
        (own / "config.json").write_text(json.dumps(spec))
        self.name = own.name
        self.runc = [*AS_ROOT, "runc", "--root", str(self.folder / "runc")]
        self.log = open(own / "log", "w+")
        self.addCleanup(self.log.close)
        child = subprocess.Popen([*self.runc, "run", "-b", str(own), self.name], stdout=self.log, stderr=self.log)
        self.addCleanup(self.end, child)
        return child

    def end(self, child):
        run([*self.runc, "delete", "--force", self.name])
        child.kill()
        child.wait()

    def output(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def http(self, path, body=None, headers=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, headers=headers or {})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def ready(self, child):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return json.loads(self.http("/health/ready"))
            except OSError:
                self.assertTrue(child.poll() is None and time.monotonic() < until, self.output())
                time.sleep(0.05)

    # ---- it works

    def test_it_starts_chats_and_ends(self):
        child = self.start()
        self.ready(child)
        pid = json.loads(run([*self.runc, "state", self.name])[1])["pid"]
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        self.assertEqual(status["Uid"].split(), ["65532"] * 4)
        self.assertEqual((status["Seccomp"], status["NoNewPrivs"], int(status["CapBnd"], 16)), ("2", "1", 0))
        code, token = run([PROGRAM, "token", "--sub", "alice"], env={"JWT_SECRET": SECRET}, cwd=self.folder)
        self.assertEqual(code, 0, token)
        token = token.strip()
        path = "/socket.io/?EIO=4&transport=polling"
        session = json.loads(self.http(path)[1:])["sid"]
        heard = []
        for packet in [f"40{json.dumps({'token': token})}", '421["joinRoom",{"roomId":"lobby"}]',
                       '422["sendMessage",{"roomId":"lobby","content":"hello from a container"}]']:
            self.assertEqual(self.http(f"{path}&sid={session}", packet.encode()), "ok")
            heard.append(self.http(f"{path}&sid={session}"))
        self.assertIn('"ok":true', "".join(heard))
        history = self.http("/api/messages?roomId=lobby", headers={"Authorization": f"Bearer {token}"})
        self.assertIn("hello from a container", history)
        run([*self.runc, "kill", self.name, "TERM"])
        self.assertEqual(child.wait(PATIENCE), 0, self.output())

    def test_there_is_no_shell_in_it(self):
        self.assertEqual(os.listdir(self.bundle / "rootfs/bin"), ["project-yum"])
        self.assertEqual(dockerfile()["base"], "scratch")
        self.assertEqual(dockerfile()["runs"], [])

    # ---- it says what is missing

    def refused(self, why, mend, **how):
        child = self.start(**how)
        self.assertEqual(child.wait(PATIENCE), 3, self.output())
        text = self.output()
        self.assertIn(why, text)
        self.assertIn(mend, text)
        self.assertLess(len(text.splitlines()), 6, text)

    def without_io_uring(self, errno):
        def change(spec):
            seccomp = spec["linux"]["seccomp"]
            for rule in seccomp["syscalls"]:
                rule["names"] = [name for name in rule["names"] if not name.startswith("io_uring")]
            seccomp["defaultErrnoRet"] = errno
        return change

    def test_a_profile_that_blocks_io_uring_is_named(self):
        self.refused("blocked by a seccomp filter", "profile that allows io_uring_setup", change=self.without_io_uring(1))

    def test_a_profile_that_hides_io_uring_is_named(self):
        self.refused("io_uring is not there", "runtime and profile that allow io_uring", change=self.without_io_uring(38))

    def test_io_uring_switched_off_on_the_node_is_named(self):
        # The machine's own switch would hit every process on it, so the container sees another file in its place.
        fixture = self.folder / "io_uring_disabled"
        fixture.write_text("2\n")
        place = self.bundle / "rootfs/proc/sys/kernel/io_uring_disabled"

        def change(spec):
            self.without_io_uring(1)(spec)
            spec["hooks"] = {"createContainer": [{"path": "/bin/mount", "args": ["mount", "--bind", str(fixture), str(place)]}]}
        self.refused("kernel.io_uring_disabled = 2", "sysctl kernel.io_uring_disabled=0", change=change)

    def test_too_little_lockable_memory_is_named(self):
        self.refused("limit of locked memory is 64 KiB", "--ulimit memlock", memlock=65536)


class Profile(unittest.TestCase):
    def setUp(self):
        self.profile = json.loads((ROOT / "deploy/seccomp.json").read_text())
        self.allowed = [rule for rule in self.profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]

    def test_it_is_a_list_of_what_is_allowed(self):
        self.assertEqual(self.profile["defaultAction"], "SCMP_ACT_ERRNO")
        names = [name for rule in self.allowed if "args" not in rule for name in rule["names"]]
        self.assertEqual(len(names), len(set(names)))
        self.assertLessEqual({"io_uring_setup", "io_uring_enter", "io_uring_register"}, set(names))
        self.assertEqual(DANGEROUS & set(names), set())
        # Sockets of three families only, and no new namespaces.
        self.assertFalse({"socket", "clone"} & set(names))

    def test_both_architectures_have_it(self):
        self.assertEqual(self.profile["architectures"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"])


if __name__ == "__main__":
    unittest.main()
