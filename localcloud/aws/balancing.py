"""moto's load balancers with target health that the runtime reports, and without rules."""

from __future__ import annotations

from typing import Any, NoReturn

from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup

from localcloud.aws.ports import TargetState
from localcloud.aws.service import Refusal

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


def _no_rule(*_: object, **__: object) -> NoReturn:
    raise Refusal("OperationNotPermitted", "Listener rules are not supported by the local cloud.")


def install() -> None:
    """Put this health in place of moto's, which is always good, and refuse rules, which no balancer obeys."""
    FakeTargetGroup.health_for = _health_for  # type: ignore[method-assign]
    ELBv2Backend.create_rule = _no_rule  # type: ignore[method-assign]
