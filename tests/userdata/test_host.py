"""The host's small parts: metadata, secrets, signals, images, certificates, the KVM proof, readiness."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet import catalogue
from fleet.catalogue import DISK_GIB_PER_WORKER
from settings.model import SYSTEM_GIB
from tests.prerequisites import missing
from tests.userdata import machine
from userdata.host import __main__ as main
from userdata.host import certificates, commands, document, images, kvm, rds, ready, secrets, sizing
from userdata.host.certificates import Certificates
from userdata.host.commands import CommandError
from userdata.host.content import templates
from userdata.host.errors import HostError
from userdata.host.metadata import Metadata
from userdata.host.signals import Signals


@pytest.fixture
def metadata_service() -> Iterator[tuple[str, dict[str, Any]]]:
    """An instance metadata service that wants tokens and forgets them once."""
    state: dict[str, Any] = {"tokens": 0, "valid": "", "failures": 0, "half": False}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            state["tokens"] += 1
            state["valid"] = f"token-{state['tokens']}"
            self.reply(200, state["valid"])

        def do_GET(self) -> None:
            if state["failures"]:
                state["failures"] -= 1
                self.reply(500, "")
            elif state["half"]:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            elif self.headers["X-aws-ec2-metadata-token"] != state["valid"]:
                self.reply(401, "")
            elif self.path == "/latest/meta-data/instance-id":
                self.reply(200, machine.INSTANCE)
            else:
                self.reply(404, "")

        def reply(self, status: int, body: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", state
    server.shutdown()
    server.server_close()


def test_metadata_uses_one_token_and_renews_it(metadata_service: tuple[str, dict[str, Any]]) -> None:
    endpoint, state = metadata_service
    metadata = Metadata(endpoint, sleep=lambda _: None)
    assert metadata.get("instance-id") == metadata.get("instance-id") == machine.INSTANCE
    assert state["tokens"] == 1
    state["valid"] = "another"
    assert metadata.get("instance-id") == machine.INSTANCE
    assert state["tokens"] == 2


def test_metadata_tells_missing_from_broken(metadata_service: tuple[str, dict[str, Any]]) -> None:
    endpoint, state = metadata_service
    metadata = Metadata(endpoint, sleep=lambda _: None)
    assert metadata.find("autoscaling/target-lifecycle-state") is None
    with pytest.raises(HostError, match="there is no spot/instance-action"):
        metadata.get("spot/instance-action")
    state["failures"] = 3
    assert metadata.get("instance-id") == machine.INSTANCE
    state["failures"] = 100
    with pytest.raises(HostError, match="cannot be read: HTTP 500"):
        metadata.get("instance-id")


def test_half_an_answer_is_none(
    tmp_path: Path, metadata_service: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a server that ends meanwhile: Python has an error of its own for it, which is no OSError."""
    endpoint, state = metadata_service
    state["half"] = True
    with pytest.raises(HostError, match="instance-id cannot be read: IncompleteRead"):
        Metadata(endpoint, sleep=lambda _: None).get("instance-id")
    with pytest.raises(OSError, match=f"{endpoint}: IncompleteRead"):
        ready.get(endpoint)
    monkeypatch.setattr(rds, "url", lambda region: endpoint)
    with pytest.raises(HostError, match=f"{endpoint}: IncompleteRead"):
        rds.certificates(machine.REGION, kept=tmp_path / "none")
    opened = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", lambda _, timeout: opened(endpoint, timeout=timeout))
    with pytest.raises(HostError, match="openQA: machines: IncompleteRead"):
        templates.is_empty()


@given(value=st.text(min_size=1, max_size=200).filter(lambda text: "\x00" not in text and "\r" not in text))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_private_files_are_never_readable_by_others(tmp_path: Path, value: str) -> None:
    seen: list[int] = []
    path = tmp_path / "secret"
    real = os.open

    def watching(name: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = real(name, flags, mode, **more)
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", watching)
        old = os.umask(0)
        try:
            secrets.write_private(path, value)
        finally:
            os.umask(old)
    assert seen == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().decode() == value


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".secret.new").write_text("half a se")
    secrets.write_private(tmp_path / "secret", "a secret")
    assert (tmp_path / "secret").read_text() == "a secret"


