"""What a host tells CloudWatch, in the environment's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from userdata.host.aws import call
from userdata.host.errors import HostError
from userdata.host.host import Host


def put(host: Host, *, architecture: str | None = None, **figures: float) -> None:
    """Tells CloudWatch figures.

    Args:
        host: who tells.
        architecture: the processor that they are about, which becomes their dimension; None: they have none.
        figures: by the metric's name.

    Raises:
        HostError: it did not take them.
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
    """Tells CloudWatch how it went; what went wrong is raised, whether CloudWatch takes the figures or not.

    Args:
        host: who tells.
        figures: by the metric's name, what is told where it went well, and where it did not.

    Raises:
        HostError: it went well, but CloudWatch did not take the figures.
    """
    try:
        yield
    except BaseException:
        with suppress(HostError):
            put(host, architecture=None, **{name: bad for name, (_, bad) in figures.items()})
        raise
    put(host, architecture=None, **{name: good for name, (good, _) in figures.items()})
