"""The EC2 instance types that this project knows: the facts in ``catalogue.toml``, typed.

No instance holds a copy: hosts are told what they need to know of their types, so that a new type in the
catalogue replaces no host.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from userdata.host.sizing import POOL_GIB

# A table for each type, its keys the fields of `InstanceType`.
CATALOGUE = Path(__file__).with_name("catalogue.toml")

VCPU_PER_WORKER = 2
MEMORY_GIB_PER_WORKER = 8
DISK_GIB_PER_WORKER = POOL_GIB
MAX_WORKERS = 60
# EBS gp3, us-east-1: $0.08 a GB-month and $0.04 for each MiB/s a month above what that includes, billed by
# the second; a month has 730 hours.
GP3_GIB_HOUR = 0.08 / 730
GP3_MIBPS_HOUR = 0.04 / 730
GP3_FREE_MIBPS = 125


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """One EC2 instance type.

    Attributes:
        name: AWS's name, such as ``c8i.4xlarge``.
        architecture: ``x86_64`` or ``aarch64``.
        vcpu: Virtual CPUs, which are hardware threads on most types.
        memory_gib: Memory in GiB.
        metal: The type is a whole machine, with KVM of its own.
        nested: KVM works when the launch template asks for nested virtualization.
        disks: Number of instance-store disks.
        disk_gb: Size of each of them in GB.
        network_gbps: Sustained network bandwidth in Gbit/s.
        price: US dollars an hour, Linux on demand in us-east-1; None if unknown.
    """

    name: str
    architecture: Literal["x86_64", "aarch64"]
    vcpu: int
    memory_gib: float
    metal: bool = False
    nested: bool = False
    disks: int = 0
    disk_gb: int = 0
    network_gbps: float
    price: float | None = None

    @property
    def storage_gb(self) -> int:
        """The instance store's size in GB, all disks together; 0 without one."""
        return self.disks * self.disk_gb

    def workers(self, *, disk_gb: float | None = None) -> int:
        """Tell how many openQA workers the type carries.

        The least of vCPU / 2, memory / 8 GiB and disk / 40 GiB, and never more than 60: openQA's
        installation guide asks for two hardware threads, 8 GB of memory and 40 GB of disk for each
        worker instance; 60 is what Fedora runs on its 64-core hosts.

        Args:
            disk_gb: The disk that holds the workers' pools, in GiB; an instance store's GB count as such,
                because processors and memory decide there. None: as large as the workers need.

        Returns:
            The number of workers; 0 if the type is too small for one.
        """
        limits = [self.vcpu / VCPU_PER_WORKER, self.memory_gib / MEMORY_GIB_PER_WORKER, MAX_WORKERS]
        if disk_gb is not None:
            limits.append(disk_gb / DISK_GIB_PER_WORKER)
        return int(min(limits))


@cache
def load() -> Mapping[str, InstanceType]:
    """Read the catalogue: the types by name, in the file's order."""
    document = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
    return MappingProxyType({name: InstanceType(name=name, **facts) for name, facts in document.items()})


def find(name: str) -> InstanceType | None:
    """Find an instance type by AWS's name; None if it is not in the catalogue."""
    return load().get(name)


def volume_price(gib: int, mibps: int = GP3_FREE_MIBPS) -> float:
    """Tell what a gp3 volume costs an hour in us-east-1, in US dollars.

    Args:
        gib: Its size in GiB.
        mibps: Its throughput in MiB/s.
    """
    return gib * GP3_GIB_HOUR + (mibps - GP3_FREE_MIBPS) * GP3_MIBPS_HOUR
