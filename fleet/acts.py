"""From the policy's decision to what is to be done: calls to Auto Scaling, and workers that take no jobs.

Each call is a data class of its own, with a `text` for the log and `carry_out()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.closings import Closings
from fleet.facts import Facts
from fleet.groups import Group, Groups
from fleet.model import Decision
from fleet.rules import DEFAULT_RULES
from fleet.view import View


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """A host goes through its group's terminating hook, which waits for its jobs.

    Attributes:
        fleet: The fleet's name.
        instance: The host.
        decrement: No other takes its place.
        why: For the log.
    """

    fleet: str
    instance: str
    decrement: bool
    why: str

    @property
    def text(self) -> str:
        """What it does, for the log."""
        return f"{self.fleet}: {self.instance} drains and goes ({self.why})"

    def carry_out(self, groups: Groups) -> None:
        """Do it; raises `AwsError`."""
        groups.terminate(self.instance, decrement=self.decrement)


@dataclass(frozen=True, kw_only=True)
class SetDesired:
    """A fleet gets another desired capacity.

    Attributes:
        fleet: The fleet's name.
        group: Its group.
        desired: How many hosts it shall have.
        before: How many it should have until now.
    """

    fleet: str
    group: str
    desired: int
    before: int

    @property
    def text(self) -> str:
        """What it does, for the log."""
        return f"{self.fleet}: {self.desired} hosts wanted ({self.before} before)"

    def carry_out(self, groups: Groups) -> None:
        """Do it; raises `AwsError`."""
        groups.set_desired(self.group, self.desired)


@dataclass(frozen=True, kw_only=True)
class UseSubnets:
    """A fleet's hosts boot in other subnets.

    Attributes:
        fleet: The fleet's name.
        group: Its group.
        subnets: Where they boot from now on.
        why: For the log.
    """

    fleet: str
    group: str
    subnets: tuple[str, ...]
    why: str

    @property
    def text(self) -> str:
        """What it does, for the log."""
        return f"{self.fleet}: hosts boot in {', '.join(self.subnets)} ({self.why})"

    def carry_out(self, groups: Groups) -> None:
        """Do it; raises `AwsError`."""
        groups.use_subnets(self.group, self.subnets)


@dataclass(frozen=True, kw_only=True)
class KeepUneven:
    """A fleet's zones are not evened out.

    Attributes:
        fleet: The fleet's name.
        group: Its group.
    """

    fleet: str
    group: str

    @property
    def text(self) -> str:
        """What it does, for the log."""
        return f"{self.fleet}: zones are not evened out (which would launch hosts without work)"

    def carry_out(self, groups: Groups) -> None:
        """Do it; raises `AwsError`."""
        groups.keep_uneven(self.group)


Act = LetGo | SetDesired | UseSubnets | KeepUneven


def acts(decision: Decision, view: View, groups: Mapping[str, Group], facts: Sequence[Facts]) -> list[Act]:
    """List the calls that a decision asks for.

    Desired capacity is lowered with a host that goes, or where there is no host yet: which one goes is never
    the group's choice.

    Args:
        decision: The policy's.
        view: What it rests on.
        groups: The groups, by name.
        facts: The fleets.
    """
    if decision.unusable:
        return []
    found: list[Act] = []
    for fleet in facts:
        if (group := groups.get(fleet.group)) is not None:
            found += _zones(fleet, group, view)
            found += _hosts(fleet, group, decision, view)
    return found


def _zones(fleet: Facts, group: Group, view: View) -> list[Act]:
    """Where a fleet's hosts boot."""
    found: list[Act] = []
    if group.evens_out:
        found.append(KeepUneven(fleet=fleet.name, group=group.name))
    wide = group.name in view.wide
    subnets = fleet.subnets if wide else fleet.subnets[:1]
    if subnets and group.subnets != frozenset(subnets):
        why = "the web UI's zone has none" if wide else "the web UI's zone, again"
        found.append(UseSubnets(fleet=fleet.name, group=group.name, subnets=subnets, why=why))
    return found


def _hosts(fleet: Facts, group: Group, decision: Decision, view: View) -> list[Act]:
    """Which of a fleet's hosts go, and how many it shall have."""
    reasons = dict.fromkeys(view.given_up, "its workers are lost")
    reasons |= dict.fromkeys(decision.release, "idle") | dict.fromkeys(decision.drain, "to be emptied")
    # Auto Scaling shows what it was told with some delay.
    members = [member for member in group.members if member.counts and member.id not in view.told]
    # Lost hosts are capacity to the group, but not to the policy.
    lost = sum(member.id in view.lost and member.id not in reasons for member in members)
    wanted = decision.desired[fleet.name] + lost
    if _rests(fleet, decision, view):
        # Each that fails would be replaced by the group. Its minimum is: no host is called off for that.
        kept = {*reasons, *(host.id for host in view.seen.hosts if host.running)}
        boots = [member.id for member in members if member.pending and member.id not in kept]
        called_off = boots[: max(0, wanted - group.min)]
        reasons |= dict.fromkeys(called_off, "hosts of its fleet do not come up")
        wanted -= len(called_off)
    going = [member.id for member in members if member.id in reasons]
    wanted = min(max(wanted, len(members) - len(going), group.min), group.max)
    # As many of those that go take their places with them as the group has too many.
    unwanted = max(0, group.desired - wanted)
    found: list[Act] = [
        LetGo(fleet=fleet.name, instance=id, decrement=place < unwanted, why=reasons[id])
        for place, id in enumerate(going)
    ]
    if group.desired - min(len(going), unwanted) != wanted:
        found.append(SetDesired(fleet=fleet.name, group=group.name, desired=wanted, before=group.desired))
    return found


def _rests(fleet: Facts, decision: Decision, view: View) -> bool:
    """Tell whether nothing is launched for a fleet because its hosts did not come up."""
    return fleet.name in decision.held and any(
        seen.failures >= DEFAULT_RULES.breaker_failures
        for seen in view.seen.fleets
        if seen.name == fleet.name
    )


def closings(decision: Decision, view: View) -> Closings:
    """Choose the workers that shall take no jobs: broken ones, then those that are not there, idle, busy.

    All of a host that goes are among them.

    Args:
        decision: The policy's, which tells how many of each host's workers shall take jobs.
        view: What it rests on.
    """
    found = {}
    # A host that goes must start no worker on the way.
    going = dict.fromkeys((*decision.drain, *decision.release, *view.given_up, *view.told), 0)
    for host, count in (dict(decision.open) | going).items():
        rows = sorted(
            view.workers.get(host, ()),
            key=lambda row: (row.connected, not row.broken, row.job is not None, -row.number),
        )
        if len(rows) > count:
            found[host] = frozenset(row.number for row in rows[: len(rows) - count])
    return found
