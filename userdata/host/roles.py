"""What each role needs: once at first boot (:func:`prepare`), and at every start (:func:`configure`)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from userdata.host import (
    certificates,
    factory,
    figures,
    interface,
    kvm,
    messages,
    names,
    postgres_tls,
    rds,
    render,
    secrets,
    selinux,
    sizing,
    tap,
    users,
    vde,
    volume,
)
from userdata.host.aws import await_running, call, refusal, wait
from userdata.host.backup import awaiting
from userdata.host.certificates import Certificates
from userdata.host.commands import run
from userdata.host.content import refresh
from userdata.host.document import Document, required
from userdata.host.errors import HostError
from userdata.host.host import Host

# The user that does a role's work.
USERS = {"database": users.DATABASE, "webui": users.OPENQA, "worker": users.WORKER, "builder": 0}
CERTIFICATE_SECONDS = 600
# openQA's cache service, for the workers of its host.
CACHE_SOCKET = Path("/run/openqa-on-aws/cache-service/socket")
# The web UI's part of the volume, by owner. What podman mounts, and where tests are released, is in root's
# folders: nobody else can put a link in its place.
_WEBUI_FOLDERS = {
    0: ("", "share"),
    users.OPENQA: (
        *("archive", "db", "images", "nginx", "testresults", "webui", "webui/cache"),
        *("share/factory", "share/factory/iso", "share/factory/iso/fixed", "share/factory/hdd"),
        *("share/factory/hdd/fixed", "share/factory/repo", "share/factory/other", "share/factory/tmp"),
    ),
    users.TESTS: ("content", "share/tests"),
}


def folders(document: Document) -> tuple[str, ...]:
    """Returns the folders of userdata/roles that make up a host's role."""
    if document.builder is not None:
        return ("common", "builder")
    if document.worker is None:
        images = ("images",) if document.disk_images else ()
        return ("common", "stateful", document.role, *messages.folders(document), *images)
    if document.worker.network == "tap":
        mesh = ("mesh",) if document.worker.mesh else ()
        return ("common", "fleet", "tap", f"tap-{document.os}", *mesh)
    if document.worker.network == "vde":
        return ("common", "fleet", "worker", "vde")
    return ("common", "fleet", "worker")


def prepare(host: Host) -> None:
    """Sets up what a host needs once: its name, interface, volume and units.

    Raises:
        HostError: something is missing or refused.
    """
    worker = host.document.worker
    if worker is not None:
        host.layout.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Before it leases a name: an unfit host takes none.
        if worker.kvm:
            image = host.document.images["worker"].name
            kvm.prove(image, architecture=worker.architecture, folder=host.layout.runtime)
        names.take(host)
    builder = host.document.builder
    if builder is not None and builder.kvm:
        host.layout.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        kvm.prove_here(architecture=builder.architecture, folder=host.layout.runtime)
    run(["hostnamectl", "hostname", host.name])
    fixed = host.document.interface
    facts: dict[str, Any] = {}
    if fixed is not None:
        facts["mac"] = interface.mac_address(host.client("ec2"), fixed.id)
    if host.document.volume is not None:
        facts["device"] = str(volume.device_path(host.document.volume))
    if worker is not None and worker.kvm:
        facts["kvm_group"] = kvm.group()
    _install_files(host, facts)
    if fixed is not None or host.document.volume is not None:
        await_running(host.client("ec2"), host.instance)
    if fixed is not None:
        interface.attach(host.client("ec2"), interface=fixed.id, instance=host.instance)
        interface.find_link(facts["mac"])
    if host.document.volume is not None:
        volume.attach(host.client("ec2"), volume=host.document.volume, instance=host.instance)
        volume.ensure_filesystem(volume.find_device(host.document.volume))


def configure(host: Host) -> None:
    """Sets up what a host needs at every start: secrets and configuration, both in memory.

    Raises:
        HostError: something is missing or refused.
    """
    host.layout.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    if host.document.volume is not None:
        selinux.label(host.layout, host.layout.data)
    values = secrets.fetch(
        host.client("secretsmanager"), arns=host.document.secrets, directory=host.layout.secrets
    )
    context = {
        "database": _configure_database,
        "webui": _configure_webui,
        "worker": _configure_worker,
        "builder": _configure_builder,
    }[host.document.role](host, values)
    user = USERS[host.document.role]
    users.make_folder(host.layout.runtime, host.layout.config.name, user=user, mode=0o750)
    files = messages.fedora_files(host, "config", context)
    for folder in folders(host.document):
        files += render.render(_roles(host) / folder / "config", context)
    render.write(files, host.layout.config, mode=0o600, user=user)


