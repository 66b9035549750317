"""A stateful host without a machine: real PostgreSQL, real mount, our own programs; namespaces of its own.

podman and systemd are played by ``bin/``; the bucket is moto's, mounted by the local cloud's stand-in for
mount-s3. All ends with the first process.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import build
from images.recipe import Recipe
from tests.userdata import machine
from userdata.host.roles import USERS

ROOT = Path(__file__).parents[2]
BIN = Path(__file__).with_name("bin")
BUCKET = "backups"
ENDPOINT = "http://127.0.0.1:5000"
_QUOTED_ROOT = shlex.quote(str(ROOT))
_SET_UP = f"""
mount --make-rshared /
ip link set lo up
cd {_QUOTED_ROOT}
for folder in /srv /run /opt /var/lib; do mount -t tmpfs tmpfs $folder; done
# Also where one of these holds the checkout: not to be written to, as its tests remove much there.
[[ -e {_QUOTED_ROOT} ]] || {{
  mkdir -p {_QUOTED_ROOT}
  mount --no-canonicalize --bind . {_QUOTED_ROOT}
  mount --options remount,bind,ro {_QUOTED_ROOT}
}}
mkdir -p /srv/data /srv/backups /opt/openqa-on-aws /var/lib/openqa-on-aws /run/openqa-on-aws
chmod 0555 /srv/backups
mount --no-canonicalize --bind . /opt/openqa-on-aws
"""


@dataclass(frozen=True)
class BareHost:
    """The host.

    Attributes:
        pid: of the first process of its namespaces.
        image: the files of the database's container image.
        role: what the host is.
    """

    pid: int
    image: Path
    role: str = "database"

    def command(self, script: str) -> list[str]:
        """The words that run a shell script on the host."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--wd=/"]
        variables = {
            "PATH": f"{BIN}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "IMAGE": str(self.image),
            "AWS_ENDPOINT_URL": ENDPOINT,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        words = [f"{name}={value}" for name, value in variables.items()]
        return [*enter, "env", "-i", *words, "bash", "-c", script]

    def run(self, script: str, *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def output(self, script: str, *, seconds: float = 120) -> str:
        done = self.run(script, seconds=seconds)
        assert done.returncode == 0, (script, done.stdout[-2000:], done.stderr[-4000:])
        return done.stdout.strip()

    def host(self, arguments: str, *, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs one of ``python -m userdata.host``'s commands."""
        return self.run(f"exec python -m tests.backup.command {arguments}", seconds=seconds)

    def does(self, arguments: str, *, seconds: float = 300) -> str:
        done = self.host(arguments, seconds=seconds)
        assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-4000:])
        return done.stdout

    def sql(self, text: str, *, seconds: float = 120) -> str:
        return self.output(
            "podman exec openqa-database psql -h /run/postgresql -U postgres -d openqa -qAtX "
            f"-v ON_ERROR_STOP=1 -c {shlex.quote(text)}",
            seconds=seconds,
        )

    def python(self, script: str) -> Any:
        """What a script prints as JSON."""
        return json.loads(self.output(f"python -c {shlex.quote(script)}"))

    def figures(self, name: str) -> list[float]:
        """What was published of a metric, in order of time."""
        found: list[float] = self.python(
            "import boto3, datetime, json\n"
            "now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)\n"
            f"cloudwatch = boto3.client('cloudwatch', region_name={machine.REGION!r})\n"
            f"points = cloudwatch.get_metric_statistics(Namespace='openQA/test', MetricName={name!r}, "
            "Period=1,\n"
            "    StartTime=now - hour, EndTime=now + hour, Statistics=['Minimum'])['Datapoints']\n"
            "print(json.dumps([p['Minimum'] for p in sorted(points, key=lambda p: p['Timestamp'])]))"
        )
        return found

    def mount(self, bucket: str = BUCKET) -> None:
        """Mounts a bucket as backup-mount.service does."""
        user = USERS[self.role]
        self.output(
            f"python -m localcloud.mountpoint --prefix={self.role}/ --region={machine.REGION} --allow-other "
            f"--uid={user} --gid={user} --file-mode=0640 --dir-mode=0750 --write-part-size=33554432 "
            f"--endpoint-url={ENDPOINT} --force-path-style {bucket} /srv/backups </dev/null >/dev/null 2>&1"
        )

    def kill_mount(self) -> None:
        """Kills mount-s3, and cleans up as the unit does."""
        self.output("pkill -9 --full 'localcloud[.]mountpoint --prefix' && umount --lazy /srv/backups")

    def lose_everything_but_the_bucket(self) -> None:
        """The host and its volume are gone; there is a new one."""
        self.run(
            "podman kill --signal=KILL openqa-database; sleep 0.3; rm -rf /srv/data/* /run/openqa-on-aws/* "
            "/var/lib/openqa-on-aws/*"
        )

    def start(self) -> None:
        """What the units do at every start."""
        self.does("configure")
        self.output("systemctl start openqa-database.service")


def wait_until(condition: Callable[[], object], *, seconds: float) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def image_archive() -> Path:
    """Where the database's container image is, once it is built."""
    return build.archive_path(Recipe("database", "debian", platform.machine()))


def unpack(archive: Path, root: Path) -> None:
    """Unpacks a container image's files into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # Debian 12's tarfile has no filters.
        _extract(archive, folder)
        blobs = folder / "blobs/sha256"

        def blob(digest: str) -> Path:
            return blobs / digest.removeprefix("sha256:")

        index = json.loads((folder / "index.json").read_text())
        for layer in json.loads(blob(index["manifests"][0]["digest"]).read_text())["layers"]:
            _extract(blob(layer["digest"]), root)


def _extract(archive: Path, folder: Path) -> None:
    subprocess.run(["tar", "--extract", f"--file={archive}", f"--directory={folder}"], check=True)


@contextmanager
def running(image: Path, role: str = "database") -> Iterator[BareHost]:
    """A host with an empty bucket, for as long as it is needed.

    Args:
        image: the files of the database's container image; no other host needs them.
        role: what the host is; a database host's database runs.
    """
    with subprocess.Popen(
        [
            # unshare ignores the signals that end this process.
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sleep", "infinity"),
        ]
    ) as keeper:
        aws = None
        try:
            children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
            while not (first := children.read_text().split()):
                time.sleep(0.05)
            made = BareHost(pid=int(first[0]), image=image, role=role)
            aws = prepare(made)
            yield made
        finally:
            keeper.kill()
            if aws is not None:
                aws.wait()


def prepare(host: BareHost) -> subprocess.Popen[bytes]:
    """Makes the host and AWS; returns AWS's process."""
    host.output(_SET_UP)
    document = {
        **machine.read(host.role),
        "backup": {"bucket": BUCKET, "prefix": f"{host.role}/", "keep_days": 35},
    }
    text = shlex.quote(json.dumps(document))
    host.output(f"echo {text} >/run/host.json")
    aws = subprocess.Popen(
        host.command("exec python -m moto.server -H 127.0.0.1 -p 5000 >/run/moto.log 2>&1")
    )
    host.output(
        "for i in $(seq 200); do curl --silent --output /dev/null http://127.0.0.1:5000/moto-api/ && exit 0; "
        "sleep 0.1; done; exit 1"
    )
    secrets = {f"openqa/test/{name}": value for name, value in machine.SECRETS.items()}
    host.output(
        "python -c "
        + shlex.quote(
            "import boto3\n"
            f"for name, value in {secrets!r}.items():\n"
            f" boto3.client('secretsmanager', region_name={machine.REGION!r})"
            ".create_secret(Name=name, SecretString=value)\n"
            f"s3 = boto3.client('s3', region_name={machine.REGION!r})\n"
            f"s3.create_bucket(Bucket={BUCKET!r})\n"
            f"s3.put_bucket_versioning(Bucket={BUCKET!r}, VersioningConfiguration={{'Status': 'Enabled'}})"
        )
    )
    host.mount()
    if host.role == "database":
        host.start()
    return aws
