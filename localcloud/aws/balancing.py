"""moto's load balancers with target health that the runtime reports."""

from __future__ import annotations

from typing import Any

from moto.elbv2.models import FakeHealthStatus, FakeTargetGroup

from localcloud.aws.ports import TargetState

_REASONS = {
    "initial": "Elb.RegistrationInProgress",
    "unhealthy": "Target.FailedHealthChecks",
    "draining": "Target.DeregistrationInProgress",
    "unused": "Target.NotInUse",
}


def health(group: FakeTargetGroup) -> dict[str, tuple[TargetState, str]]:
    """The reported health of a target group's targets: instance to state and description."""
    reported: dict[str, tuple[TargetState, str]] = group.__dict__.setdefault("reported", {})
    return reported


_original = FakeTargetGroup.health_for


def _health_for(self: FakeTargetGroup, target: dict[str, Any], ec2_backend: Any) -> FakeHealthStatus:
    status = _original(self, target, ec2_backend)
    if status.status == "healthy":
        status.status, status.description = health(self).get(target["Id"], ("initial", ""))
        status.reason = _REASONS.get(status.status)
    return status


def install() -> None:
    """Put this health in the place of moto's, which is always good."""
    FakeTargetGroup.health_for = _health_for  # type: ignore[method-assign]
