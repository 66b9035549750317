"""The public hosted zone, if the environment does not bring its own."""

from __future__ import annotations

from aws_cdk import CfnOutput, Fn
from aws_cdk import aws_route53 as route53
from constructs import Construct

from settings import Environment
from stacks.environment_stack import EnvironmentStack, state_policy


class DnsStack(EnvironmentStack):
    """The public hosted zone.

    It is deployed first: the zone's name servers must be entered in its parent zone before the web UI's
    certificate can be validated.

    Attributes:
        hosted_zone_id: its id.
    """

    hosted_zone_id: str

    def __init__(self, scope: Construct, *, environment: Environment, hosted_zone: str) -> None:
        """Makes the stack.

        Args:
            scope: the app.
            environment: the settings.
            hosted_zone: the zone's name, without a dot at the end.
        """
        super().__init__(
            scope, "dns", environment=environment, description="the public hosted zone", holds_state=True
        )
        zone = route53.CfnHostedZone(self, "Zone", name=f"{hosted_zone}.")
        # Its parent zone names its name servers: a new zone would have others and not be found, and whoever
        # gets one of the old ones for a zone of this name would own the name.
        zone.apply_removal_policy(state_policy(environment))
        self.hosted_zone_id = zone.ref
        CfnOutput(
            self,
            "NameServers",
            value=Fn.join(" ", zone.attr_name_servers),
            description="To be entered as the zone's NS records in its parent zone",
        )
