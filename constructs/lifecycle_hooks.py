"""The two moments at which a host has a say in its own life: when it is ready, and when it must go."""

from __future__ import annotations

from aws_cdk import aws_autoscaling as autoscaling

from settings.naming import LAUNCH_HOOK, TERMINATE_HOOK

Hook = autoscaling.CfnAutoScalingGroup.LifecycleHookSpecificationProperty


def lifecycle_hooks(*, ready_seconds: int, drain_seconds: int) -> list[Hook]:
    """Returns a group's hooks, for its own specification, so that even the first instance has them.

    Args:
        ready_seconds: how long a host may take to get ready before it is given up.
        drain_seconds: how long a draining host may be silent before it is terminated. With heartbeats a host
            gets up to a hundred times that, and at most 48 hours.
    """
    return [
        Hook(
            lifecycle_hook_name=LAUNCH_HOOK,
            lifecycle_transition="autoscaling:EC2_INSTANCE_LAUNCHING",
            heartbeat_timeout=ready_seconds,
            default_result="ABANDON",
        ),
        Hook(
            lifecycle_hook_name=TERMINATE_HOOK,
            lifecycle_transition="autoscaling:EC2_INSTANCE_TERMINATING",
            heartbeat_timeout=drain_seconds,
            default_result="CONTINUE",
        ),
    ]
