"""The host document: everything the launch template tells an instance about itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

from userdata.host.errors import HostError

T = TypeVar("T")

ROLES = ("database", "webui", "worker", "builder")
NETWORKS = ("user", "tap", "vde")
TOPOLOGIES = ("host", "mesh")
# Two halves of 16 bits: host and guests have their addresses in one; by those of the other, the host knows
# its guests (switch.py).
TAP_PREFIX = 15


@dataclass(frozen=True)
class Stored:
    """A container image or artifact: its name, and its place in S3 unless the host is golden."""

    name: str
    bucket: str | None
    key: str | None


@dataclass(frozen=True)
class Interface:
    """The fixed network interface."""

    id: str
    address: str
    prefix: int
    gateway: str


@dataclass(frozen=True)
class Backup:
    """Where the host's backups go: the part of the backup bucket it may write, and how long objects stay."""

    bucket: str
    prefix: str
    keep_days: int


@dataclass(frozen=True)
class Database:
    """What the database host serves."""

    name: str
    user: str
    memory_mib: int


@dataclass(frozen=True)
class Source:
    """A git repository and one of its refs."""

    address: str
    ref: str


@dataclass(frozen=True)
class Content:
    """What is tested; see settings/content.py."""

    distri: str
    more_distris: tuple[str, ...]
    tests: Source | None
    needles: Source | None
    loader: str
    templates: tuple[str, ...]
    templates_repository: Source | None
    group_names: Mapping[str, str]
    refresh_minutes: int
    asset_limits: Mapping[str, int]
    cloudinit: bool


@dataclass(frozen=True)
class WebUi:
    """What the web UI serves; ``openqa``: more of openqa.ini, by section, see settings/openqa_ini.py."""

    url: str
    sign_in: Mapping[str, Any]
    download_domains: tuple[str, ...]
    openqa: Mapping[str, Mapping[str, int | str]]
    content: Content


@dataclass(frozen=True)
class Schedule:
    """What schedules jobs by messages.

    Attributes:
        program: ``rules`` or ``fedora_openqa``.
        broker: The broker's address, without a password.
        queue: The queue's name; empty: the broker chooses one.
        exchange: What the queue gets its messages from.
        archive: Where to ask for missed messages; None: nowhere.
        rules: The rules, as `userdata.messages.rules.Rule` takes them.
        architectures: Those that fedora_openqa schedules for; none: rules name theirs.
        reports: By the setting's name, where results are reported to, and the queue for that.
    """

    program: str
    broker: str
    queue: str
    exchange: str
    archive: str | None
    rules: tuple[Mapping[str, Any], ...]
    architectures: tuple[str, ...]
    reports: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Worker:
    """What a worker host offers, and the table in which it leases its name.

    ``tap_address`` is a tap host's address for its guests, with their network; None: the host has no taps.
    """

    fleet: str
    classes: tuple[str, ...]
    architecture: str
    workers: Mapping[str, int]
    kvm: bool
    network: str
    names: str
    tap_topology: str
    tap_address: IPv4Interface | None
    cache_gib: int

    @property
    def mesh(self) -> bool:
        """Whether clusters of guests may span hosts of the fleet."""
        return self.network == "tap" and self.tap_topology == "mesh"

    def count(self, instance_type: str) -> int:
        """Returns the worker instances that a host of this type runs.

        Raises:
            HostError: the document has no number for this type.
        """
        if instance_type not in self.workers:
            raise HostError(
                f"host document: worker.workers has no number for instance type {instance_type}, "
                f"only for {', '.join(sorted(self.workers))}"
            )
        return self.workers[instance_type]


@dataclass(frozen=True)
class DiskImages:
    """Where the web UI's host finds the disk images that builders publish."""

    bucket: str
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class Builder:
    """What a builder of disk images runs, and where it publishes them."""

    architecture: str
    program: str
    git: str | None
    ref: str | None
    kvm: bool
    hours: int
    bucket: str
    prefix: str