def test_a_file_has_its_content_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are on a volume: an empty one, of a host that lost its power, would be there for ever."""
    path, synchronised = tmp_path / "key", []

    def fsync(descriptor: int) -> None:
        assert not path.exists()
        synchronised.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    secrets.write_private(path, "a key")
    assert synchronised == [len("a key")]


def test_a_missing_secret_is_named(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, "database")
    with pytest.raises(HostError, match=r"secret database: .*ResourceNotFound"):
        secrets.fetch(host.client("secretsmanager"), arns={"database": "none"}, directory=host.layout.secrets)


def test_a_secret_of_bytes_is_refused_by_name(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, "database")
    manager = host.client("secretsmanager")
    arn = manager.create_secret(Name="bytes", SecretBinary=b"a password")["ARN"]
    with pytest.raises(HostError, match="secret database: holds bytes; allowed: text, by --secret-string"):
        secrets.fetch(manager, arns={"database": arn}, directory=host.layout.secrets)


class Services:
    """AWS services that refuse what they are told to refuse, in that order."""

    def __init__(self, **refusals: list[str]) -> None:
        self.refusals = refusals
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, service: str) -> Services:
        return self

    def __getattr__(self, action: str) -> Any:
        def call(**arguments: Any) -> dict[str, Any]:
            self.calls.append((action, arguments))
            if codes := self.refusals.get(action):
                raise ClientError({"Error": {"Code": codes.pop(0), "Message": "no"}}, action)
            return {"FailedEntryCount": 0}

        return call

    def actions(self) -> list[str]:
        return [action for action, _ in self.calls]


def signals(services: Services, name: str = "database") -> Signals:
    return Signals(document.parse(machine.read(name)), machine.INSTANCE, services, sleep=lambda _: None)


def test_a_working_host_continues_the_launch_and_the_stack() -> None:
    services = Services(complete_lifecycle_action=["Throttling", "ServiceUnavailable"])
    signals(services).works()
    assert services.actions() == ["complete_lifecycle_action"] * 3 + ["signal_resource"]
    assert services.calls[-2][1] == {
        "AutoScalingGroupName": "openqa-test-database",
        "LifecycleHookName": "ready",
        "LifecycleActionResult": "CONTINUE",
        "InstanceId": machine.INSTANCE,
    }
    assert services.calls[-1][1]["Status"] == "SUCCESS"


@pytest.mark.parametrize(("refusals", "asked"), [(2, 3), (100, 12)])
def test_a_host_that_is_ahead_of_its_group_tells_it_again(refusals: int, asked: int) -> None:
    services = Services(complete_lifecycle_action=["ValidationError"] * refusals)
    signals(services).works()
    assert services.actions() == ["complete_lifecycle_action"] * asked + ["signal_resource"]


def test_an_aws_out_of_reach_is_asked_again() -> None:
    class Unreachable(Services):
        def __getattr__(self, action: str) -> Any:
            def call(**arguments: Any) -> dict[str, Any]:
                self.calls.append((action, arguments))
                if len(self.calls) < 3:
                    raise EndpointConnectionError(endpoint_url="https://autoscaling")
                return {}

            return call

    services = Unreachable()
    signals(services, "worker").works()
    assert services.actions() == ["complete_lifecycle_action"] * 3


def test_fleets_signal_no_stack() -> None:
    services = Services()
    signals(services, "worker").works()
    assert services.actions() == ["complete_lifecycle_action"]


def test_a_host_replaced_outside_an_update_works_all_the_same() -> None:
    services = Services(signal_resource=["ValidationError"])
    signals(services).works()
    assert services.actions() == ["complete_lifecycle_action", "signal_resource"]


def test_a_failed_host_tells_it_in_every_way_and_last_what_ends_it() -> None:
    services = Services(set_instance_health=["Throttling"] * 100)
    signals(services).fails("KVM does not work here")
    assert services.actions()[:2] == ["put_events", "signal_resource"]
    (event,) = services.calls[0][1]["Entries"]
    assert (event["Source"], event["DetailType"]) == ("openqa.test", "openQA host failed")
    assert json.loads(event["Detail"]) == {
        "environment": "test",
        "group": "openqa-test-database",
        "instance": machine.INSTANCE,
        "reason": "KVM does not work here",
    }
    assert services.calls[1][1]["Status"] == "FAILURE"
    assert services.actions()[-1] == "complete_lifecycle_action"
    assert services.calls[-1][1]["LifecycleActionResult"] == "ABANDON"


def test_an_event_that_nobody_takes_delays_no_signal() -> None:
    services = Services(put_events=["AccessDeniedException"])
    signals(services, "worker").fails("a reason")
    assert services.actions() == ["put_events", "set_instance_health", "complete_lifecycle_action"]


def test_a_host_that_needs_longer_holds_the_launch_and_not_the_stack() -> None:
    services = Services(signal_resource=["ValidationError"])  # it was told before
    signals(services).holds()
    assert services.actions() == ["record_lifecycle_action_heartbeat", "signal_resource"]
    assert services.calls[0][1]["LifecycleHookName"] == "ready"
    assert services.calls[1][1]["Status"] == "SUCCESS"


def test_a_signal_that_nobody_takes_is_an_error() -> None:
    with pytest.raises(HostError, match="lifecycle hook ready: complete_lifecycle_action failed"):
        signals(Services(complete_lifecycle_action=["Throttling"] * 100)).works()


class Podman:
    """Podman that has some images, and archives that hold what they say or not."""

    def __init__(self, *has: str, holds: str | None = None) -> None:
        self.has = set(has)
        self.holds = holds
        self.loaded: list[str] = []

    def run(self, arguments: list[str], **options: Any) -> str:
        if arguments[1] == "images":
            return "id" if arguments[-1].removeprefix("reference=") in self.has else ""
        archive = Path(arguments[-1]).name.removesuffix(".oci.tar")
        name, _, tag = archive.rpartition("-")
        self.loaded.append(archive)
        self.has.add(self.holds or f"localhost/openqa-{name}:{tag}")
        return ""


class Bucket:
    """S3 that gives every object."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def download_file(self, *, Bucket: str, Key: str, Filename: str) -> None:  # noqa: N803
        self.got.append(f"{Bucket}/{Key}")
        Path(Filename).write_text("content")


