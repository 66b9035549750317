"""In which order a group replaces a host."""

from __future__ import annotations

from aws_cdk import aws_autoscaling as autoscaling

Policy = autoscaling.CfnAutoScalingGroup.InstanceMaintenancePolicyProperty


def old_host_first() -> Policy:
    """Returns the policy by which a group lets a host go before, or while, it launches another.

    Groups without one obey a setting of the account, ``launchBeforeTerminate``: the user guide of EC2 Auto
    Scaling, "Launch replacement instances before terminating old ones". With that, a host that waits for its
    predecessor's volume would wait in vain, and one whose workers were told to go would stay in service.
    """
    return Policy(min_healthy_percentage=0, max_healthy_percentage=100)
