"""The metrics that a host sends to CloudWatch, in the environment's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from userdata.host.aws import call
from userdata.host.errors import HostError
from userdata.host.host import Host


def put(host: Host, *, architecture: str | None = None, **figures: float) -> None:
    """Sends figures to CloudWatch.

    Args:
        host: the sender.
        architecture: the processor architecture, sent as a dimension; None: no dimension.
        figures: by the metric's name.

    Raises:
        HostError: CloudWatch did not accept them.
    """
    dimensions = [{"Name": "Architecture", "Value": architecture}] if architecture else []
    call(
        "figures",
        host.client("cloudwatch").put_metric_data,
        Namespace=f"openQA/{host.document.environment}",
        MetricData=[
            {"MetricName": name, "Value": value, "Dimensions": dimensions} for name, value in figures.items()
        ],
    )


@contextmanager
def outcome(host: Host, **figures: tuple[float, float]) -> Iterator[None]:
    """Tells CloudWatch the outcome; an error is raised in any case, even if CloudWatch refuses the figures.

    Args:
        host: the sender.
        figures: by the metric's name, the values for success and for failure.

    Raises:
        HostError: all went well, but CloudWatch did not accept the figures.
    """
    try:
        yield
    except BaseException:
        with suppress(HostError):
            put(host, architecture=None, **{name: bad for name, (_, bad) in figures.items()})
        raise
    put(host, architecture=None, **{name: good for name, (good, _) in figures.items()})