def test_images_are_fetched_loaded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    podman, bucket = Podman("localhost/openqa-proxy:3333333333333333"), Bucket()
    monkeypatch.setattr(images, "run", podman.run)
    read = document.parse(machine.read("webui"))
    for _ in range(2):
        images.install(read, cache=tmp_path / "cache", kept=tmp_path / "kept", s3=lambda: bucket)
    assert podman.loaded == ["webui-2222222222222222"]
    assert bucket.got == ["assets/webui.tar", "assets/sample.iso"]
    assert (tmp_path / "kept/sample-5555555555555555.iso").read_text() == "content"


def test_archives_that_are_here_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    podman = Podman()
    monkeypatch.setattr(images, "run", podman.run)
    folder = tmp_path / "cache/images/debian-x86_64"
    folder.mkdir(parents=True)
    (folder / "database-1111111111111111.oci.tar").touch()
    images.install(
        document.parse(machine.read("database")),
        cache=tmp_path / "cache",
        kept=tmp_path / "kept",
        s3=lambda: pytest.fail("S3 was asked"),
    )
    assert podman.loaded == ["database-1111111111111111"]


def test_an_archive_that_holds_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "run", Podman(holds="localhost/other:1").run)
    with pytest.raises(HostError, match=r"openqa-database:1111111111111111: the archive .* does not hold it"):
        images.install(
            document.parse(machine.read("database")), cache=tmp_path, kept=tmp_path, s3=lambda: Bucket()
        )


