"""The network of container workers whose guests talk to each other: a VDE switch, without privileges."""

from __future__ import annotations

from pathlib import Path

# In memory, shared by the switch's container and the workers', at the same path in all of them: both sides
# find each other's sockets by path.
SOCKETS = Path("/run/openqa-on-aws/vde")
# os-autoinst (backend/qemu.pm) takes the ports 2 * ID + 2 and the next, where ID is the worker's number in
# openQA's database. Above 16 bits, its hardware addresses would repeat anyway.
PORTS = 2 * 2**16 + 4


def settings() -> dict[str, str]:
    """Returns what the workers of a VDE host need in ``workers.ini``, which overrides jobs' settings."""
    return {"PARALLEL_ONE_HOST_ONLY": "1", "VDE_SOCKETDIR": str(SOCKETS)}
