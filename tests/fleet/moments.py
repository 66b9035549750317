"""A moment of one fleet, as tests of what the controller sees and does put it together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet import view
from fleet.facts import Facts
from fleet.groups import Group, Launches, Member, Version
from fleet.model import Host
from fleet.openqa_api import ListedJob, ListedWorker, Queue
from fleet.view import Memory, View

NOW = 1_800_000_000.0
OLD, NEW = Version(template="lt-1", number="1"), Version(template="lt-1", number="2")
PLAIN = frozenset({"qemu_x86_64"})
FACTS = Facts(
    name="small",
    group="group",
    subnets=("near", "far"),
    classes=PLAIN,
    workers={"c8i.xlarge": 2},
    prices={"c8i.xlarge": 0.2, "c8i.2xlarge": 0.4},
    boot_seconds=180.0,
    one_host=False,
)


def member(id: str, state: str = "InService", **changes: Any) -> Member:
    made = Member(
        id=id,
        state=state,
        healthy=True,
        type="c8i.xlarge",
        version=NEW,
        launched=NOW - 1000,
    )
    return replace(made, **changes)


def group(*members: Member, **changes: Any) -> Group:
    made = Group(
        name="group",
        min=0,
        max=9,
        desired=len(members),
        version=NEW,
        members=members,
        subnets=frozenset({"near"}),
    )
    return replace(made, **changes)


def job(id: int, **changes: Any) -> ListedJob:
    made = ListedJob(id=id, scheduled=True, priority=50, classes=PLAIN, kind=("base", "", "", ""))
    return replace(made, **changes)


def worker(id: int, *, number: int = 1, **changes: Any) -> ListedWorker:
    """One of host i-NUMBER; each host has worker 1 unless told."""
    return replace(ListedWorker(id=id, instance=f"i-{number}", number=1, connected=True), **changes)


def look(
    *members: Member,
    jobs: tuple[ListedJob, ...] = (),
    workers: tuple[ListedWorker, ...] = (),
    memory: Memory | None = None,
    now: float = NOW,
    launches: Launches | None = None,
    facts: Facts = FACTS,
    subnets: tuple[str, ...] = ("near",),
    least: int = 0,
) -> View:
    return view.look(
        now=now,
        queue=Queue(at=now, jobs=jobs, workers=workers),
        groups={"group": group(*members, subnets=frozenset(subnets), min=least)},
        groups_at=now,
        facts=[facts],
        launches={"group": launches} if launches else {},
        memory=memory if memory is not None else Memory(),
    )


def only(found: View) -> Host:
    (host,) = found.seen.hosts
    return host
