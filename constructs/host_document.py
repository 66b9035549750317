"""The JSON document that tells an instance what it is: it holds no secrets, only where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from constructs.published_files import PublishedFile, environment_recipe
from constructs.retained_state import RetainedState

from settings import Architecture, Builder, Content, Environment, Fleet, OperatingSystem
from settings.naming import (
    LAUNCH_HOOK,
    TERMINATE_HOOK,
    Role,
    backup_prefix,
    images_prefix,
    private_zone,
)

Document = Mapping[str, Any]


def host_document(
    environment: Environment,
    *,
    role: Role,
    group: str,
    architecture: Architecture,
    images: Mapping[str, PublishedFile | None],
    secrets: Mapping[str, str | None],
    os: OperatingSystem | None = None,
    stack: str | None = None,
    resource: str | None = None,
) -> Document:
    """Returns what every host's document holds.

    Args:
        environment: the settings.
        role: what the host is.
        group: its Auto Scaling group's name.
        architecture: its processor.
        images: the container images that it runs, and where their archives are; None: in the AMI.
        secrets: the ARNs of the secrets that it may read.
        os: its operating system; None: the environment's.
        stack: the stack to signal; None: none.
        resource: the logical id to signal in it; None: none.
    """
    return {
        "environment": environment.name,
        "role": role,
        "os": os or environment.os,
        "region": environment.region,
        "stack": stack,
        "resource": resource,
        "group": group,
        "hooks": {"launch": LAUNCH_HOOK, "terminate": TERMINATE_HOOK},
        "zone": private_zone(environment),
        "session_manager": environment.session_manager,
        "images": {
            name: {
                "reference": environment_recipe(environment, name, architecture).reference,
                **_place(file),
            }
            for name, file in images.items()
        },
        "secrets": dict(secrets),
    }


def state_document(state: RetainedState) -> Document:
    """Returns what the database's and the web UI's documents hold about their volume and interface."""
    return {
        "volume": {"id": state.volume},
        "interface": {
            "id": state.interface,
            "address": str(state.address),
            "prefix": state.subnet.prefixlen,
            # A subnet's first host address is its router's.
            "gateway": str(state.subnet.network_address + 1),
        },
    }


def backup_document(environment: Environment, role: Role, bucket: str) -> Document:
    """Returns what the database's and the web UI's documents hold about the backup bucket."""
    return {
        "backup": {
            "bucket": bucket,
            "prefix": backup_prefix(role),
            "keep_days": environment.backups.keep_days,
        }
    }


def database_document(*, memory_mib: int) -> Document:
    """Returns the database's part; ``memory_mib`` is the host's memory in MiB."""
    return {"database": {"name": "openqa", "user": "openqa", "memory_mib": memory_mib}}


def webui_document(
    environment: Environment,
    *,
    architecture: Architecture,
    url: str,
    sample: PublishedFile | None,
    database: str | None = None,
) -> Document:
    """Returns the web UI's part.

    Args:
        environment: the settings.
        architecture: the host's processor.
        url: what people type to get there.
        sample: where the sample's disk image is; None: in the AMI.
        database: the name of RDS's server; None: the database is a host of ours.
    """
    return {
        **({"rds": {"name": database, "moved": environment.database.moved}} if database else {}),
        "artifacts": {
            "sample": {
                "hash": environment_recipe(environment, "sample", architecture).hash,
                **_place(sample),
            }
        },
        "webui": {
            "url": url,
            "sign_in": environment.sign_in.model_dump(mode="json"),
            "download_domains": list(environment.content.download_domains),
            "openqa": environment.content.openqa,
            "content": _content(environment.content),
        },
    }


def worker_document(environment: Environment, fleet: Fleet, *, names: str) -> Document:
    """Returns a worker host's part.

    Args:
        environment: the settings.
        fleet: its fleet's settings.
        names: the table in which hosts lease their names.
    """
    return {
        "worker": {
            "fleet": fleet.name,
            "classes": list(fleet.classes),
            "architecture": fleet.architecture,
            "workers": {name: fleet.workers(name) for name in fleet.instance_types},
            "kvm": fleet.kvm,
            "network": fleet.network,
            "names": names,
            "tap_topology": fleet.tap_topology,
            **(_tap(environment.content) if fleet.network == "tap" else {}),
            "cache_gib": fleet.cache_gib,
        }
    }


def builder_document(builder: Builder, *, bucket: str) -> Document:
    """Returns the part of a builder of disk images; ``bucket`` is where it publishes them."""
    return {
        "builder": {
            "architecture": builder.architecture,
            "program": builder.program,
            "git": builder.git,
            "ref": builder.ref,
            "kvm": builder.kvm,
            "hours": builder.hours,
            "bucket": bucket,
            "prefix": images_prefix(builder.architecture),
        }
    }


def disk_images_document(environment: Environment, bucket: str | None) -> Document:
    """Returns what the web UI's document holds about disk images; nothing if there are no builders."""
    if bucket is None:
        return {}
    architectures = [builder.architecture for builder in environment.builders]
    return {"disk_images": {"bucket": bucket, "architectures": architectures}}


def _tap(content: Content) -> Document:
    """For tap hosts only: other hosts need not be replaced when it changes."""
    return {"tap_address": str(content.tap_address), "packages": list(content.worker_packages)}


def _content(content: Content) -> Document:
    def source(address: str | None, ref: str) -> Document | None:
        return {"address": address, "ref": ref} if address else None

    return {
        "distri": content.distri,
        "more_distris": list(content.more_distris),
        "tests": source(content.tests, content.tests_ref),
        "needles": source(content.needles, content.needles_ref),
        "loader": content.loader,
        "templates": list(content.templates),
        "templates_repository": source(content.templates_repository, content.templates_ref),
        "group_names": dict(content.group_names),
        "refresh_minutes": content.refresh_minutes,
        "asset_limits": dict(content.asset_limits),
        "cloudinit": content.cloudinit,
    }


def _place(file: PublishedFile | None) -> dict[str, str | None]:
    return {"bucket": file.bucket if file else None, "key": file.key if file else None}