def renew_certificate(host: Host) -> None:
    """Renews the database's certificate when due, has PostgreSQL read it, and reports how long it is valid.

    Raises:
        HostError: openssl failed, PostgreSQL does not run, or CloudWatch did not accept the figure.
    """
    try:
        # Clients learn of a new authority at a start, but not here.
        _ensure_certificate(host, new_authority=False)
        # Even if it is not new: an earlier run may have stopped before this.
        run(["podman", "kill", "--signal=HUP", "openqa-database"])
    except BaseException:
        # This error must be reported, whatever else goes wrong.
        with suppress(HostError):
            _tell_certificate(host)
        raise
    _tell_certificate(host)


def _tell_certificate(host: Host) -> None:
    figures.put(host, DatabaseCertificateDays=certificates.days_left(_certificates(host)))


def context(host: Host, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables of all templates."""
    document = host.document
    workers = document.worker.count(host.instance_type) if document.worker else 0
    return {
        "environment": document.environment,
        "images": {name: image.name for name, image in document.images.items()},
        "zone": document.zone,
        "hostname": host.name,
        "instance": host.instance,
        "address": host.address,
        "interface": document.interface,
        "backup": document.backup,
        "region": document.region,
        "user": USERS[document.role],
        "administrator": users.ADMINISTRATOR,
        "database": document.database,
        "database_host": document.database_host,
        "database_moved": document.rds is not None and document.rds.moved,
        "webui": document.webui,
        "webui_host": document.webui_host,
        "worker": document.worker,
        "schedule": document.schedule,
        "builder": document.builder,
        "workers": workers,
        "worker_memory_percent": sizing.worker_memory_percent(workers) if workers else None,
        "tap": tap.network_of(document) if document.worker and document.worker.tap_address else None,
        "cache_socket": CACHE_SOCKET,
        "cache_url": f"http+unix://{quote(str(CACHE_SOCKET), safe='')}",
        "vde_sockets": vde.SOCKETS,
        "vde_ports": vde.PORTS,
        "bundle": "/opt/openqa-on-aws",
        **facts,
    }


def _install_files(host: Host, facts: Mapping[str, Any]) -> None:
    values = context(host, facts)
    targets = {
        "etc": host.layout.root / "etc",
        "units": host.layout.units,
        "quadlets": host.layout.quadlets,
    }
    units: list[render.File] = []
    for folder in folders(host.document):
        for kind, target in targets.items():
            files = render.render(_roles(host) / folder / kind, values)
            render.write(files, target, mode=0o644)
            units += files if kind == "units" else []
    render.write(messages.fedora_files(host, "quadlets", values), host.layout.quadlets, mode=0o644)
    enabled = [str(unit.path) for unit in units if "[Install]" in unit.text]
    # Without --no-reload systemd would reload by itself, and once is enough.
    run(["systemctl", "enable", "--quiet", "--no-reload", *enabled])
    run(["systemctl", "daemon-reload"])
    # They must leave the fixed interface to openqa-interface.service from the moment it appears.
    for manager in _active("systemd-networkd.service", "NetworkManager.service"):
        run(["systemctl", "reload-or-restart", manager])


def _configure_database(host: Host, values: Mapping[str, str]) -> dict[str, Any]:
    database = required(host.document.database, "database")
    secrets.password(values["database"])
    users.make_folder(host.layout.data, "postgres", user=users.DATABASE, mode=0o700)
    awaiting.decide(host)
    _ensure_certificate(host, new_authority=True)
    call(
        f"parameter {host.document.certificate_parameter}",
        host.client("ssm").put_parameter,
        Name=host.document.certificate_parameter,
        Value=_certificates(host).ca.read_text(encoding="ascii"),
        Type="String",
        Overwrite=True,
    )
    return context(host, {"memory": sizing.postgres_memory(database.memory_mib)})


def webui_configuration(host: Host) -> dict[str, str]:
    """Returns openQA's configuration files by name, with placeholders for all secrets."""
    placeholder = "PLACEHOLDER"
    values = {
        "database": placeholder * 2,
        "api_key": "0" * 32,
        "worker_key": "0" * 32,
        "sign_in": json.dumps({"key": placeholder, "secret": placeholder}),
    }
    files = render.render(_roles(host) / "webui/config", _webui_context(host, values))
    return {file.path.as_posix(): file.text for file in files}


def _configure_webui(host: Host, values: Mapping[str, str]) -> dict[str, Any]:
    found = _webui_context(host, values)
    _lay_out(host)
    messages.configure(host, key=found["api_key"], secret=found["api_secret"], broker=values.get("broker"))
    certificate = _database_ca(host)
    _write_administrator(host, found)
    host.layout.closings.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    host.layout.config.mkdir(mode=0o750, parents=True, exist_ok=True)
    secrets.write_private(host.layout.config / "database-ca.crt", certificate, user=USERS["webui"])
    return found


def _write_administrator(host: Host, context: Mapping[str, Any]) -> None:
    folder, user = host.layout.administrator, users.ADMINISTRATOR
    users.make_folder(host.layout.runtime, folder.name, user=user, mode=0o750)
    files = render.render(_roles(host) / "webui" / folder.name, context)
    # The group is for containers that use openQA's API only for their own purpose.
    render.write(files, folder, mode=0o640, user=user)


def _webui_context(host: Host, values: Mapping[str, str]) -> dict[str, Any]:
    webui = required(host.document.webui, "webui")
    key, secret = secrets.api_key("api_key", values["api_key"])
    oauth2 = webui.sign_in["method"] == "OAuth2"
    worker_key, worker_secret = secrets.api_key("worker_key", values["worker_key"])
    return context(
        host,
        {
            "password": secrets.password(values["database"]),
            "api_key": key,
            "api_secret": secret,
            "worker_key": worker_key,
            "worker_secret": worker_secret,
            "sign_in": {name: value for name, value in webui.sign_in.items() if value is not None},
            "client": secrets.sign_in_client(values["sign_in"]) if oauth2 else None,
        },
    )


def _configure_worker(host: Host, values: Mapping[str, str]) -> dict[str, Any]:
    worker = required(host.document.worker, "worker")
    key, secret = secrets.api_key("api_key", values["api_key"])
    count = worker.count(host.instance_type)
    # Owned by root: where workers run outside containers, root gives them their pools at every start.
    users.make_folder(host.layout.worker, "pool", user=0, mode=0o755)
    for folder in ("cache", "share", *(f"pool/{number}" for number in range(1, count + 1))):
        users.make_folder(host.layout.worker, folder, user=users.WORKER, mode=0o755)
    users.make_folder(host.layout.runtime, CACHE_SOCKET.parent.name, user=users.WORKER, mode=0o700)
    disk = os.statvfs(host.layout.worker)
    cache = sizing.cache_gib(
        total_bytes=disk.f_frsize * disk.f_blocks, workers=count, planned=worker.cache_gib
    )
    settings: dict[str, str] = {}
    if worker.network == "tap":
        settings = tap.settings(
            tap.network_of(host.document), kernel_datapath=tap.has_kernel_datapath(), mesh=worker.mesh
        )
    elif worker.network == "vde":
        users.make_folder(host.layout.runtime, vde.SOCKETS.name, user=users.WORKER, mode=0o700)
        settings = vde.settings()
    facts = {"api_key": key, "api_secret": secret, "cache_gib": cache, "network_settings": settings}
    return context(host, facts)


def _configure_builder(host: Host, values: Mapping[str, str]) -> dict[str, Any]:
    return context(host, {})


def _lay_out(host: Host) -> None:
    openqa = host.layout.data / "openqa"
    for user, owned in _WEBUI_FOLDERS.items():
        for folder in owned:
            users.make_folder(openqa, folder, user=user, mode=0o755)
    # openQA itself uses these names; its package creates them in the folder that the volume hides.
    for name, target in (("factory", "share/factory"), ("tests", "share/tests")):
        if not (openqa / name).is_symlink():
            (openqa / name).symlink_to(target)
    refresh.lay_out(host)
    _install_sample(host)


def _install_sample(host: Host) -> None:
    artifact = host.document.artifacts["sample"]
    source = host.layout.state / "artifacts" / f"sample-{artifact.name}.iso"
    asset = "iso/fixed/sample.iso"
    if factory.size(host, asset) != source.stat().st_size:
        new = host.layout.data / "sample.iso.new"
        new.unlink(missing_ok=True)
        shutil.copyfile(source, new)
        factory.show(host, new, asset)


def _certificates(host: Host) -> Certificates:
    return Certificates(host.layout.data / "certificates")


def _ensure_certificate(host: Host, *, new_authority: bool) -> None:
    fixed = host.document.interface
    certificates.ensure(
        _certificates(host),
        name=host.document.database_host,
        address=fixed.address if fixed else host.address,
        user=USERS["database"],
        new_authority=new_authority,
    )


def _database_ca(host: Host) -> str:
    if host.document.rds:
        return rds.certificates(host.document.region, kept=host.layout.data / "rds-ca.crt")
    ssm = host.client("ssm")

    def published() -> str | None:
        name = host.document.certificate_parameter
        try:
            answer = call(f"parameter {name}", ssm.get_parameter, Name=name)
        except HostError as error:
            if refusal(error) == "ParameterNotFound":
                return None
            raise
        value: str = answer["Parameter"]["Value"]
        # It may be from a database host that is gone, volume and all.
        return value if postgres_tls.trusted(value, host=host.document.database_host) else None

    return wait(
        f"a database at {host.document.database_host} with the CA certificate in "
        f"{host.document.certificate_parameter}",
        published,
        seconds=CERTIFICATE_SECONDS,
    )


def _active(*units: str) -> list[str]:
    answer = run(["systemctl", "list-units", "--state=active", "--plain", "--no-legend", *units])
    return [line.split()[0] for line in answer.splitlines() if line]


def _roles(host: Host) -> Path:
    return host.layout.bundle / "userdata/roles"
