"""AWS::EC2: the network."""

from __future__ import annotations

from typing import Any

from localcloud.aws.cloudformation.types import (
    Context,
    Properties,
    ResourceError,
    Type,
    UpdateRefusedError,
    changes,
    tag_specifications,
    tags,
)


class Ec2Type(Type):
    """An EC2 resource, whose tags are changed by CreateTags and DeleteTags."""

    def retag(self, c: Context, old: Properties, new: Properties) -> None:
        """Replace the tags."""
        gone = {tag["Key"] for tag in tags(old)} - {tag["Key"] for tag in tags(new)}
        if gone:
            c.call("ec2", "delete_tags", Resources=[c.id], Tags=[{"Key": key} for key in sorted(gone)])
        if tags(new):
            c.call("ec2", "create_tags", Resources=[c.id], Tags=tags(new))


class Vpc(
    Ec2Type,
    type="AWS::EC2::VPC",
    properties="EnableDnsHostnames EnableDnsSupport Tags",
    immutable="CidrBlock InstanceTenancy",
):
    """A VPC."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_vpc",
            CidrBlock=p["CidrBlock"],
            InstanceTenancy=p.get("InstanceTenancy"),
            TagSpecifications=tag_specifications("vpc", p),
        )
        c.created(answer["Vpc"]["VpcId"])
        self._dns(c, p)

    def _dns(self, c: Context, p: Properties) -> None:
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            if name in p:
                c.call("ec2", "modify_vpc_attribute", VpcId=c.id, **{name: {"Value": p[name]}})

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change DNS options and tags."""
        self._dns(c, new)
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_vpc", VpcId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        groups = c.call(
            "ec2",
            "describe_security_groups",
            Filters=[{"Name": "vpc-id", "Values": [c.id]}, {"Name": "group-name", "Values": ["default"]}],
        )["SecurityGroups"]
        acls = c.call("ec2", "describe_network_acls", Filters=[{"Name": "vpc-id", "Values": [c.id]}])[
            "NetworkAcls"
        ]
        return {
            "VpcId": c.id,
            "CidrBlock": p["CidrBlock"],
            "DefaultSecurityGroup": groups[0]["GroupId"],
            "DefaultNetworkAcl": acls[0]["NetworkAclId"] if acls else "",
        }


class DhcpOptions(
    Ec2Type,
    type="AWS::EC2::DHCPOptions",
    properties="Tags",
    immutable="DomainName DomainNameServers NtpServers",
):
    """A set of DHCP options: kept as a record, for hosts here lease nothing."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        options = {
            "domain-name": [p["DomainName"]] if "DomainName" in p else [],
            "domain-name-servers": p.get("DomainNameServers", []),
            "ntp-servers": p.get("NtpServers", []),
        }
        answer = c.call(
            "ec2",
            "create_dhcp_options",
            DhcpConfigurations=[{"Key": key, "Values": values} for key, values in options.items() if values],
            TagSpecifications=tag_specifications("dhcp-options", p),
        )
        c.created(answer["DhcpOptions"]["DhcpOptionsId"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_dhcp_options", DhcpOptionsId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"DhcpOptionsId": c.id}


class DhcpOptionsAssociation(
    Type, type="AWS::EC2::VPCDHCPOptionsAssociation", immutable="DhcpOptionsId VpcId"
):
    """The DHCP options of a VPC; a pair, of which the VPC can be part of one at a time."""

    def create(self, c: Context, p: Properties) -> None:
        """Associate them."""
        c.call("ec2", "associate_dhcp_options", DhcpOptionsId=p["DhcpOptionsId"], VpcId=p["VpcId"])
        c.created(f"{p['DhcpOptionsId']}|{p['VpcId']}")

    def delete(self, c: Context, p: Properties) -> None:
        """Give the VPC AWS's own options again, unless it has others by now."""
        (vpc,) = c.call("ec2", "describe_vpcs", VpcIds=[p["VpcId"]])["Vpcs"]
        if vpc["DhcpOptionsId"] == p["DhcpOptionsId"]:
            c.call("ec2", "associate_dhcp_options", DhcpOptionsId="default", VpcId=p["VpcId"])