def test_a_golden_image_needs_all_archives_of_its_roles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman = Podman()
    monkeypatch.setattr(images, "run", podman.run)
    for name in ("webui-1.oci.tar", "proxy-2.oci.tar", "sample-3.iso"):
        (tmp_path / name).touch()
    images.install_found(["webui"], cache=tmp_path, kept=tmp_path / "kept")
    assert podman.loaded == ["webui-1", "proxy-2"]
    assert (tmp_path / "kept/sample-3.iso").exists()
    with pytest.raises(HostError, match="image worker: no archive"):
        images.install_found(["worker"], cache=tmp_path, kept=tmp_path / "kept")


def test_certificates_verify_and_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.program("openssl", arguments=("version",))
    made = Certificates(tmp_path)

    def ensure(address: str = "10.0.0.1") -> bool:
        return certificates.ensure(
            made, name="database.test.openqa.internal", address=address, user=os.getuid()
        )

    assert ensure()
    ca, server = made.ca.read_text(), made.server.read_text()
    assert not ensure()
    assert (made.ca.read_text(), made.server.read_text()) == (ca, server)
    assert stat.S_IMODE(made.ca_key.stat().st_mode) == stat.S_IMODE(made.server_key.stat().st_mode) == 0o600
    assert ensure(address="10.0.0.2"), "another address needs another certificate"
    assert made.ca.read_text() == ca, "clients keep trusting it"
    monkeypatch.setattr(certificates, "RENEW_SECONDS", (certificates.SERVER_DAYS + 1) * 86400)
    assert ensure(address="10.0.0.2"), "it is due"
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName,extendedKeyUsage", "-in", str(made.server)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "DNS:database.test.openqa.internal, IP Address:10.0.0.2" in said
    assert "TLS Web Server Authentication" in said


def test_a_renewal_that_is_killed_between_key_and_certificate_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("openssl", arguments=("version",))
    made = Certificates(tmp_path)

    def ensure() -> bool:
        return certificates.ensure(made, name="localhost", address="127.0.0.1", user=os.getuid())

    def killed(path: Path, text: str, **more: Any) -> None:
        if path == made.server:
            raise KeyboardInterrupt
        secrets.write_private(path, text, **more)

    assert ensure()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(certificates, "write_private", killed)
        patch.setattr(certificates, "RENEW_SECONDS", (certificates.SERVER_DAYS + 1) * 86400)
        ensure()
    assert ensure()
    # Refuses a key that is not the certificate's, as PostgreSQL does.
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(made.server, made.server_key)


def test_a_lost_authority_is_made_anew_only_where_clients_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("openssl", arguments=("version",))
    made = Certificates(tmp_path)

    def ensure(*, new_authority: bool) -> bool:
        return certificates.ensure(
            made, name="localhost", address="127.0.0.1", user=os.getuid(), new_authority=new_authority
        )

    assert ensure(new_authority=True)
    ca = made.ca.read_text()
    made.ca_key.unlink()
    # Until the server's certificate is due nobody needs it.
    assert not ensure(new_authority=True)
    monkeypatch.setattr(certificates, "RENEW_SECONDS", (certificates.SERVER_DAYS + 1) * 86400)
    with pytest.raises(HostError, match=r"ca\.key is missing, so the certificate cannot be renewed"):
        ensure(new_authority=False)
    assert made.ca.read_text() == ca
    assert ensure(new_authority=True)
    assert made.ca.read_text() != ca


