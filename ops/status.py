"""``status``: shows at a glance whether a deployment is well."""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fleet.groups import AwsError, Group, Groups, Member
from ops.deployment import (
    DeploymentError,
    OpenQa,
    asking_aws_to,
    client,
    connect,
    deployed_groups,
    stack_outputs,
    understood,
)
from settings import Environment, naming

# openQA lists whole jobs, so only this many are counted.
_JOBS = 500


def add_command(commands: Any) -> None:
    """Adds ``status`` to the command line."""
    parser = commands.add_parser(
        "status",
        help="show hosts, workers, jobs and ringing alarms",
        description="Shows the hosts of each group, openQA's workers and jobs, and the ringing alarms. Exits "
        "with 0 only if the database's and the web UI's hosts are in service, no group is left of what is "
        "no longer in the environment file, openQA answers and no alarm rings.",
    )
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Prints a deployment's state.

    Args:
        environment: which.
        options: ``url`` (or None).

    Returns:
        0 if it is well, else 1.

    Raises:
        DeploymentError: the environment is not deployed, or AWS does not answer.
    """
    stack_outputs(environment, "webui")
    wrong = [*_hosts(environment), *_openqa(environment, options.url), *_alarms(environment)]
    print("All is well." if not wrong else f"Not well: {'; '.join(wrong)}.")
    return 1 if wrong else 0


def _hosts(environment: Environment) -> Iterator[str]:
    """Prints the groups with their hosts, and yields what is wrong with them."""
    stateful = {naming.stateful_group(environment, "webui"): "webui"}
    if environment.database.host:
        stateful = {naming.stateful_group(environment, "database"): "database"} | stateful
    titles = stateful | {
        naming.fleet_group(environment, fleet.name): f"fleet {fleet.name}" for fleet in environment.fleets
    }
    titles |= {
        naming.builder_group(environment, builder.architecture): f"builder {builder.architecture}"
        for builder in environment.builders
    }
    others = _others(environment, titles)
    titles |= {name: name for name in others}
    try:
        _, groups = Groups(partial(client, environment)).read(list(titles))
    except AwsError as error:
        raise DeploymentError(str(error)) from error
    for name, title in titles.items():
        group = groups.get(name)
        if group is None:
            print(f"{title}: not deployed")
        else:
            print(f"{title}: {_count(len(group.members), 'host')}, {group.desired} wanted")
            for member in group.members:
                print(f"  {_described(member, group)}")
        if name in stateful and not (group and any(member.state == "InService" for member in group.members)):
            yield f"no {title} host is in service"
    for name in others:
        yield f"nothing in the environment file has the group {name}"


def _others(environment: Environment, known: Container[str]) -> list[str]:
    """Returns the environment's other groups, such as one that CloudFormation could not delete."""
    found = (group["AutoScalingGroupName"] for group in deployed_groups(environment))
    return sorted(name for name in found if name not in known)


def _described(member: Member, group: Group) -> str:
    facts = [member.id, member.type, member.state]
    if member.launched is not None:
        facts.append(f"since {datetime.fromtimestamp(member.launched, UTC):%Y-%m-%d %H:%M} UTC")
    facts += ["unhealthy"] if not member.healthy else []
    facts += ["of an older launch template"] if group.outdated(member) else []
    return "  ".join(facts)


def _openqa(environment: Environment, url: str | None) -> Iterator[str]:
    """Prints openQA's jobs and workers, or yields why it does not answer."""
    try:
        openqa = connect(environment, url=url)
        with understood(openqa):
            workers = [worker["status"] for worker in openqa.request("GET", "workers")["workers"]]
            jobs = {state: _jobs(openqa, state) for state in ("scheduled", "running")}
    except DeploymentError as error:
        print("openQA: no answer")
        yield str(error)
        return
    online, busy = len(workers) - workers.count("dead"), workers.count("running")
    print(f"openQA at {openqa.url}: {jobs['scheduled']} scheduled, {jobs['running']} running")
    print(f"  {_count(online, 'worker')} online, {busy} busy")


def _jobs(openqa: OpenQa, state: str) -> str:
    jobs = openqa.request("GET", "jobs", params={"state": state, "limit": _JOBS})["jobs"]
    more = " or more" if len(jobs) == _JOBS else ""
    return f"{_count(len(jobs), 'job')}{more}"


def _alarms(environment: Environment) -> Iterator[str]:
    """Prints the alarms that ring, and yields their names."""
    paginator = client(environment, "cloudwatch").get_paginator("describe_alarms")
    pages = paginator.paginate(AlarmNamePrefix=f"{naming.prefix(environment)}-")
    with asking_aws_to("read the alarms"):
        alarms = [alarm for page in pages for alarm in page["MetricAlarms"]]
    ringing = [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]
    print(f"alarms: {len(ringing) or 'none'} ringing")
    for alarm in ringing:
        since = alarm["StateUpdatedTimestamp"].astimezone(UTC)
        print(f"  {alarm['AlarmName']}  since {since:%Y-%m-%d %H:%M} UTC: {alarm['AlarmDescription']}")
        yield f"{alarm['AlarmName']} rings"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