@dataclass(frozen=True)
class Rds:
    """The database that RDS runs.

    Attributes:
        name: The server's name, which its certificate holds.
        moved: The database was in one of our containers before, and must exist already.
    """

    name: str
    moved: bool


@dataclass(frozen=True)
class Document:
    """The parsed host document, which constructs/host_document.py makes.

    ``timetable`` has entries as `userdata.messages.timetable.Entry` takes them.
    """

    environment: str
    role: str
    os: str
    region: str
    stack: str | None
    resource: str | None
    group: str
    launch_hook: str
    terminate_hook: str
    zone: str
    rds: Rds | None
    images: Mapping[str, Stored]
    artifacts: Mapping[str, Stored]
    secrets: Mapping[str, str]
    volume: str | None
    interface: Interface | None
    backup: Backup | None
    database: Database | None
    webui: WebUi | None
    worker: Worker | None
    disk_images: DiskImages | None
    builder: Builder | None
    schedule: Schedule | None
    timetable: tuple[Mapping[str, Any], ...]

    @property
    def certificate_parameter(self) -> str:
        """The SSM parameter that holds the database's CA certificate."""
        return f"/openqa/{self.environment}/database-ca"

    @property
    def database_host(self) -> str:
        """The database's host name: that of RDS, or the one in the private zone."""
        return self.rds.name if self.rds else f"database.{self.zone}"

    @property
    def webui_host(self) -> str:
        """The web UI's name in the private zone."""
        return f"webui.{self.zone}"


