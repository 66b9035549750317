"""A host that is a folder: real files, AWS from moto, programs that only take notes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from tests.prerequisites import missing
from userdata.host import disks, document, images, interface, kvm, mesh, ready, roles, selinux, tap, volume
from userdata.host.content import refresh
from userdata.host.host import Host
from userdata.host.layout import Layout

REPOSITORY = Path(__file__).parent.parent.parent
DOCUMENTS = Path(__file__).parent / "documents"
NAMES = (
    *("database", "webui", "webui-fedora", "webui-messages", "webui-fedora-messages"),
    *("worker", "worker-emulated", "worker-vde"),
    *("worker-tap", "worker-tap-fedora", "worker-mesh"),
    "builder",
)
REGION = "us-east-1"
INSTANCE = "i-0123456789abcdef0"
PASSWORD = "PasswordOfTheDatabase00000000000"
API_KEY = "0123456789abcdeffedcba9876543210"
WORKER_KEY = "00112233445566778899aabbccddeeff"
SIGN_IN = json.dumps({"key": "client-key", "secret": "client-secret"})
BROKER = json.dumps({"ca": "authority", "certificate": "client", "key": "key", "password": "broker-secret"})
SECRETS = {
    "database": PASSWORD,
    "api-key": API_KEY,
    "worker-key": WORKER_KEY,
    "sign-in": SIGN_IN,
    "broker": BROKER,
}
# What stands in no file on a disk and in no argument.
HIDDEN = (
    PASSWORD,
    *(half for key in (API_KEY, WORKER_KEY) for half in (key[:16], key[16:])),
    "client-secret",
)


def read(name: str) -> dict[str, Any]:
    """A host document, decoded."""
    found: dict[str, Any] = json.loads((DOCUMENTS / f"{name}.json").read_text())
    return found


@dataclass
class Programs:
    """Stands in for :func:`userdata.host.commands.run`: notes what was run, answers what it was told to."""

    answers: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    stdins: list[str | None] = field(default_factory=list)

    def run(self, arguments: Sequence[str], *, stdin: str | None = None, seconds: float = 300) -> str:
        self.calls.append(tuple(arguments))
        self.stdins.append(stdin)
        return next(
            (answer for start, answer in self.answers.items() if " ".join(arguments).startswith(start)), ""
        )

    def started(self, *start: str) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call[: len(start)] == start]


def install(programs: Programs, patch: pytest.MonkeyPatch) -> None:
    """Puts the programs in place of all that modules imported. Certificates stay real."""
    for module in (disks, images, interface, kvm, mesh, ready, refresh, roles, selinux, tap, volume):
        if hasattr(module, "run"):
            patch.setattr(module, "run", programs.run)


def have_selinux(layout: Layout) -> None:
    """Gives a host's ``/`` what the kernel shows where SELinux is at work."""
    enforce = layout.root / "sys/fs/selinux/enforce"
    enforce.parent.mkdir(parents=True)
    enforce.write_text("1")


def host(
    root: Path,
    name: str | Mapping[str, Any],
    *,
    instance: str = INSTANCE,
    instance_type: str = "m8i.xlarge",
) -> Host:
    """A host whose ``/`` is a folder, with the checkout as its bundle; a worker has a name."""
    data = read(name) if isinstance(name, str) else name
    layout = Layout(root)
    layout.bundle.parent.mkdir(parents=True, exist_ok=True)
    if not layout.bundle.exists():
        layout.bundle.symlink_to(REPOSITORY)
    layout.document.parent.mkdir(parents=True, exist_ok=True)
    layout.document.write_text(json.dumps(data))
    if data.get("worker"):
        layout.state.mkdir(parents=True, exist_ok=True)
        layout.name.write_text(f"{data['worker']['fleet']}-1")
    return Host(
        document=document.load(layout.document),
        layout=layout,
        instance=instance,
        instance_type=instance_type,
        address="10.99.1.40",
        client=lambda service: boto3.client(service, region_name=REGION),
    )


def store_secrets(environment: str) -> None:
    """Puts the secrets of an environment into (moto's) Secrets Manager."""
    manager = boto3.client("secretsmanager", region_name=REGION)
    for name, value in SECRETS.items():
        manager.create_secret(Name=f"openqa/{environment}/{name}", SecretString=value)


def make_names(table: str = "openqa-test-names") -> None:
    """Makes the table in which worker hosts lease their names."""
    keys = {"fleet": ("S", "HASH"), "number": ("N", "RANGE")}
    boto3.client("dynamodb", region_name=REGION).create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": kind} for name, (kind, _) in keys.items()
        ],
        KeySchema=[{"AttributeName": name, "KeyType": role} for name, (_, role) in keys.items()],
    )


def make_bucket() -> None:
    """Makes the backup bucket of the documents."""
    boto3.client("s3", region_name=REGION).create_bucket(Bucket="backups")


def publish_certificate(environment: str) -> None:
    """Does what the database host does."""
    boto3.client("ssm", region_name=REGION).put_parameter(
        Name=f"/openqa/{environment}/database-ca", Value="the CA's certificate\n", Type="String"
    )


def keep_sample(made: Host) -> None:
    """Puts the sample image where the installation leaves it."""
    for artifact in made.document.artifacts.values():
        folder = made.layout.state / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"sample-{artifact.name}.iso").write_bytes(b"image")


def disk_of(gib: int) -> Any:
    """What os.statvfs says of a disk of this size."""
    return SimpleNamespace(f_frsize=4096, f_blocks=gib * 1024**3 // 4096)


def told(made: Host) -> dict[str, float]:
    """The sum of what (moto's) CloudWatch was told in the last hour, by the metric's name."""
    cloudwatch, now, hour = made.client("cloudwatch"), datetime.now(UTC), timedelta(hours=1)
    found = {}
    for metric in cloudwatch.list_metrics(Namespace=f"openQA/{made.document.environment}")["Metrics"]:
        (point,) = cloudwatch.get_metric_statistics(
            **metric, StartTime=now - hour, EndTime=now + hour, Period=7200, Statistics=["Sum"]
        )["Datapoints"]
        found[metric["MetricName"]] = point["Sum"]
    return found


def program(name: str, *, arguments: Sequence[str] = ("--version",)) -> str:
    """A program's name, or a skip with the reason; on continuous integration a missing one is a failure."""
    try:
        subprocess.run([name, *arguments], capture_output=True, check=False)
    except OSError:
        missing(f"{name} is not installed")
    return name


def put_link(place: Path, target: Path) -> None:
    """Does what the owner of a folder may: what was there is beside it, and a link leads to another."""
    place.rename(place.with_name(f"{place.name}.moved"))
    place.symlink_to(target)


def everything(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """All that is in a folder, and the folder itself: owner, mode, content."""
    return {
        str(path): (
            path.lstat().st_uid,
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in (folder, *folder.rglob("*"))
    }
