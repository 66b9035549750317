"""What a host tells CloudWatch, in the environment's namespace."""

from __future__ import annotations

from userdata.host.aws import call
from userdata.host.host import Host


def put(host: Host, **figures: float) -> None:
    """Tells CloudWatch figures.

    Raises:
        HostError: it did not take them.
    """
    call(
        "figures",
        host.client("cloudwatch").put_metric_data,
        Namespace=f"openQA/{host.document.environment}",
        MetricData=[{"MetricName": name, "Value": value} for name, value in figures.items()],
    )