def load(path: Path) -> Document:
    """Reads the host document.

    Raises:
        HostError: the file is missing, is not a JSON object, or lacks something.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HostError(f"host document: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise HostError(f"host document: {path} is not JSON: {error}") from error
    return parse(data)


def parse(data: Mapping[str, Any]) -> Document:
    """Makes a document from decoded JSON.

    Raises:
        HostError: a key is missing, or a value is not allowed.
    """
    try:
        document = _parse(data)
    except KeyError as error:
        raise HostError(f"host document: the key {error.args[0]!r} is missing") from error
    if document.role not in ROLES:
        raise HostError(f"host document: role is {document.role!r}, allowed are {', '.join(ROLES)}")
    required(getattr(document, document.role), document.role)
    if document.worker is not None and document.worker.network not in NETWORKS:
        raise HostError(
            f"host document: worker.network is {document.worker.network!r}, allowed are {', '.join(NETWORKS)}"
        )
    if document.worker is not None and document.worker.tap_topology not in TOPOLOGIES:
        raise HostError(
            f"host document: worker.tap_topology is {document.worker.tap_topology!r}, "
            f"allowed are {', '.join(TOPOLOGIES)}"
        )
    return document


def required(part: T | None, key: str) -> T:
    """Returns a part of the host document that only some hosts have, but this one must.

    Raises:
        HostError: it is missing.
    """
    if part is None:
        raise HostError(f"host document: the key {key!r} is missing")
    return part


def _parse(data: Mapping[str, Any]) -> Document:
    return Document(
        environment=data["environment"],
        role=data["role"],
        os=data["os"],
        region=data["region"],
        stack=data.get("stack"),
        resource=data.get("resource"),
        group=data["group"],
        launch_hook=data["hooks"]["launch"],
        terminate_hook=data["hooks"]["terminate"],
        zone=data["zone"],
        rds=Rds(name=data["rds"]["name"], moved=data["rds"]["moved"]) if data.get("rds") else None,
        images={
            name: Stored(name=image["reference"], bucket=image.get("bucket"), key=image.get("key"))
            for name, image in data["images"].items()
        },
        artifacts={
            name: Stored(name=artifact["hash"], bucket=artifact.get("bucket"), key=artifact.get("key"))
            for name, artifact in (data.get("artifacts") or {}).items()
        },
        secrets={name: arn for name, arn in data["secrets"].items() if arn},
        volume=(data.get("volume") or {}).get("id"),
        interface=_optional(_interface, data.get("interface")),
        backup=_optional(_backup, data.get("backup")),
        database=_optional(_database, data.get("database")),
        webui=_optional(_webui, data.get("webui")),
        worker=_optional(_worker, data.get("worker")),
        disk_images=_optional(_disk_images, data.get("disk_images")),
        builder=_optional(_builder, data.get("builder")),
        schedule=_optional(_schedule, data.get("schedule")),
        timetable=tuple(data.get("timetable") or ()),
    )


def _optional(make: Callable[[Mapping[str, Any]], T], data: Mapping[str, Any] | None) -> T | None:
    return make(data) if data else None


def _interface(data: Mapping[str, Any]) -> Interface:
    return Interface(
        id=data["id"], address=data["address"], prefix=int(data["prefix"]), gateway=data["gateway"]
    )


def _backup(data: Mapping[str, Any]) -> Backup:
    return Backup(bucket=data["bucket"], prefix=data["prefix"], keep_days=int(data["keep_days"]))


def _database(data: Mapping[str, Any]) -> Database:
    return Database(name=data["name"], user=data["user"], memory_mib=int(data["memory_mib"]))


def _webui(data: Mapping[str, Any]) -> WebUi:
    return WebUi(
        url=data["url"],
        sign_in=data["sign_in"],
        download_domains=tuple(data["download_domains"]),
        openqa=data["openqa"],
        content=_content(data["content"]),
    )


def _disk_images(data: Mapping[str, Any]) -> DiskImages:
    return DiskImages(bucket=data["bucket"], architectures=tuple(data["architectures"]))


def _builder(data: Mapping[str, Any]) -> Builder:
    return Builder(
        architecture=data["architecture"],
        program=data["program"],
        git=data["git"],
        ref=data["ref"],
        kvm=data["kvm"],
        hours=int(data["hours"]),
        bucket=data["bucket"],
        prefix=data["prefix"],
    )


def _content(data: Mapping[str, Any]) -> Content:
    return Content(
        distri=data["distri"],
        more_distris=tuple(data["more_distris"]),
        tests=_optional(_source, data["tests"]),
        needles=_optional(_source, data["needles"]),
        loader=data["loader"],
        templates=tuple(data["templates"]),
        templates_repository=_optional(_source, data["templates_repository"]),
        group_names=dict(data["group_names"]),
        refresh_minutes=int(data["refresh_minutes"]),
        asset_limits={name: int(limit) for name, limit in data["asset_limits"].items()},
        cloudinit=data["cloudinit"],
    )


def _source(data: Mapping[str, Any]) -> Source:
    return Source(address=data["address"], ref=data["ref"])


def _schedule(data: Mapping[str, Any]) -> Schedule:
    return Schedule(
        program=data["program"],
        broker=data["broker"],
        queue=data["queue"],
        exchange=data["exchange"],
        archive=data["archive"],
        rules=tuple(data["rules"]),
        architectures=tuple(data["architectures"]),
        reports=data["reports"],
    )


def _worker(data: Mapping[str, Any]) -> Worker:
    return Worker(
        fleet=data["fleet"],
        classes=tuple(data["classes"]),
        architecture=data["architecture"],
        workers={kind: int(number) for kind, number in data["workers"].items()},
        kvm=data["kvm"],
        network=data["network"],
        names=data["names"],
        tap_topology=data["tap_topology"],
        tap_address=_tap_address(data["tap_address"]) if data["network"] == "tap" else None,
        cache_gib=int(data["cache_gib"]),
    )


def _tap_address(text: str) -> IPv4Interface:
    with contextlib.suppress(ValueError):
        address = IPv4Interface(text)
        if address.network.prefixlen == TAP_PREFIX:
            return address
    raise HostError(
        f"host document: worker.tap_address is {text!r}, allowed are IPv4 addresses with prefix {TAP_PREFIX}"
    )