@pytest.mark.parametrize("architecture", sorted(kvm.GUESTS))
def test_the_guest_runs(tmp_path: Path, architecture: str) -> None:
    guest = kvm.GUESTS[architecture]
    if shutil.which(guest.arguments[0]) is None:
        missing(f"{guest.arguments[0]} is not installed")
    program = tmp_path / "program"
    program.write_bytes(guest.program)
    # Emulated: the instructions are the same, and no machine here is trusted to have KVM.
    emulated = {"kvm": "tcg", "host": "max"}
    done = subprocess.run(
        [emulated.get(part, part.format(program=program)) for part in guest.arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == guest.exit_code, done.stderr
    assert kvm.MARK in done.stdout


def test_a_host_without_kvm_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> str:
        raise CommandError("podman run: exit code 1", "QEMU exit code 124")

    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    with pytest.raises(HostError, match=r"KVM does not work here.*No such file"):
        kvm.prove("localhost/openqa-worker:1", architecture="x86_64", folder=tmp_path)
    kvm.DEVICE.touch()
    monkeypatch.setattr(kvm, "run", run)
    with pytest.raises(HostError, match=r"KVM does not work here.*QEMU exit code 124"):
        kvm.prove("localhost/openqa-worker:1", architecture="x86_64", folder=tmp_path)
    monkeypatch.setattr(kvm, "run", lambda *_, **__: "")
    with pytest.raises(HostError, match="the guest said nothing"):
        kvm.prove("localhost/openqa-worker:1", architecture="x86_64", folder=tmp_path)


@given(memory=st.integers(min_value=512, max_value=1024 * 1024))
def test_postgres_leaves_memory_to_the_host(memory: int) -> None:
    made = sizing.postgres_memory(memory)
    assert made.shared_buffers <= max(128, memory // 4)
    assert made.shared_buffers + made.maintenance_work_mem < memory
    assert made.effective_cache_size >= made.shared_buffers


@given(st.sampled_from([kind for kind in catalogue.load().values() if kind.workers()]))
def test_a_worker_may_use_more_than_its_share_and_never_all_that_others_need(
    kind: catalogue.InstanceType,
) -> None:
    """openQA's own default for a guest is 1 GiB; Fedora's and openSUSE's tests ask for 2 to 4 most often."""
    workers = kind.workers()
    most = kind.memory_gib * sizing.worker_memory_percent(workers) / 100
    assert most >= kind.memory_gib / 2
    assert most >= kind.memory_gib / workers
    assert kind.memory_gib - most >= (workers - 1) * catalogue.MEMORY_GIB_PER_WORKER / 2


@given(total=st.integers(min_value=1, max_value=20000), workers=st.integers(min_value=1, max_value=60))
def test_the_cache_fits_the_disk(total: int, workers: int) -> None:
    cache = sizing.cache_gib(total_bytes=total * sizing.GIB, workers=workers, planned=200)
    assert 1 <= cache <= max(1, total * 9 // 10)


@pytest.mark.parametrize("workers", [1, 8, 24, 48])
def test_the_cache_leaves_the_pools_what_was_planned_for_them(workers: int) -> None:
    """A volume as the settings size it: system, cache and pools."""
    planned = 100
    total = SYSTEM_GIB + planned + workers * DISK_GIB_PER_WORKER
    cache = sizing.cache_gib(total_bytes=total * sizing.GIB, workers=workers, planned=planned)
    assert cache <= planned
    assert total - SYSTEM_GIB - cache >= workers * DISK_GIB_PER_WORKER


def registered(instance: str, host: str, number: int, **more: str) -> dict[str, Any]:
    """A worker as the web UI lists it."""
    return {"host": host, "instance": number, "properties": {"WORKER_CLASS": f"x,{instance}"}, **more}


@pytest.mark.parametrize(
    ("workers", "missing"),
    [
        (
            [
                registered("i-1", "h", 1, status="idle"),
                registered("i-1", "h", 2, status="running"),
            ],
            {},
        ),
        ([registered("i-1", "h", number, status="reserved") for number in (1, 2)], {}),
        # A lost host that had the name before, and one that has told openQA nothing of itself yet.
        (
            [registered("i-2", "h", 1, status="idle"), {"host": "h", "instance": 2, "status": "idle"}],
            {1: "is not registered", 2: "is not registered"},
        ),
        (
            [
                registered("i-1", "h", 1, status="broken", error="no cache service"),
                registered("i-1", "h", 2, status="dead"),
            ],
            {1: "is broken: no cache service", 2: "is dead: no reason given"},
        ),
    ],
)
def test_missing_workers(workers: list[dict[str, Any]], missing: dict[int, str]) -> None:
    assert ready.missing_workers(workers, host="i-1", count=2) == missing


def never() -> None:
    """Who is in time asks for no more."""
    raise AssertionError


@pytest.mark.parametrize(
    ("command", "answer", "how"),
    [
        ("systemctl list-units", "openqa-setup.service loaded failed failed\n", "failed"),
        (
            "systemctl show",
            "NRestarts=0\nId=openqa-gru.service\n\nNRestarts=5\nId=openqa-setup.service\n",
            "ended 5 times",
        ),
    ],
)
def test_readiness_ends_when_a_unit_is_hopeless(
    tmp_path: Path,
    aws: None,
    programs: machine.Programs,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    answer: str,
    how: str,
) -> None:
    def refuse(_: str) -> str:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(ready, "get", refuse)
    programs.answers[command] = answer
    programs.answers["journalctl"] = "\n".join(
        json.dumps({"SYSLOG_IDENTIFIER": identity, "MESSAGE": message})
        for identity, message in (
            # With a colour.
            ("openqa-setup", list(b"\x1b[0mconnecting")),
            ("openqa-setup", "the database takes no login"),
            ("podman", "container remove"),
        )
    )
    with pytest.raises(HostError, match=rf"^[^;]*openqa-setup\.service {how}: the database takes no login"):
        ready.await_ready(machine.host(tmp_path, "webui"), hold=never, sleep=lambda _: None)


@dataclass
class Upgrading:
    """A web UI's host whose schema is upgraded, for so many seconds; openQA answers a minute later."""

    seconds: float
    programs: machine.Programs
    now: float = 0.0
    held: list[float] = field(default_factory=list)
    refusals: int = 0
    answer: str = '{"jobs": []}'
    refusal: OSError = field(default_factory=lambda: ConnectionRefusedError("refused"))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("time.monotonic", lambda: self.now)
        patch.setattr(ready, "run", self.run)
        patch.setattr(ready, "get", self.get)

    def get(self, _: str) -> str:
        if self.now < self.seconds + 60:
            raise self.refusal
        return self.answer

    def run(self, arguments: Sequence[str], *, stdin: str | None = None, seconds: float = 300) -> str:
        if arguments[0] == "pgrep":
            if self.now >= self.seconds:
                raise HostError("pgrep: exit code 1: no message")
            return "1234\n"
        return self.programs.run(arguments, stdin=stdin, seconds=seconds)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def hold(self) -> None:
        self.held.append(self.now)
        if self.refusals:
            self.refusals -= 1
            raise HostError("lifecycle hook ready: Throttling")


@pytest.mark.parametrize("seconds", [600, 770, 779, 781, 3600, 20000])
def test_a_host_outlasts_an_upgrade_of_the_schema(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A host that is given up in the middle of it is followed by one that begins it again."""
    world = Upgrading(seconds, programs)
    world.install(monkeypatch)
    ready.await_ready(machine.host(tmp_path, "webui"), hold=world.hold, sleep=world.sleep)
    assert seconds + 60 <= world.now < seconds + 60 + 2 * ready.PAUSE
    moments = [0, *world.held, world.now]
    assert all(later - earlier <= ready.SECONDS + ready.PAUSE for earlier, later in pairwise(moments))
    # A stack's update that fails after a short upgrade goes back, as after none.
    assert all(moment >= ready.SECONDS for moment in world.held)


@pytest.mark.parametrize("there", [True, False])
def test_a_workers_host_outlasts_an_upgrade_where_the_web_uis_host_is_there(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Its successor would wait for the same. Who gets no answer at all may be cut off itself."""
    host = machine.host(tmp_path, "worker-emulated")
    workers = [registered(host.instance, host.name, 1, status="idle")]
    world = Upgrading(7200, programs, answer=json.dumps({"workers": workers}))
    world.install(monkeypatch)
    world.refusal = URLError(ConnectionRefusedError("refused") if there else TimeoutError("timed out"))
    if there:
        ready.await_ready(host, hold=world.hold, sleep=world.sleep)
        assert 7260 <= world.now < 7260 + 2 * ready.PAUSE
        assert len(world.held) == 7260 // ready.SECONDS
    else:
        with pytest.raises(HostError, match=r"for the worker to work; the last check said: .*timed out"):
            ready.await_ready(host, hold=never, sleep=world.sleep)
        assert world.now < ready.SECONDS + 2 * ready.PAUSE


def test_who_cannot_be_told_of_an_upgrade_is_told_in_the_next_round(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Upgrading(900, programs, refusals=2)
    world.install(monkeypatch)
    ready.await_ready(machine.host(tmp_path, "webui"), hold=world.hold, sleep=world.sleep)
    assert world.held == [ready.SECONDS + n * ready.PAUSE for n in range(3)]


def test_an_upgrade_that_does_not_end_ends_its_host(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Upgrading(float("inf"), programs)
    world.install(monkeypatch)
    with pytest.raises(HostError, match="for the webui to work; the last check said: refused"):
        ready.await_ready(machine.host(tmp_path, "webui"), hold=world.hold, sleep=world.sleep)
    assert ready.UPGRADE_SECONDS < world.now <= ready.UPGRADE_SECONDS + ready.SECONDS + ready.PAUSE


def test_an_upgrade_that_fails_again_and_again_ends_its_host(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.answers["systemctl show"] = "NRestarts=5\nId=openqa-setup.service\n"
    world = Upgrading(float("inf"), programs)
    world.install(monkeypatch)
    with pytest.raises(HostError, match="ended 5 times"):
        ready.await_ready(machine.host(tmp_path, "webui"), hold=world.hold, sleep=world.sleep)


def test_an_upgrade_is_known_by_its_program(tmp_path: Path) -> None:
    host = machine.host(tmp_path, "webui")
    machine.program("pgrep")
    assert f"$({ready.UPGRADE} --init_database" in (
        machine.REPOSITORY / "userdata/roles/webui/bin/setup.sh"
    ).read_text(encoding="utf-8")
    assert not ready.upgrades(host)
    words = [sys.executable, "-c", "print(flush=True); input()", ready.UPGRADE, "--init_database"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as upgrade:
        assert upgrade.stdout is not None
        upgrade.stdout.readline()
        assert ready.upgrades(host)
        # No other host's affair.
        assert not ready.upgrades(machine.host(tmp_path, "database"))


def test_the_group_and_the_stack_hear_of_a_long_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services = Services()
    host = replace(machine.host(tmp_path, "webui"), client=services)
    monkeypatch.setattr(main, "this_host", lambda layout, metadata: host)
    monkeypatch.setattr(ready, "await_ready", lambda host, *, hold: hold())
    host.layout.state.mkdir(parents=True)
    assert main.main(["ready"], host.layout) == 0
    assert "its database schema is being upgraded: waiting" in capsys.readouterr().out
    assert services.actions() == [
        "record_lifecycle_action_heartbeat",
        *("record_lifecycle_action_heartbeat", "signal_resource"),
        *("complete_lifecycle_action", "signal_resource"),
    ]


def test_a_broker_that_is_away_costs_no_host(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.answers |= {
        "systemctl list-units": "openqa-enqueue@bug-cleanup.service loaded failed failed\n",
        "systemctl show": "NRestarts=7\nId=openqa-fedora-scheduler.service\n",
    }
    answers = iter([None, '{"status": "ok"}', '{"jobs": []}'])

    def answer(_: str) -> str:
        given = next(answers)
        if given is None:
            raise ConnectionRefusedError("refused")
        return given

    monkeypatch.setattr(ready, "get", answer)
    ready.await_ready(machine.host(tmp_path, "webui"), hold=never, sleep=lambda _: None)


def test_readiness_gives_up_with_the_last_reason(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [json.dumps({"workers": []})]
    monkeypatch.setattr(ready, "get", lambda _: answers[0])
    host = machine.host(tmp_path, "worker-emulated")
    with pytest.raises(HostError, match=r"waited 0 s for the worker to work; .*worker 1 is not registered"):
        ready.await_ready(host, hold=never, seconds=0, sleep=lambda _: None)
    answers[0] = json.dumps({"workers": [registered(host.instance, host.name, 1, status="idle")]})
    ready.await_ready(host, hold=never, seconds=0, sleep=lambda _: None)


@pytest.mark.parametrize(("took", "rest"), [(0.5, 1.5), (9.0, 10.0)])
def test_an_openqa_that_lists_its_workers_slowly_gets_time_to_rest(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch, took: float, rest: float
) -> None:
    host = machine.host(tmp_path, "worker-emulated")
    workers = [registered(host.instance, host.name, 1, status="idle")]
    answers = [{"workers": workers}, {"workers": []}]
    now = 0.0

    def get(_: str) -> str:
        nonlocal now
        now += took
        return json.dumps(answers.pop())

    monkeypatch.setattr(ready, "get", get)
    monkeypatch.setattr("time.monotonic", lambda: now)
    slept: list[float] = []
    ready.await_ready(host, hold=never, sleep=slept.append)
    assert slept == [ready.PAUSE + rest]


def test_the_database_is_asked_with_the_password_on_standard_input(
    tmp_path: Path, programs: machine.Programs
) -> None:
    host = machine.host(tmp_path, "database")
    host.layout.secrets.mkdir(parents=True)
    (host.layout.secrets / "database").write_text(machine.PASSWORD)
    ready.await_ready(host, hold=never, sleep=lambda _: None)
    assert programs.stdins == [machine.PASSWORD]
    assert machine.PASSWORD not in str(programs.calls)


def test_workers_by_instance_type(tmp_path: Path) -> None:
    worker = machine.host(tmp_path, "worker").document.worker
    assert worker is not None
    assert worker.count("m8i.2xlarge") == 4
    with pytest.raises(
        HostError, match=r"no number for instance type m5\.metal, only for m8i\.2xlarge, m8i\.xlarge"
    ):
        worker.count("m5.metal")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"role": "other"}, "role is 'other', allowed are database, webui, worker"),
        ({"role": "webui"}, "the key 'webui' is missing"),
        ({"hooks": {}}, "the key 'launch' is missing"),
    ],
)
def test_a_bad_document_is_one_sentence(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(HostError, match=reason):
        document.parse(machine.read("database") | change)


@pytest.mark.parametrize(("key", "allowed"), [("network", "user, tap, vde"), ("tap_topology", "host, mesh")])
def test_unknown_networks_are_refused(key: str, allowed: str) -> None:
    data = machine.read("worker")
    data["worker"][key] = "carrier-pigeon"
    with pytest.raises(HostError, match=rf"worker\.{key} is 'carrier-pigeon', allowed are {allowed}"):
        document.parse(data)


@pytest.mark.parametrize("address", ["10.0.2.2", "10.0.2.2/24", "fe80::1/15", "", None])
def test_an_address_without_room_for_guests_is_refused(address: str | None) -> None:
    data = machine.read("worker-tap")
    data["worker"]["tap_address"] = address
    with pytest.raises(
        HostError, match=r"worker\.tap_address is .*, allowed are IPv4 addresses with prefix 15"
    ):
        document.parse(data)


def test_tap_hosts_are_told_their_address() -> None:
    data = machine.read("worker-tap")
    del data["worker"]["tap_address"]
    with pytest.raises(HostError, match="the key 'tap_address' is missing"):
        document.parse(data)


def test_a_command_that_fails_leaves_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = machine.host(tmp_path, "database").layout
    layout.document.write_text("{")
    assert main.main(["images", "--document", str(layout.document)], layout) == 1
    said = capsys.readouterr().err
    assert "is not JSON" in said
    assert "Traceback" not in said
    assert "is not JSON" in (layout.state / "failure").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["false"], "false: exit code 1: no message"),
        (["no-such-program"], "no-such-program: No such file or directory"),
        (["sh", "-c", "echo first; echo last >&2; exit 3"], "exit code 3: last"),
    ],
)
def test_failed_programs_are_one_line(arguments: list[str], reason: str) -> None:
    with pytest.raises(HostError, match=reason) as failure:
        commands.run(arguments)
    assert "\n" not in str(failure.value).split(": exit code")[-1]


def test_programs_do_not_run_for_ever() -> None:
    with pytest.raises(HostError, match="no end after 0 s"):
        commands.run(["sleep", "5"], seconds=0.1)
