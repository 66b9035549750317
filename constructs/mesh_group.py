"""Who may talk to whom in a mesh: a security group for each mesh fleet, open to GRE among its own members."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from constructs import Construct
from constructs.security_groups import nothing

from settings import Environment, Fleet
from settings.naming import fleet_group

GRE = "47"  # the IP protocol's number, which has no ports


class MeshGroup(Construct):
    """The security group that hosts of a mesh fleet have besides that of all workers.

    Attributes:
        group_id: the group's id.
    """

    group_id: str

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, fleet: Fleet, vpc: str
    ) -> None:
        """Makes the group and its rules.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            fleet: the fleet's settings.
            vpc: the VPC's id.
        """
        super().__init__(scope, id)
        name = fleet_group(environment, fleet.name)
        why = f"GRE tunnels between the hosts of fleet {fleet.name}"
        group = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=vpc,
            group_description=f"{name}: {why}",
            security_group_egress=[nothing()],
            tags=[{"key": "Name", "value": name}],
        )
        self.group_id = group.attr_group_id
        ec2.CfnSecurityGroupIngress(
            self,
            "In",
            group_id=self.group_id,
            source_security_group_id=self.group_id,
            ip_protocol=GRE,
            description=why,
        )
        ec2.CfnSecurityGroupEgress(
            self,
            "Out",
            group_id=self.group_id,
            destination_security_group_id=self.group_id,
            ip_protocol=GRE,
            description=why,
        )
