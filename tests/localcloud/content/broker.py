"""A RabbitMQ with the rules of Fedora's public broker, and a message archive, outside the VPC.

Who signs in does so with a client certificate or, as at openSUSE's, with a password. The user ``fedora`` may
have queues that are named as UUIDs, bind them to ``amq.topic`` and read them, and nothing else; a policy
bounds such queues in size and time.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcloud.addresses import OUTSIDE
from localcloud.cloud import RunningCloud
from tests.localcloud.deployed import until
from tests.prerequisites import missing

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
PORT = 5671
VIRTUAL_HOST = "/public_pubsub"
PASSWORD = "the fedora user's"
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
START_SECONDS = 90
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
CONFIGURATION = """\
listeners.tcp = none
listeners.ssl.default = {port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/broker.pem
ssl_options.keyfile = {folder}/broker.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
auth_mechanisms.1 = EXTERNAL
auth_mechanisms.2 = PLAIN
ssl_cert_login_from = common_name
load_definitions = {folder}/definitions.json
# Its own entry in /proc is not there for it, as /proc is that of other processes.
vm_memory_calculation_strategy = erlang
log.console = true
log.file = false
"""
DEFINITIONS = {
    "users": [
        {"name": "fedora", "password": PASSWORD, "tags": []},
        {"name": "publisher", "password_hash": "", "tags": []},
    ],
    "vhosts": [{"name": VIRTUAL_HOST}],
    "permissions": [
        {
            **{"user": "fedora", "vhost": VIRTUAL_HOST},
            **{"configure": f"^{UUID}$", "write": f"^{UUID}$", "read": rf"^({UUID}|amq\.topic)$"},
        },
        {
            **{"user": "publisher", "vhost": VIRTUAL_HOST},
            **{"configure": "^$", "write": r"^amq\.topic$", "read": "^$"},
        },
    ],
    "policies": [
        {
            **{"vhost": VIRTUAL_HOST, "name": "bounded", "pattern": f"^{UUID}$", "apply-to": "queues"},
            "definition": {"expires": 3600000, "max-length-bytes": 52428800},
        }
    ],
}
# Answers as datagrepper's /v2/search what stands in a file, by time and topic.
ARCHIVE = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

class Archive(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = parse_qs(urlsplit(self.path).query)
        start, end = float(asked["start"][0]), float(asked["end"][0])
        with open(sys.argv[2]) as file:
            found = [m for m in json.load(file) if start <= m["at"] <= end and m["topic"] in asked["topic"]]
        page, rows = int(asked["page"][0]), int(asked["rows_per_page"][0])
        answer = {"raw_messages": found[(page - 1) * rows:page * rows], "pages": -(-len(found) // rows)}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

HTTPServer((sys.argv[1], 80), Archive).serve_forever()
"""


@dataclass
class Outside:
    """What runs outside the VPC.

    Attributes:
        cloud: The cloud.
        folder: Its files.
    """

    cloud: RunningCloud
    folder: Path
    _broker: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _archive: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def prepare(self) -> None:
        """Writes certificates and configuration."""
        if not (PROGRAMS / "rabbitmq-server").exists():
            missing("this machine has no rabbitmq-server")
        self._certificate("ca", "basicConstraints=critical,CA:TRUE", "-subj", "/CN=authority")
        signed = ("-CA", str(self.folder / "ca.pem"), "-CAkey", str(self.folder / "ca.key"))
        self._certificate("broker", f"subjectAltName=IP:{OUTSIDE}", "-subj", "/CN=broker", *signed)
        for user in ("fedora", "publisher"):
            self._certificate(user, "extendedKeyUsage=clientAuth", "-subj", f"/CN={user}", *signed)
        (self.folder / "rabbitmq.conf").write_text(CONFIGURATION.format(port=PORT, folder=self.folder))
        (self.folder / "definitions.json").write_text(json.dumps(DEFINITIONS))
        (self.folder / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].")
        self.archive([])

    def secret(self, user: str) -> dict[str, str]:
        """What somebody needs to sign in."""
        files = {"ca": "ca.pem", "certificate": f"{user}.pem", "key": f"{user}.key"}
        return {name: (self.folder / file).read_text() for name, file in files.items()}

    def start_broker(self) -> None:
        """Starts RabbitMQ with all that it left on the disk, and waits until it listens."""
        # With the group of its server the mapper of Erlang's ports goes too.
        command = f"epmd & exec {PROGRAMS}/rabbitmq-server"
        self._broker = self._start(command, "broker.log", **self._environment)

        def listening() -> bool | None:
            assert self._broker is not None
            assert self._broker.poll() is None, (self.folder / "broker.log").read_text()[-4000:]
            return True if self._listens(PORT) else None

        until("RabbitMQ listens", listening, seconds=START_SECONDS)

    def stop_broker(self) -> None:
        """Kills RabbitMQ, and waits until its port is free: what was killed may listen for some moments."""
        _kill(self._broker)
        self._broker = None
        until("the port is free", lambda: None if self._listens(PORT) else True, seconds=START_SECONDS)

    def start_archive(self) -> None:
        """Starts the archive."""
        words = [sys.executable, "-c", ARCHIVE, str(OUTSIDE), str(self.folder / "archive.json")]
        self._archive = self._start(f"exec {shlex.join(words)}", "archive.log")

    def archive(self, messages: list[dict[str, Any]]) -> None:
        """Puts what the archive has."""
        (self.folder / "archive.json").write_text(json.dumps(messages))

    def stop(self) -> None:
        """Kills all of it."""
        self.stop_broker()
        _kill(self._archive)

    def queues(self) -> list[dict[str, Any]]:
        """The broker's queues, as it tells of them."""
        columns = ("name", "durable", "auto_delete", "exclusive", "policy", "messages", "consumers")
        found: list[dict[str, Any]] = json.loads(self._control("--formatter=json", "list_queues", *columns))
        return found

    def end_queue(self, name: str) -> None:
        """Ends a queue under its consumer, whose connection stays."""
        self._control("delete_queue", name)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_LOGS": "-",
        }

    def _control(self, *words: str) -> str:
        command = shlex.join([f"{PROGRAMS}/rabbitmqctl", "-q", "-p", VIRTUAL_HOST, *words])
        done = self._start(command, "control.out", stderr="control.log", **self._environment)
        assert done.wait(60) == 0, (self.folder / "control.log").read_text()
        return (self.folder / "control.out").read_text()

    def _listens(self, port: int) -> bool:
        return self._start(f": </dev/tcp/{OUTSIDE}/{port}", "probe.log", shell="bash").wait(10) == 0

    def _start(
        self, command: str, log: str, *, shell: str = "sh", stderr: str | None = None, **more: str
    ) -> subprocess.Popen[bytes]:
        """Starts a command outside the VPC, in a process group of its own that dies with the cloud."""
        inner = shlex.join(["ip", "netns", "exec", "outside", shell, "-c", command])
        with (self.folder / log).open("wb") as file, (self.folder / (stderr or log)).open("ab") as errors:
            return subprocess.Popen(
                ["nsenter", f"--target={self.cloud.pid}", "--mount", "--net", "--pid", "sh", "-c", inner],
                env=PATH | more,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=errors,
                start_new_session=True,
            )

    def _certificate(self, name: str, extension: str, *words: str) -> None:
        files = ("-keyout", str(self.folder / f"{name}.key"), "-out", str(self.folder / f"{name}.pem"))
        leaf = () if name == "ca" else ("-addext", "basicConstraints=critical,CA:FALSE")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-days", "2", *files, "-addext", extension, *leaf, *words),
            ],
            check=True,
            capture_output=True,
        )


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
