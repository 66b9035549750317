"""How much of a host each part may use."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3
# openQA's requirement for one worker instance: os-autoinst/openQA, docs/Installing.asciidoc.
POOL_GIB = 40
SYSTEM_GIB = 20  # a host's system, besides pools, cache and state


@dataclass(frozen=True)
class PostgresMemory:
    """PostgreSQL's memory settings, in MiB."""

    shared_buffers: int
    effective_cache_size: int
    maintenance_work_mem: int
    work_mem: int


def postgres_memory(memory_mib: int) -> PostgresMemory:
    """Returns settings for a host that runs nothing but PostgreSQL.

    A quarter of the memory for shared buffers and three quarters as the planner's idea of the cache are
    the PostgreSQL manual's own starting values (chapter "Resource Consumption"); work_mem leaves half the
    memory for 100 connections with two sorts each.

    Args:
        memory_mib: the host's memory in MiB.
    """
    return PostgresMemory(
        shared_buffers=max(128, memory_mib // 4),
        effective_cache_size=max(256, memory_mib * 3 // 4),
        maintenance_work_mem=min(1024, max(64, memory_mib // 16)),
        work_mem=min(64, max(4, memory_mib // 400)),
    )


def worker_memory_percent(workers: int) -> int:
    """Returns how much of a host's memory one worker may use: all but half of the others' shares, in percent.

    A job may use more than its worker's share, as long as the others do not; one that runs away leaves them
    what most jobs need.

    Args:
        workers: the worker instances of the host.
    """
    return 100 * (workers + 1) // (2 * workers)


def cache_gib(*, total_bytes: int, workers: int, planned: int) -> int:
    """Returns openQA's CACHELIMIT: what the pools leave of the disk, in GiB.

    If they leave less than was planned, it is what was planned, but no more than a third of the disk.

    Args:
        total_bytes: the size of the file system that pools and cache share.
        workers: the worker instances of the host.
        planned: the cache that the fleet's disks were sized for, in GiB.
    """
    total = total_bytes // GIB
    left = total - max(SYSTEM_GIB, total // 10) - workers * POOL_GIB
    return max(1, left if left >= planned else min(planned, total // 3))
