"""What a host tells CloudWatch, in the environment's namespace."""

from __future__ import annotations

from userdata.host.aws import call
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
