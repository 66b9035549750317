"""The names of a fleet's hosts: ``FLEET-1``, ``FLEET-2`` …: each leased by one host, the lowest free first.

openQA keeps a row for every worker name forever, and os-autoinst derives the guests' hardware addresses from
the row's ID (backend/qemu.pm), which therefore must stay small: names are reused.

Leases are in a DynamoDB table: partition key ``fleet``, sort key ``number``, and the holder, ``instance``. A
lease ends when its holder gives it back, or is no longer in its Auto Scaling group. If the table is ever
emptied, each running host writes its own lease again within a minute (:func:`keep`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count, islice
from typing import Any

from userdata.host.aws import call, refusal
from userdata.host.document import Worker, required
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.secrets import write_private

# How often to look for this host in its group, which may not name it at once.
ATTEMPTS = 200
MOST_HOSTS = 1000  # of a fleet; that many may boot at the same time


def free(holders: Mapping[int, str], members: Collection[str]) -> Iterator[int]:
    """Yields the numbers that nobody has, or whose holder is gone, the lowest first.

    Args:
        holders: the instances that have numbers, by number.
        members: the instances of the Auto Scaling group.
    """
    return (number for number in count(1) if holders.get(number) not in members)


def take(host: Host, *, sleep: Callable[[float], None] = time.sleep) -> str:
    """Leases the lowest free name, or finds the one that this host already has, and remembers it.

    Args:
        host: a worker host.
        sleep: waits between attempts; takes seconds.

    Raises:
        HostError: AWS refused, or other hosts were faster every time.
    """
    for _ in range(ATTEMPTS):
        holders = _holders(host)
        for number, holder in holders.items():
            if holder == host.instance:
                return _remember(host, number)
        # In this order: a holder seen above was in the group before, so if it is not there now, it is gone.
        members = _members(host)
        if host.instance in members:  # else the list is out of date
            for number in islice(free(holders, members), MOST_HOSTS):
                # Where another host was faster, the next number is tried: nobody is asked again.
                if _put(host, number, gone=holders.get(number)):
                    return _remember(host, number)
        sleep(random.uniform(0.1, 1))  # noqa: S311  # keeps hosts that boot together apart
    raise HostError(f"host name: no free one after {ATTEMPTS} attempts")


def _remember(host: Host, number: int) -> str:
    name = f"{_worker(host).fleet}-{number}"
    host.layout.state.mkdir(parents=True, exist_ok=True)
    write_private(host.layout.name, name, mode=0o644)
    return name


def keep(host: Host) -> bool:
    """Writes this host's lease again if it is missing; returns whether the name is this host's.

    Raises:
        HostError: the host has no name yet, or AWS refused.
    """
    return _put(host, _number(host), gone=None)


def release(host: Host) -> None:
    """Gives the name back, if this host still has it.

    Raises:
        HostError: the host has no name, or AWS refused.
    """
    _changed(
        host.client("dynamodb").delete_item,
        TableName=_worker(host).names,
        Key=_key(host, _number(host)),
        ConditionExpression="#instance = :own",
        ExpressionAttributeNames={"#instance": "instance"},
        ExpressionAttributeValues={":own": {"S": host.instance}},
    )


def _holders(host: Host) -> dict[int, str]:
    # At most a thousand hosts: one page.
    answer = call(
        "host name",
        host.client("dynamodb").query,
        TableName=_worker(host).names,
        KeyConditionExpression="fleet = :fleet",
        ExpressionAttributeValues={":fleet": {"S": _worker(host).fleet}},
        ConsistentRead=True,
    )
    return {int(item["number"]["N"]): item["instance"]["S"] for item in answer["Items"]}


def _members(host: Host) -> set[str]:
    answer = call(
        "host name",
        host.client("autoscaling").describe_auto_scaling_groups,
        AutoScalingGroupNames=[host.document.group],
    )
    return {entry["InstanceId"] for group in answer["AutoScalingGroups"] for entry in group["Instances"]}


def _put(host: Host, number: int, *, gone: str | None) -> bool:
    """Takes a number unless an instance other than this or ``gone`` has it; returns whether it did.

    This host may have it already: what did not answer in time may have been done, and is done again.
    """
    return _changed(
        host.client("dynamodb").put_item,
        TableName=_worker(host).names,
        Item={**_key(host, number), "instance": {"S": host.instance}},
        ConditionExpression="attribute_not_exists(#instance) OR #instance IN (:own, :gone)",
        ExpressionAttributeNames={"#instance": "instance"},
        ExpressionAttributeValues={":own": {"S": host.instance}, ":gone": {"S": gone or "none"}},
    )


def _changed(write: Callable[..., Any], **arguments: Any) -> bool:
    """Writes, and returns whether the condition held."""
    try:
        call("host name", write, **arguments)
    except HostError as error:
        if refusal(error) == "ConditionalCheckFailedException":
            return False
        raise
    return True


def _key(host: Host, number: int) -> dict[str, Any]:
    return {"fleet": {"S": _worker(host).fleet}, "number": {"N": str(number)}}


def _number(host: Host) -> int:
    return int(host.name.rpartition("-")[2])


def _worker(host: Host) -> Worker:
    return required(host.document.worker, "worker")
