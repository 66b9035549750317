"""What a host keeps when it is replaced: its data volume and its network interface at a fixed address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from aws_cdk import CfnTag, RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_route53 as route53
from constructs import Construct
from constructs.acknowledged import EXPLICIT_ZONES, acknowledge

from settings import Environment
from settings.naming import SNAPSHOTS, Role, private_zone, stateful_group


class RetainedState(Construct):
    """A volume and an interface that outlive every host, and the private name of the address.

    Attributes:
        volume: the volume's id.
        interface: the interface's id.
        address: the interface's address.
        subnet: the range of the subnet that it is in.
    """

    volume: str
    interface: str
    address: IPv4Address
    subnet: IPv4Network

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        role: Role,
        address: IPv4Address,
        volume_gib: int,
        volume_mibps: int | None = None,
        subnet: str,
        security_group: str,
        private_zone_id: str,
        removal_policy: RemovalPolicy,
    ) -> None:
        """Makes the volume, the interface and its name.

        Args:
            scope: the construct that they belong to.
            id: their name there.
            environment: the settings.
            role: the host that they belong to, which is also its name in the private zone.
            address: the interface's address, inside the subnet.
            volume_gib: the volume's size in GiB.
            volume_mibps: its throughput in MiB/s; None: gp3's minimum, 125.
            subnet: the id of the private subnet in the hosts' zone.
            security_group: the id of the group that says who may talk to the address.
            private_zone_id: the private hosted zone's id.
            removal_policy: what happens to the volume when its stack goes.
        """
        super().__init__(scope, id)
        network = environment.network
        self.address = address
        self.subnet = network.subnets.private[network.zone]
        name = stateful_group(environment, role)
        tags = [CfnTag(key="Name", value=name)]
        volume = ec2.CfnVolume(
            self,
            "Volume",
            availability_zone=network.zone,
            size=volume_gib,
            volume_type="gp3",
            throughput=volume_mibps,
            encrypted=True,
            tags=[*tags, CfnTag(key=SNAPSHOTS, value=name)],
        )
        volume.apply_removal_policy(removal_policy)
        acknowledge(volume, "CloudFormation-Validate::W3010", reason=EXPLICIT_ZONES)
        self.volume = volume.ref
        interface = ec2.CfnNetworkInterface(
            self,
            "Interface",
            subnet_id=subnet,
            private_ip_address=str(address),
            group_set=[security_group],
            description=f"{name}: the fixed address",
            tags=tags,
        )
        self.interface = interface.ref
        route53.CfnRecordSet(
            self,
            "Record",
            hosted_zone_id=private_zone_id,
            name=f"{role}.{private_zone(environment)}.",
            type="A",
            ttl="60",
            # From the interface itself: the name never leads to an address that no interface has yet.
            resource_records=[interface.attr_primary_private_ip_address],
        )
