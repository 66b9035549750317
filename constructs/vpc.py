"""The VPC: public and private subnets in every zone, whose addresses stay whatever zones come or go."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct
from constructs.acknowledged import EXPLICIT_ZONES, acknowledge
from constructs.policy_documents import allow, assumed_by, inline_policy
from constructs.security_groups import ANYWHERE

from settings import Environment
from settings.naming import arn, prefix

# On every host's own link, which no security group blocks: the EC2 user guide, "Amazon Time Sync Service".
TIME_SERVICE = "169.254.169.123"


class Vpc(Construct):
    """The VPC with its subnets, its way to the internet and its flow logs.

    Attributes:
        vpc: the VPC's id.
        public_subnets: by zone, the id of the load balancer's subnet.
        host_subnets: by zone, the id of the subnet that hosts boot in: with a NAT gateway the private ones,
            otherwise the public ones, where each host has its own public address.
        private_subnets: by zone, the id of the subnet of the fixed interfaces.
    """

    vpc: str
    public_subnets: Mapping[str, str]
    host_subnets: Mapping[str, str]
    private_subnets: Mapping[str, str]

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        network = environment.network
        self._name = prefix(environment)
        self.vpc = ec2.CfnVPC(
            self,
            "Vpc",
            cidr_block=str(network.cidr),
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=[{"key": "Name", "value": self._name}],
        ).ref
        self._dhcp_options(environment.region)
        gateway = ec2.CfnInternetGateway(self, "InternetGateway", tags=[{"key": "Name", "value": self._name}])
        attached = ec2.CfnVPCGatewayAttachment(
            self, "Gateway", vpc_id=self.vpc, internet_gateway_id=gateway.ref
        )
        public_routes = self._route_table("Public")
        private_routes = self._route_table("Private")
        to_internet = ec2.CfnRoute(
            self,
            "PublicToInternet",
            route_table_id=public_routes,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.ref,
        )
        to_internet.add_resource_dependency(attached)
        public = self._subnets("Public", network.subnets.public, public_routes)
        private = self._subnets("Private", network.subnets.private, private_routes)
        if network.egress == "nat":
            self._nat_gateway(public[network.zone], private_routes, to_internet)
        self.public_subnets = public
        self.private_subnets = private
        self.host_subnets = private if network.egress == "nat" else public
        # Gateway endpoints cost nothing, and keep images and leases off the NAT gateway.
        for name, service in (("S3", "s3"), ("DynamoDb", "dynamodb")):
            ec2.CfnVPCEndpoint(
                self,
                name,
                vpc_id=self.vpc,
                service_name=f"com.amazonaws.{environment.region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[public_routes, private_routes],
                tags=[{"key": "Name", "value": f"{self._name}-{service}"}],
            )
        self._flow_logs(environment)
        acknowledge(self, "CloudFormation-Validate::W3010", reason=EXPLICIT_ZONES)

    def _dhcp_options(self, region: str) -> None:
        """AWS's defaults and its time service: the security groups of hosts with state let no NTP out."""
        options = ec2.CfnDHCPOptions(
            self,
            "DhcpOptions",
            domain_name="ec2.internal" if region == "us-east-1" else f"{region}.compute.internal",
            domain_name_servers=["AmazonProvidedDNS"],
            ntp_servers=[TIME_SERVICE],
            tags=[{"key": "Name", "value": self._name}],
        )
        ec2.CfnVPCDHCPOptionsAssociation(
            self, "DhcpOptionsOfVpc", dhcp_options_id=options.ref, vpc_id=self.vpc
        )

    def _route_table(self, tier: str) -> str:
        name = f"{self._name}-{tier.lower()}"
        return ec2.CfnRouteTable(
            self, f"{tier}Routes", vpc_id=self.vpc, tags=[{"key": "Name", "value": name}]
        ).ref

    def _subnets(self, tier: str, plan: Mapping[str, IPv4Network], routes: str) -> dict[str, str]:
        subnets: dict[str, str] = {}
        for zone, cidr in plan.items():
            name = f"{tier}{zone[-1].upper()}"
            subnets[zone] = ec2.CfnSubnet(
                self,
                name,
                vpc_id=self.vpc,
                availability_zone=zone,
                cidr_block=str(cidr),
                # Hosts that need a public address ask for one (HostLaunchTemplate).
                map_public_ip_on_launch=False,
                tags=[{"key": "Name", "value": f"{self._name}-{tier.lower()}-{zone}"}],
            ).ref
            ec2.CfnSubnetRouteTableAssociation(
                self, f"{name}Routes", subnet_id=subnets[zone], route_table_id=routes
            )
        return subnets

    def _nat_gateway(self, subnet: str, routes: str, to_internet: ec2.CfnRoute) -> None:
        # One is enough: without the zone of the web UI and the database there is no openQA to serve.
        tags = [{"key": "Name", "value": self._name}]
        address = ec2.CfnEIP(self, "NatAddress", domain="vpc", tags=tags)
        nat = ec2.CfnNatGateway(
            self,
            "Nat",
            subnet_id=subnet,
            allocation_id=address.attr_allocation_id,
            tags=tags,
        )
        nat.add_resource_dependency(to_internet)
        ec2.CfnRoute(
            self,
            "PrivateToInternet",
            route_table_id=routes,
            destination_cidr_block=ANYWHERE,
            nat_gateway_id=nat.ref,
        )

    def _flow_logs(self, environment: Environment) -> None:
        group = logs.CfnLogGroup(self, "FlowLogs", retention_in_days=environment.log_days)
        write = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        writer = iam.CfnRole(
            self,
            "FlowLogsRole",
            description=f"{self._name}: VPC flow logs",
            assume_role_policy_document=assumed_by(
                "vpc-flow-logs.amazonaws.com", source=arn(environment, "ec2", "vpc-flow-log/*")
            ),
            policies=[inline_policy("Write", [allow(write, [group.attr_arn])])],
        )
        ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=self.vpc,
            resource_type="VPC",
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_group_name=group.ref,
            deliver_logs_permission_arn=writer.attr_arn,
            tags=[{"key": "Name", "value": self._name}],
        )
