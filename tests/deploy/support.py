"""What the deployment tests share: where things are, ports, commands with a limit."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
PROGRAM = pathlib.Path(os.environ.get("PROJECT_YUM_BIN", TARGET / "debug" / "project-yum"))
LONG = os.environ.get("TESTS_LONG") == "1"
SECRET = "a secret that only the tests know and long enough"


def run(command, timeout=120, **options):
    """Runs a command; gives its exit code and all that it wrote."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **options,
    )
    return done.returncode, done.stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def dockerfile():
    """What the last stage of the Dockerfile says: user, entry point, environment, ports."""
    text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    last = text.rsplit("\nFROM ", 1)[1].splitlines()
    lines = [line.split(None, 1) for line in last[1:] if line and not line.startswith("#")]
    of = lambda word: [rest for name, rest in lines if name == word]
    return {
        "base": last[0],
        "user": of("USER")[-1],
        "entrypoint": json.loads(of("ENTRYPOINT")[-1]),
        "env": " ".join(of("ENV")).split(),
        "ports": " ".join(of("EXPOSE")).split(),
        "volumes": json.loads(of("VOLUME")[-1]),
        "runs": of("RUN"),
    }


class Folder(unittest.TestCase):
    """A test with a folder of its own, gone afterwards."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="project-yum-deploy-"))
        self.addCleanup(self.forget)

    def forget(self):
        # What Nix has written is read-only.
        subprocess.run(["chmod", "-R", "u+w", self.folder], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