class Subnet(
    Ec2Type,
    type="AWS::EC2::Subnet",
    properties="MapPublicIpOnLaunch Tags",
    immutable="VpcId CidrBlock AvailabilityZone",
):
    """A subnet."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_subnet",
            VpcId=p["VpcId"],
            CidrBlock=p["CidrBlock"],
            AvailabilityZone=p.get("AvailabilityZone"),
            TagSpecifications=tag_specifications("subnet", p),
        )
        c.created(answer["Subnet"]["SubnetId"])
        self._public(c, p)

    def _public(self, c: Context, p: Properties) -> None:
        value = {"Value": p.get("MapPublicIpOnLaunch", False)}
        c.call("ec2", "modify_subnet_attribute", SubnetId=c.id, MapPublicIpOnLaunch=value)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change public addresses and tags."""
        self._public(c, new)
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it, if nothing is left in it."""
        inside = c.call(
            "ec2", "describe_network_interfaces", Filters=[{"Name": "subnet-id", "Values": [c.id]}]
        )["NetworkInterfaces"]
        if inside:
            ids = ", ".join(interface["NetworkInterfaceId"] for interface in inside)
            raise ResourceError(f"The subnet '{c.id}' has dependencies and cannot be deleted: {ids}")
        c.call("ec2", "delete_subnet", SubnetId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {
            "SubnetId": c.id,
            "VpcId": p["VpcId"],
            "CidrBlock": p["CidrBlock"],
            "AvailabilityZone": p.get("AvailabilityZone", f"{c.world.region}a"),
        }


class InternetGateway(Ec2Type, type="AWS::EC2::InternetGateway", properties="Tags"):
    """An internet gateway."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2", "create_internet_gateway", TagSpecifications=tag_specifications("internet-gateway", p)
        )
        c.created(answer["InternetGateway"]["InternetGatewayId"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_internet_gateway", InternetGatewayId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"InternetGatewayId": c.id}


class GatewayAttachment(Type, type="AWS::EC2::VPCGatewayAttachment", immutable="VpcId InternetGatewayId"):
    """An internet gateway in a VPC."""

    def create(self, c: Context, p: Properties) -> None:
        """Attach it."""
        c.call(
            "ec2",
            "attach_internet_gateway",
            InternetGatewayId=p["InternetGatewayId"],
            VpcId=p["VpcId"],
        )
        c.created(f"IGW|{p['VpcId']}")

    def delete(self, c: Context, p: Properties) -> None:
        """Detach it."""
        c.call(
            "ec2",
            "detach_internet_gateway",
            InternetGatewayId=p["InternetGatewayId"],
            VpcId=p["VpcId"],
        )


class RouteTable(Ec2Type, type="AWS::EC2::RouteTable", properties="Tags", immutable="VpcId"):
    """A route table."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_route_table",
            VpcId=p["VpcId"],
            TagSpecifications=tag_specifications("route-table", p),
        )
        c.created(answer["RouteTable"]["RouteTableId"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_route_table", RouteTableId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"RouteTableId": c.id}


class RouteTableAssociation(
    Type, type="AWS::EC2::SubnetRouteTableAssociation", immutable="RouteTableId SubnetId"
):
    """The route table of a subnet."""

    def create(self, c: Context, p: Properties) -> None:
        """Associate it."""
        answer = c.call(
            "ec2", "associate_route_table", RouteTableId=p["RouteTableId"], SubnetId=p["SubnetId"]
        )
        c.created(answer["AssociationId"])

    def delete(self, c: Context, p: Properties) -> None:
        """Disassociate it."""
        c.call("ec2", "disassociate_route_table", AssociationId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Id": c.id}


class Route(
    Type,
    type="AWS::EC2::Route",
    properties="GatewayId NatGatewayId NetworkInterfaceId VpcEndpointId",
    immutable="RouteTableId DestinationCidrBlock",
):
    """A route."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        c.call("ec2", "create_route", **p)
        c.created(f"{p['RouteTableId']}|{p['DestinationCidrBlock']}")

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Point it elsewhere."""
        c.call("ec2", "replace_route", **new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call(
            "ec2",
            "delete_route",
            RouteTableId=p["RouteTableId"],
            DestinationCidrBlock=p["DestinationCidrBlock"],
        )


class ElasticIp(Ec2Type, type="AWS::EC2::EIP", properties="Tags", immutable="Domain"):
    """An Elastic IP address."""

    def create(self, c: Context, p: Properties) -> None:
        """Allocate it."""
        answer = c.call(
            "ec2",
            "allocate_address",
            Domain=p.get("Domain"),
            TagSpecifications=tag_specifications("elastic-ip", p),
        )
        c.created(answer["PublicIp"])

    def _allocation(self, c: Context) -> str:
        answer = c.call("ec2", "describe_addresses", PublicIps=[c.id])
        return str(answer["Addresses"][0]["AllocationId"])

    def retag(self, c: Context, old: Properties, new: Properties) -> None:
        """Replace the tags."""
        c.call("ec2", "create_tags", Resources=[self._allocation(c)], Tags=tags(new))

    def delete(self, c: Context, p: Properties) -> None:
        """Release it."""
        c.call("ec2", "release_address", AllocationId=self._allocation(c))

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"AllocationId": self._allocation(c), "PublicIp": c.id}


class NatGateway(
    Ec2Type,
    type="AWS::EC2::NatGateway",
    properties="Tags",
    immutable="SubnetId AllocationId ConnectivityType",
):
    """A NAT gateway."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_nat_gateway",
            **{key: value for key, value in p.items() if key != "Tags"},
            TagSpecifications=tag_specifications("natgateway", p),
        )
        c.created(answer["NatGateway"]["NatGatewayId"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it with its interface."""
        answer = c.call("ec2", "describe_nat_gateways", NatGatewayIds=[c.id])
        c.call("ec2", "delete_nat_gateway", NatGatewayId=c.id)
        for address in answer["NatGateways"][0]["NatGatewayAddresses"]:
            interface = address["NetworkInterfaceId"]
            c.call("ec2", "delete_network_interface", NetworkInterfaceId=interface)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"NatGatewayId": c.id}


class VpcEndpoint(
    Ec2Type,
    type="AWS::EC2::VPCEndpoint",
    properties="PolicyDocument RouteTableIds SecurityGroupIds Tags",
    immutable="VpcId ServiceName VpcEndpointType SubnetIds PrivateDnsEnabled",
):
    """A gateway or interface endpoint."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_vpc_endpoint",
            **{key: value for key, value in p.items() if key != "Tags"},
            TagSpecifications=tag_specifications("vpc-endpoint", p),
        )
        c.created(answer["VpcEndpoint"]["VpcEndpointId"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change policy, route tables and tags."""
        if "SecurityGroupIds" in changes(old, new):
            raise UpdateRefusedError(
                "The local cloud cannot change SecurityGroupIds of AWS::EC2::VPCEndpoint"
            )
        before, after = set(old.get("RouteTableIds", [])), set(new.get("RouteTableIds", []))
        c.call(
            "ec2",
            "modify_vpc_endpoint",
            VpcEndpointId=c.id,
            PolicyDocument=new.get("PolicyDocument"),
            AddRouteTableIds=sorted(after - before) or None,
            RemoveRouteTableIds=sorted(before - after) or None,
        )
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_vpc_endpoints", VpcEndpointIds=[c.id])

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Id": c.id}


class FlowLog(
    Ec2Type,
    type="AWS::EC2::FlowLog",
    properties="Tags",
    immutable="ResourceId ResourceType TrafficType LogDestinationType LogDestination LogGroupName "
    "DeliverLogsPermissionArn MaxAggregationInterval LogFormat",
):
    """A flow log."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        rest = {key: value for key, value in p.items() if key not in ("Tags", "ResourceId")}
        answer = c.call(
            "ec2",
            "create_flow_logs",
            **rest,
            ResourceIds=[p["ResourceId"]],
            TagSpecifications=tag_specifications("vpc-flow-log", p),
        )
        if answer.get("Unsuccessful"):
            raise ResourceError(answer["Unsuccessful"][0]["Error"]["Message"])
        c.created(answer["FlowLogIds"][0])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_flow_logs", FlowLogIds=[c.id])

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Id": c.id}


_RULE = (
    "IpProtocol FromPort ToPort CidrIp Description SourceSecurityGroupId DestinationSecurityGroupId "
    "SourcePrefixListId DestinationPrefixListId SourceSecurityGroupOwnerId"
)
_WITH_PORTS = ("tcp", "6", "udp", "17", "icmp", "1", "icmpv6", "58")


def _permission(rule: Properties) -> dict[str, Any]:
    """One rule as EC2's calls take it.

    Raises:
        ResourceError: It has a property that is not supported.
    """
    if unknown := sorted(rule.keys() - set(_RULE.split()) - {"GroupId"}):
        raise ResourceError(f"The local cloud does not support {', '.join(unknown)} of security group rules")
    permission: dict[str, Any] = {"IpProtocol": str(rule["IpProtocol"])}
    for key in ("FromPort", "ToPort"):
        if key in rule:
            permission[key] = int(rule[key])
    if permission["IpProtocol"] not in ("-1", *_WITH_PORTS):
        # Other protocols have no ports, which moto must be told.
        permission |= {"FromPort": -1, "ToPort": -1}
    described = {"Description": rule["Description"]} if "Description" in rule else {}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    prefix_list = rule.get("SourcePrefixListId") or rule.get("DestinationPrefixListId")
    if "CidrIp" in rule:
        permission["IpRanges"] = [{"CidrIp": rule["CidrIp"], **described}]
    elif group:
        permission["UserIdGroupPairs"] = [{"GroupId": group, **described}]
    elif prefix_list:
        permission["PrefixListIds"] = [{"PrefixListId": prefix_list, **described}]
    else:
        raise ResourceError("A security group rule needs a peer")
    return permission


_ANYWHERE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


class SecurityGroup(
    Ec2Type,
    type="AWS::EC2::SecurityGroup",
    properties="SecurityGroupIngress SecurityGroupEgress Tags",
    immutable="GroupName GroupDescription VpcId",
):
    """A security group."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it with its rules."""
        # moto takes any VPC.
        c.call("ec2", "describe_vpcs", VpcIds=[p["VpcId"]])
        answer = c.call(
            "ec2",
            "create_security_group",
            GroupName=p.get("GroupName") or c.name(255),
            Description=p["GroupDescription"],
            VpcId=p["VpcId"],
            TagSpecifications=tag_specifications("security-group", p),
        )
        c.created(answer["GroupId"])
        if "SecurityGroupEgress" in p:
            c.call("ec2", "revoke_security_group_egress", GroupId=c.id, IpPermissions=[_ANYWHERE])
        self._authorize(c, p.get("SecurityGroupIngress", []), p.get("SecurityGroupEgress", []))

    def _authorize(self, c: Context, ingress: list[Properties], egress: list[Properties]) -> None:
        for operation, rules in (
            ("authorize_security_group_ingress", ingress),
            ("authorize_security_group_egress", egress),
        ):
            if rules:
                c.call("ec2", operation, GroupId=c.id, IpPermissions=[_permission(rule) for rule in rules])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Exchange the rules that differ."""
        if ("SecurityGroupEgress" in old) != ("SecurityGroupEgress" in new):
            operation = f"{'revoke' if 'SecurityGroupEgress' in new else 'authorize'}_security_group_egress"
            c.call("ec2", operation, GroupId=c.id, IpPermissions=[_ANYWHERE])
        added = {}
        for name, operation in (
            ("SecurityGroupIngress", "revoke_security_group_ingress"),
            ("SecurityGroupEgress", "revoke_security_group_egress"),
        ):
            before, after = old.get(name, []), new.get(name, [])
            if gone := [_permission(rule) for rule in before if rule not in after]:
                c.call("ec2", operation, GroupId=c.id, IpPermissions=gone)
            added[name] = [rule for rule in after if rule not in before]
        self._authorize(c, added["SecurityGroupIngress"], added["SecurityGroupEgress"])
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it, if no interface uses it."""
        users = c.call(
            "ec2", "describe_network_interfaces", Filters=[{"Name": "group-id", "Values": [c.id]}]
        )["NetworkInterfaces"]
        if users:
            ids = ", ".join(interface["NetworkInterfaceId"] for interface in users)
            raise ResourceError(f"resource {c.id} has a dependent object: {ids}")
        c.call("ec2", "delete_security_group", GroupId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"GroupId": c.id, "Id": c.id, "VpcId": p["VpcId"]}


class _SecurityGroupRule(Type):
    """One rule of a security group."""

    direction: str

    def create(self, c: Context, p: Properties) -> None:
        """Authorize it."""
        answer = c.call(
            "ec2",
            f"authorize_security_group_{self.direction}",
            GroupId=p["GroupId"],
            IpPermissions=[_permission(p)],
        )
        c.created(answer["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def delete(self, c: Context, p: Properties) -> None:
        """Revoke it."""
        c.call(
            "ec2",
            f"revoke_security_group_{self.direction}",
            GroupId=p["GroupId"],
            IpPermissions=[_permission(p)],
        )

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Id": c.id}


class Ingress(_SecurityGroupRule, type="AWS::EC2::SecurityGroupIngress", immutable=f"GroupId {_RULE}"):
    """Traffic that may come in."""

    direction = "ingress"


class Egress(_SecurityGroupRule, type="AWS::EC2::SecurityGroupEgress", immutable=f"GroupId {_RULE}"):
    """Traffic that may go out."""

    direction = "egress"


class NetworkInterface(
    Ec2Type,
    type="AWS::EC2::NetworkInterface",
    properties="Description GroupSet SourceDestCheck Tags",
    immutable="SubnetId PrivateIpAddress",
):
    """A network interface."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_network_interface",
            SubnetId=p["SubnetId"],
            PrivateIpAddress=p.get("PrivateIpAddress"),
            Description=p.get("Description"),
            Groups=p.get("GroupSet"),
            TagSpecifications=tag_specifications("network-interface", p),
        )
        c.created(answer["NetworkInterface"]["NetworkInterfaceId"])
        self._check(c, p)

    def _check(self, c: Context, p: Properties) -> None:
        if "SourceDestCheck" in p:
            c.call(
                "ec2",
                "modify_network_interface_attribute",
                NetworkInterfaceId=c.id,
                SourceDestCheck={"Value": p["SourceDestCheck"]},
            )

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change groups, description and tags."""
        for name, value in (
            ("Groups", new.get("GroupSet")),
            ("Description", {"Value": new.get("Description", "")}),
        ):
            if value is not None:
                c.call("ec2", "modify_network_interface_attribute", NetworkInterfaceId=c.id, **{name: value})
        self._check(c, new)
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_network_interface", NetworkInterfaceId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        answer = c.call("ec2", "describe_network_interfaces", NetworkInterfaceIds=[c.id])
        interface = answer["NetworkInterfaces"][0]
        return {
            "Id": c.id,
            "PrimaryPrivateIpAddress": interface["PrivateIpAddress"],
            "VpcId": interface["VpcId"],
        }
