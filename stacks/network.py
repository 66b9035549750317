"""The network: VPC, security groups and their rules, the private hosted zone."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import aws_route53 as route53
from constructs import Construct
from constructs.security_groups import SecurityGroups
from constructs.vpc import Vpc

from settings import Environment
from settings.naming import private_zone
from stacks.environment_stack import EnvironmentStack


class NetworkStack(EnvironmentStack):
    """The network.

    Attributes:
        vpc: the VPC's id.
        public_subnets: by zone, the id of the load balancer's subnet.
        host_subnets: by zone, the id of the subnet that hosts boot in.
        private_subnets: by zone, the id of the subnet of fixed interfaces.
        security_groups: all security groups.
        private_zone_id: the private hosted zone's id.
    """

    vpc: str
    public_subnets: Mapping[str, str]
    host_subnets: Mapping[str, str]
    private_subnets: Mapping[str, str]
    security_groups: SecurityGroups
    private_zone_id: str

    def __init__(self, scope: Construct, *, environment: Environment) -> None:
        super().__init__(scope, "network", environment=environment, description="the network")
        network = Vpc(self, "Network", environment=environment)
        self.vpc = network.vpc
        self.public_subnets = network.public_subnets
        self.host_subnets = network.host_subnets
        self.private_subnets = network.private_subnets
        for subnet in (*network.public_subnets.values(), *network.private_subnets.values()):
            # Always exported: CloudFormation removes no export that is still in use elsewhere, so hosts could
            # not move between public and private subnets (`egress`).
            self.export_value(subnet)
        self.security_groups = SecurityGroups(
            self, "SecurityGroups", environment=environment, vpc=network.vpc
        )
        self.private_zone_id = route53.CfnHostedZone(
            self,
            "Zone",
            name=f"{private_zone(environment)}.",
            vpcs=[route53.CfnHostedZone.VPCProperty(vpc_id=network.vpc, vpc_region=environment.region)],
        ).ref
