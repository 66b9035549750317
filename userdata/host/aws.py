"""Clients of AWS's services, and waiting for what they report."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import boto3
import boto3.exceptions
import botocore.session
import s3transfer.exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from userdata.host.errors import HostError

T = TypeVar("T")

RUNNING_SECONDS = 120

# A download, to a file or to a pipe, that broke off too often: neither is a botocore error.
_BROKEN_OFF = (boto3.exceptions.RetriesExceededError, s3transfer.exceptions.RetriesExceededError)
_CONFIG = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=5, read_timeout=30)


def client(service: str, region: str, *, config: Config = _CONFIG) -> Any:  # boto3 brings no types
    """Returns a client that retries, with the instance role's credentials."""
    return _session().client(service, region_name=region, config=config)


def has_credentials() -> bool:
    """Returns whether there are credentials. A client created without them never gets any."""
    return _session().get_credentials() is not None


@cache
def _session() -> boto3.Session:
    """One session for all clients: it loads its AWS data and asks for the role's credentials once."""
    session = botocore.session.get_session()
    # A role's credentials may appear some seconds after the instance; botocore asks once, for a second.
    session.set_config_variable("metadata_service_timeout", 5)
    session.set_config_variable("metadata_service_num_attempts", 10)
    return boto3.Session(botocore_session=session)


def call(what: str, function: Callable[..., T], **arguments: Any) -> T:
    """Calls AWS and turns a failure into a :class:`HostError` that begins with ``what``."""
    try:
        return function(**arguments)
    except (ClientError, BotoCoreError, *_BROKEN_OFF) as error:
        raise HostError(f"{what}: {error}") from error


def refusal(error: HostError) -> str:
    """Returns the error code with which AWS refused :func:`call`; empty if it did not answer."""
    cause = error.__cause__
    return str(cause.response["Error"]["Code"]) if isinstance(cause, ClientError) else ""


def wait(
    what: str,
    ready: Callable[[], T | None],
    *,
    seconds: float,
    pause: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Returns the first answer of ``ready`` that is not None.

    Args:
        what: what is waited for, for the error: ``volume vol-1 to be free``.
        ready: asked until it returns something.
        seconds: when to give up.
        pause: seconds between questions.
        sleep: waits; takes seconds.
        clock: seconds, monotonic.

    Raises:
        HostError: no answer in time.
    """
    end = clock() + seconds
    while (answer := ready()) is None:
        if clock() >= end:
            raise HostError(f"waited {seconds:.0f} s for {what}")
        sleep(pause)
    return answer


def await_running(ec2: Any, instance: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Waits until EC2 lists an instance as running: until then it attaches nothing, even after the boot.

    Raises:
        HostError: EC2 did not in time, or refused to answer.
    """
    filters = {"instance-id": instance, "instance-state-name": "running"}

    def running() -> bool | None:
        # With filters, an instance too new for EC2 to know it is no error.
        answer = call(
            f"instance {instance}",
            ec2.describe_instances,
            Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()],
        )
        return True if answer["Reservations"] else None

    wait(f"EC2 to list {instance} as running", running, seconds=RUNNING_SECONDS, sleep=sleep)
