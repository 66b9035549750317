"""The API as instances and operators call it, over the socket."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from localcloud.aws.cloudformation.types import Type
from localcloud.aws.ports import Instance
from localcloud.aws.server import Server
from tests.localcloud.aws_helpers import ACCOUNT, REGION, FakeRuntime, open_server
from userdata.host import mesh
from userdata.host.errors import HostError

Client = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    server, endpoint = open_server()
    yield server, endpoint
    server.stop()


@pytest.fixture
def aws(server: tuple[Server, str]) -> Server:
    return server[0]


@pytest.fixture
def client(server: tuple[Server, str]) -> Client:
    def make(
        service: str, *, key: str = "operator", secret: str = "operator", token: str | None = None
    ) -> Any:
        return boto3.client(
            service,
            endpoint_url=server[1],
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(retries={"total_max_attempts": 1}),
        )

    return make


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: Any = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def deploy(client: Client, name: str, resources: dict[str, Any], **rest: Any) -> Any:
    """Create or update a stack; its description once it is done."""
    cloudformation = client("cloudformation")
    body = json.dumps({"Resources": resources, **rest})
    capabilities = ["CAPABILITY_NAMED_IAM"]
    try:
        cloudformation.describe_stacks(StackName=name)
        cloudformation.update_stack(StackName=name, TemplateBody=body, Capabilities=capabilities)
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        cloudformation.create_stack(StackName=name, TemplateBody=body, Capabilities=capabilities)
    while (stack := cloudformation.describe_stacks(StackName=name)["Stacks"][0])["StackStatus"].endswith(
        "_IN_PROGRESS"
    ):
        time.sleep(0.1)
    return stack


def reasons(client: Client, name: str) -> list[str]:
    events = client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return [event["ResourceStatusReason"] for event in events if "ResourceStatusReason" in event]


def parameter(value: Any = "x", **attributes: Any) -> dict[str, Any]:
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}, **attributes}


# -- what is not there


@pytest.mark.parametrize(
    ("service", "operation"),
    [("imagebuilder", "list_images"), ("dlm", "get_lifecycle_policies"), ("cloudformation", "list_types")],
)
def test_what_is_missing_is_refused_and_never_tried_again(
    client: Client, service: str, operation: str
) -> None:
    status, _, _ = refused(getattr(client(service), operation))
    assert 400 <= status < 500


def test_listener_rules_are_refused(client: Client) -> None:
    told = refused(
        client("elbv2").create_rule, ListenerArn="l", Conditions=[], Priority=1, Actions=[{"Type": "forward"}]
    )
    assert told == (400, "OperationNotPermitted", "Listener rules are not supported by the local cloud.")


@pytest.mark.parametrize(("tier", "most"), [({}, 4096), ({"Tier": "Advanced"}, 8192)])
def test_a_parameter_is_as_long_as_its_tier_allows(client: Client, tier: dict[str, str], most: int) -> None:
    def put(value: str) -> None:
        client("ssm").put_parameter(Name="/p", Type="String", Value=value, Overwrite=True, **tier)

    put("x" * most)
    for longer in ("x" * (most + 1), "\u00e4" * (most // 2 + 1)):
        status, code, message = refused(put, value=longer)
        assert (status, code) == (400, "ValidationException")
        assert f"support a maximum parameter value of {most} characters" in message


def test_user_data_is_as_long_as_an_instance_can_have(client: Client) -> None:
    ec2 = client("ec2")
    image = ec2.register_image(Name="own")["ImageId"]

    def launch(size: int) -> None:
        ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, UserData="x" * size)

    def template(size: int) -> None:
        data = {"UserData": base64.b64encode(b"x" * size).decode()}
        ec2.create_launch_template(LaunchTemplateName=f"of-{size}", LaunchTemplateData=data)

    def version(size: int) -> None:
        data = {"UserData": base64.b64encode(b"x" * size).decode()}
        ec2.create_launch_template_version(LaunchTemplateName="of-16384", LaunchTemplateData=data)

    for make, code in (
        (launch, "InvalidParameterValue"),
        (template, "InvalidUserData.Malformed"),
        (version, "InvalidUserData.Malformed"),
    ):
        make(16384)
        assert refused(make, size=16385) == (400, code, "User data is limited to 16384 bytes")
    assert len(ec2.describe_launch_templates()["LaunchTemplates"]) == 1


def test_an_unsupported_type_is_rolled_back_with_its_reason(client: Client) -> None:
    resources = {
        "Fine": parameter(),
        "Bad": {"Type": "AWS::Backup::BackupVault", "Properties": {}, "DependsOn": "Fine"},
    }
    assert deploy(client, "s", resources)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "AWS::Backup::BackupVault is not supported by the local cloud" in reasons(client, "s")
    assert not client("ssm").describe_parameters()["Parameters"]


@pytest.mark.parametrize(
    ("kind", "properties", "reason"),
    [
        ("AWS::S3::Bucket", {"AccelerateConfiguration": {}}, "does not support AccelerateConfiguration of"),
        ("AWS::EC2::Volume", {"AvailabilityZone": "us-east-1a", "Size": 1, "X": 1}, "does not support X"),
        ("AWS::EC2::SecurityGroup", {"GroupDescription": "d", "VpcId": "vpc-0"}, "vpc-0"),
        ("AWS::SSM::Parameter", {"Type": "String"}, '"Value"'),
        ("AWS::DynamoDB::Table", {"BillingMode": "PROVISIONED"}, "no tables but those with BillingMode PAY"),
        (
            "AWS::DynamoDB::Table",
            {"BillingMode": "PAY_PER_REQUEST", "StreamSpecification": {}},
            "does not support StreamSpecification of",
        ),
    ],
)
def test_properties_that_would_be_lost_are_refused(
    client: Client, kind: str, properties: dict[str, Any], reason: str
) -> None:
    stack = deploy(client, "s", {"R": {"Type": kind, "Properties": properties}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any(reason in text for text in reasons(client, "s")), reasons(client, "s")


# -- the engine


def test_a_failed_update_restores_replaces_and_removes(client: Client) -> None:
    first = {"Kept": parameter("one"), "Gone": parameter("two"), "Named": parameter("three")}
    first["Named"]["Properties"]["Name"] = "/old"
    assert deploy(client, "s", first)["StackStatus"] == "CREATE_COMPLETE"
    second: dict[str, Any] = {
        "Kept": parameter("changed"),
        "New": parameter("new"),
        "Named": parameter("three"),
        "Bad": {"Type": "AWS::X::Y", "DependsOn": ["Kept", "New", "Named"]},
    }
    second["Named"]["Properties"]["Name"] = "/new"
    assert deploy(client, "s", second)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    values = [entry["Value"] for entry in _parameters(client)]
    assert sorted(values) == ["one", "three", "two"]
    assert {entry["Name"] for entry in _parameters(client)} >= {"/old"}
    resources = client("cloudformation").describe_stack_resources(StackName="s")["StackResources"]
    assert {entry["LogicalResourceId"] for entry in resources} == {"Kept", "Gone", "Named"}


def test_a_failed_update_restores_what_is_to_stay(client: Client) -> None:
    kept = {"Kept": parameter("kept", DeletionPolicy="Retain")}
    deploy(client, "s", kept)
    bad = {
        "Kept": parameter("kept", DeletionPolicy="Delete"),
        "Bad": {"Type": "AWS::X::Y", "DependsOn": "Kept"},
    }
    assert deploy(client, "s", bad)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    client("cloudformation").delete_stack(StackName="s")
    assert [entry["Value"] for entry in _parameters(client)] == ["kept"]


def test_a_refused_change_is_rolled_back(client: Client) -> None:
    def volume(zone: str) -> dict[str, Any]:
        properties = {"AvailabilityZone": zone, "Size": 1, "VolumeType": "gp3"}
        return {"Volume": {"Type": "AWS::EC2::Volume", "Properties": properties}}

    deploy(client, "s", volume("us-east-1a"))
    before = client("ec2").describe_volumes()["Volumes"]
    assert deploy(client, "s", volume("us-east-1b"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    refusal = "Update to resource type AWS::EC2::Volume is not supported: AvailabilityZone"
    assert refusal in reasons(client, "s")
    assert client("ec2").describe_volumes()["Volumes"] == before


@pytest.mark.parametrize("name", sorted(Type.types))
def test_what_aws_replaces_for_a_change_is_replaced_here(name: str) -> None:
    """By CloudFormation's own schema of the type."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, name).schema
    replacing = {path.removeprefix("/properties/") for path in schema.get("createOnlyProperties", ())}
    kind = Type.types[name]
    assert replacing & kind.properties <= kind.immutable


def test_a_vpc_keeps_the_dhcp_options_that_it_is_given_instead_of_others(client: Client) -> None:
    def resources(domain: str) -> dict[str, Any]:
        return {
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
            "Options": {"Type": "AWS::EC2::DHCPOptions", "Properties": {"DomainName": domain}},
            "Given": {
                "Type": "AWS::EC2::VPCDHCPOptionsAssociation",
                "Properties": {"VpcId": {"Ref": "Vpc"}, "DhcpOptionsId": {"Ref": "Options"}},
            },
        }

    deploy(client, "s", resources("one"))
    assert deploy(client, "s", resources("two"))["StackStatus"] == "UPDATE_COMPLETE"
    described = client("cloudformation").describe_stack_resources(StackName="s")["StackResources"]
    made = {entry["LogicalResourceId"]: entry["PhysicalResourceId"] for entry in described}
    (vpc,) = client("ec2").describe_vpcs(VpcIds=[made["Vpc"]])["Vpcs"]
    assert vpc["DhcpOptionsId"] == made["Options"]


def _parameters(client: Client) -> list[dict[str, Any]]:
    ssm = client("ssm")
    names = [entry["Name"] for entry in ssm.describe_parameters()["Parameters"]]
    return list(ssm.get_parameters(Names=names)["Parameters"]) if names else []


def test_an_update_without_changes_says_so(client: Client) -> None:
    deploy(client, "s", {"P": parameter()})
    _, code, message = refused(deploy, client=client, name="s", resources={"P": parameter()})
    assert (code, message) == ("ValidationError", "No updates are to be performed.")


def test_exports_in_use_can_be_neither_changed_nor_deleted(client: Client) -> None:
    def outputs(value: str) -> dict[str, Any]:
        return {"O": {"Value": value, "Export": {"Name": "shared"}}}

    deploy(client, "a", {"P": parameter()}, Outputs=outputs("1"))
    deploy(client, "b", {"P": parameter({"Fn::ImportValue": "shared"})})
    assert {entry["Value"] for entry in _parameters(client)} == {"x", "1"}
    stack = deploy(client, "a", {"P": parameter()}, Outputs=outputs("2"))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    client("cloudformation").delete_stack(StackName="a")
    stack = client("cloudformation").describe_stacks(StackName="a")["Stacks"][0]
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert stack["StackStatusReason"] == "Export shared cannot be deleted as it is in use by b"


def test_deletion_policy_and_termination_protection(client: Client) -> None:
    cloudformation = client("cloudformation")
    deploy(client, "s", {"A": parameter("kept", DeletionPolicy="Retain"), "B": parameter("gone")})
    cloudformation.update_termination_protection(StackName="s", EnableTerminationProtection=True)
    _, _, message = refused(cloudformation.delete_stack, StackName="s")
    assert "TerminationProtection" in message
    cloudformation.update_termination_protection(StackName="s", EnableTerminationProtection=False)
    cloudformation.delete_stack(StackName="s")
    assert [entry["Value"] for entry in _parameters(client)] == ["kept"]


def test_intrinsic_functions(client: Client) -> None:
    value = {
        "Fn::Join": [
            ",",
            [
                {"Fn::Sub": "${AWS::Region}/${A}/${!B}"},
                {"Fn::Select": [1, {"Fn::Split": ["-", "a-b"]}]},
                {"Fn::If": ["No", "yes", "no"]},
                {"Fn::FindInMap": ["M", "k", "v"]},
                {"Fn::GetAtt": ["A", "Value"]},
                "{{resolve:ssm:/known}}",
            ],
        ]
    }
    client("ssm").put_parameter(Name="/known", Value="looked-up", Type="String")
    first = parameter("first")
    first["Properties"]["Name"] = "/a"
    deploy(
        client,
        "s",
        {"Z": parameter(value), "A": first, "Never": parameter("never", Condition="No")},
        Conditions={"No": {"Fn::Equals": ["1", "2"]}},
        Mappings={"M": {"k": {"v": "mapped"}}},
    )
    values = {entry["Value"] for entry in _parameters(client)}
    assert values == {"looked-up", "first", "us-east-1//a/${B},b,no,mapped,first,looked-up"}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"A": parameter({"Ref": "B"})}, "Unresolved resource dependencies [B]"),
        ({"A": parameter(DependsOn="B"), "B": parameter(DependsOn="A")}, "Circular dependency"),
        ({"A": parameter(DeletionPolicy="Snapshot")}, "does not support DeletionPolicy"),
        ({"A": parameter(Surprise=1)}, "unsupported attribute Surprise"),
    ],
)
def test_templates_that_cannot_be(client: Client, resources: dict[str, Any], message: str) -> None:
    _, code, text = refused(deploy, client=client, name="s", resources=resources)
    assert code == "ValidationError"
    assert message in text


def test_generated_secrets(client: Client) -> None:
    rules = {
        "ExcludeCharacters": "ABCDEFGHIJKLMNOPQRSTUVWXYZghijklmnopqrstuvwxyz",
        "ExcludePunctuation": True,
        "PasswordLength": 40,
        "RequireEachIncludedType": False,
    }
    resources = {
        name: {
            "Type": "AWS::SecretsManager::Secret",
            "Properties": {"Name": name, "GenerateSecretString": rule},
        }
        for name, rule in (
            ("hex", rules),
            ("json", {"SecretStringTemplate": '{"user": "me"}', "GenerateStringKey": "password"}),
        )
    }
    deploy(client, "s", resources)
    secrets = client("secretsmanager")
    value = secrets.get_secret_value(SecretId="hex")["SecretString"]
    assert len(value) == 40
    assert set(value) <= set("0123456789abcdef")
    filled = json.loads(secrets.get_secret_value(SecretId="json")["SecretString"])
    assert filled["user"] == "me"
    assert len(filled["password"]) == 32


# -- machines

NETWORK: dict[str, Any] = {
    "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.1.0.0/16"}},
    "Subnet": {
        "Type": "AWS::EC2::Subnet",
        "Properties": {
            "VpcId": {"Ref": "Vpc"},
            "CidrBlock": "10.1.0.0/24",
            "AvailabilityZone": "us-east-1a",
        },
    },
    "Door": {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {
            "GroupDescription": "door",
            "VpcId": {"Ref": "Vpc"},
            "SecurityGroupIngress": [
                {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "CidrIp": "192.0.2.0/24"}
            ],
            "SecurityGroupEgress": [],
        },
    },
    "Peer": {
        "Type": "AWS::EC2::SecurityGroupIngress",
        "Properties": {
            "GroupId": {"Ref": "Door"},
            "IpProtocol": "tcp",
            "FromPort": 5432,
            "ToPort": 5432,
            "SourceSecurityGroupId": {"Ref": "Door"},
        },
    },
    "Tunnel": {
        "Type": "AWS::EC2::SecurityGroupIngress",
        "Properties": {
            "GroupId": {"Ref": "Door"},
            "IpProtocol": "47",
            "SourceSecurityGroupId": {"Ref": "Door"},
        },
    },
    "Volume": {
        "Type": "AWS::EC2::Volume",
        "Properties": {
            "AvailabilityZone": "us-east-1a",
            "Size": 3,
            "VolumeType": "gp3",
            "Throughput": 250,
            "Encrypted": True,
        },
    },
    "Second": {
        "Type": "AWS::EC2::NetworkInterface",
        "Properties": {
            "SubnetId": {"Ref": "Subnet"},
            "PrivateIpAddress": "10.1.0.10",
            "GroupSet": [{"Ref": "Door"}],
        },
    },
    "Role": {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "sts:AssumeRole",
                        "Principal": {"Service": "ec2.amazonaws.com"},
                    }
                ],
            },
            "Policies": [
                {
                    "PolicyName": "Host",
                    "PolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Action": ["ec2:AttachVolume", "ec2:DetachVolume", "ec2:DescribeVolumes"],
                                "Resource": "*",
                                "Condition": {"StringEquals": {"aws:RequestedRegion": REGION}},
                            },
                            {
                                "Effect": "Allow",
                                "Action": "ec2:AttachNetworkInterface",
                                "Resource": "arn:aws:ec2:*:*:network-interface/*",
                            },
                            {
                                "Effect": "Allow",
                                "Action": "ec2:AttachNetworkInterface",
                                "Resource": "arn:aws:ec2:*:*:instance/*",
                                "Condition": {
                                    "StringEquals": {"aws:ResourceTag/aws:autoscaling:groupName": "g"}
                                },
                            },
                            {
                                "Effect": "Allow",
                                "Action": "s3:GetObject",
                                "Resource": "arn:aws:s3:::files/open/*",
                            },
                            {
                                "Effect": "Allow",
                                "Action": ["s3:GetObject", "s3:PutObject"],
                                "Resource": "arn:aws:s3:::files/own/*",
                            },
                            {
                                "Effect": "Allow",
                                "Action": "s3:ListBucket",
                                "Resource": "arn:aws:s3:::files",
                                "Condition": {"StringLike": {"s3:prefix": "own/*"}},
                            },
                            {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "*"},
                            {
                                "Effect": "Allow",
                                "Action": "autoscaling:UpdateAutoScalingGroup",
                                "Resource": "*",
                                "Condition": {
                                    "StringEquals": {"aws:ResourceTag/openqa:environment": "own"},
                                    "Null": {
                                        "autoscaling:VPCZoneIdentifiers": "false",
                                        "autoscaling:LaunchConfigurationName": "true",
                                        "autoscaling:MaxSize": "true",
                                        "autoscaling:MinSize": "true",
                                    },
                                },
                            },
                            {
                                "Effect": "Allow",
                                "Action": "events:PutEvents",
                                "Resource": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default",
                                "Condition": {
                                    "StringEquals": {"events:detail-type": "kind"},
                                    "ForAllValues:StringEquals": {"events:source": ["own"]},
                                },
                            },
                        ],
                    },
                }
            ],
        },
    },
    "Profile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [{"Ref": "Role"}]}},
}


def group(image: str, **properties: Any) -> dict[str, Any]:
    """A launch template and a group of one."""
    return {
        "Template": {
            "Type": "AWS::EC2::LaunchTemplate",
            "Properties": {
                "LaunchTemplateData": {
                    "ImageId": image,
                    "InstanceType": "t3.small",
                    "NetworkInterfaces": [
                        {"DeviceIndex": 0, "AssociatePublicIpAddress": False, "Groups": [{"Ref": "Door"}]}
                    ],
                    "IamInstanceProfile": {"Arn": {"Fn::GetAtt": ["Profile", "Arn"]}},
                    "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
                    "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 12}}],
                }
            },
        },
        "Group": {
            "Type": "AWS::AutoScaling::AutoScalingGroup",
            "Properties": {
                "AutoScalingGroupName": "g",
                "MinSize": "1",
                "MaxSize": "2",
                "VPCZoneIdentifier": [{"Ref": "Subnet"}],
                "Tags": [{"Key": "openqa:environment", "Value": "own", "PropagateAtLaunch": True}],
                "LaunchTemplate": {
                    "LaunchTemplateId": {"Ref": "Template"},
                    "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]},
                },
                **properties,
            },
        },
    }


@pytest.fixture
def image(aws: Server) -> str:
    return str(aws.client("ec2").register_image(Name="base")["ImageId"])


@pytest.fixture
def host(aws: Server, client: Client, image: str) -> Instance:
    """A running instance of a group, and the network that it is in."""
    stack = deploy(client, "hosts", {**NETWORK, **group(image)})
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(client, "hosts")
    (instance,) = aws.cloud.instances()
    aws.cloud.set_state(instance.id, "running")
    (instance,) = aws.cloud.instances()
    return instance


def physical(client: Client, name: str) -> str:
    answer = client("cloudformation").describe_stack_resource(StackName="hosts", LogicalResourceId=name)
    return str(answer["StackResourceDetail"]["PhysicalResourceId"])


def test_the_runtime_sees_what_the_launch_template_says(aws: Server, host: Instance) -> None:
    assert host.state == "running"
    assert host.root_gib == 12
    assert host.volumes == ()
    assert host.metadata.token_required
    assert host.metadata.hop_limit == 1
    assert host.role is not None
    assert host.target_lifecycle_state == "InService"
    assert host.tags["aws:autoscaling:groupName"] == "g"
    assert [volume.size_gib for volume in aws.cloud.volumes()] == [3]


def test_security_groups_become_addresses(aws: Server, host: Instance) -> None:
    (firewall,) = aws.cloud.firewalls()
    assert firewall.address == host.address
    assert firewall.egress == ()
    peers = {rule.first_port: set(rule.peers) for rule in firewall.ingress}
    assert peers[80] == {IPv4Network("192.0.2.0/24")}
    # The second interface is a member too, though it is not attached yet.
    assert peers[5432] == {IPv4Network(f"{host.address}/32"), IPv4Network("10.1.0.10/32")}
    # A protocol without ports is let in alone, and from the same.
    (gre,) = (rule for rule in firewall.ingress if rule.protocol == "47")
    assert (gre.first_port, gre.last_port, set(gre.peers)) == (0, 65535, peers[5432])


def test_hosts_of_a_mesh_find_each_other(client: Client, host: Instance) -> None:
    assert mesh.peers(client("ec2"), group="g", own=host.address) == frozenset()
    stranger = IPv4Address("10.1.0.10")
    with pytest.raises(HostError, match="does not list this one"):
        mesh.peers(client("ec2"), group="g", own=stranger)
    client("ec2").terminate_instances(InstanceIds=[host.id])
    with pytest.raises(HostError, match="does not list this one"):
        mesh.peers(client("ec2"), group="g", own=host.address)


def test_volumes_attach_when_the_runtime_says_so(aws: Server, client: Client, host: Instance) -> None:
    ec2, volume = client("ec2"), physical(client, "Volume")

    def state() -> str:
        found = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
        return str(found["Attachments"][0]["State"]) if found["Attachments"] else str(found["State"])

    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Throughput"] == 250
    ec2.attach_volume(VolumeId=volume, InstanceId=host.id, Device="/dev/sdf")
    assert state() == "attaching"
    ((attachment,),) = [instance.volumes for instance in aws.cloud.instances()]
    assert (attachment.device, attachment.size_gib, attachment.state) == ("/dev/sdf", 3, "attaching")
    aws.cloud.attached(volume)
    assert state() == "attached"
    _, code, _ = refused(ec2.attach_volume, VolumeId=volume, InstanceId=host.id, Device="/dev/sdg")
    assert code == "VolumeInUse"
    ec2.detach_volume(VolumeId=volume)
    assert state() == "detaching"
    aws.cloud.detached(volume)
    assert state() == "available"


def test_interfaces_attach_when_the_runtime_says_so(aws: Server, client: Client, host: Instance) -> None:
    ec2, interface = client("ec2"), physical(client, "Second")

    def describe() -> Any:
        return ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]

    attach = {"NetworkInterfaceId": interface, "InstanceId": host.id, "DeviceIndex": 1}
    ec2.attach_network_interface(**attach)
    assert describe()["Attachment"]["Status"] == "attaching"
    aws.cloud.attached(interface)
    assert describe()["Attachment"]["Status"] == "attached"
    (instance,) = aws.cloud.instances()
    assert instance.interfaces[1].address == IPv4Address("10.1.0.10")
    _, code, _ = refused(ec2.attach_network_interface, **attach)
    assert code == "InvalidNetworkInterface.InUse"
    ec2.detach_network_interface(AttachmentId=describe()["Attachment"]["AttachmentId"])
    assert describe()["Status"] == "in-use"
    aws.cloud.detached(interface)
    assert describe()["Status"] == "available"


def test_nothing_is_attached_to_an_instance_that_is_not_running_yet(client: Client, host: Instance) -> None:
    ec2 = client("ec2")
    launched = ec2.run_instances(ImageId=host.image, SubnetId=host.subnet, MinCount=1, MaxCount=1)
    pending = launched["Instances"][0]["InstanceId"]
    volume = {"VolumeId": physical(client, "Volume"), "Device": "/dev/sdf"}
    told = refused(ec2.attach_volume, InstanceId=pending, **volume)
    assert told == (400, "IncorrectState", f"Instance '{pending}' is not 'running'.")
    interface = {"NetworkInterfaceId": physical(client, "Second"), "DeviceIndex": 1}
    told = refused(ec2.attach_network_interface, InstanceId=pending, **interface)
    assert told[1] == "IncorrectInstanceState"


def test_what_a_terminated_instance_held_is_free_again(aws: Server, client: Client, host: Instance) -> None:
    ec2, volume, interface = client("ec2"), physical(client, "Volume"), physical(client, "Second")
    ec2.attach_volume(VolumeId=volume, InstanceId=host.id, Device="/dev/sdf")
    ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=host.id, DeviceIndex=1)
    aws.cloud.set_state(host.id, "terminated")
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"
    found = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
    assert found["Status"] == "available"
    # And the group replaces it.
    (other,) = aws.cloud.instances()
    assert other.id != host.id


def test_an_unknown_image_fails_the_group_with_its_reason(client: Client) -> None:
    stack = deploy(client, "hosts", {**NETWORK, **group("ami-00000000")})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("Group did not stabilize" in r and "ami-00000000" in r for r in reasons(client, "hosts"))


def test_a_new_template_version_reaches_the_group_but_no_instance(
    aws: Server, client: Client, host: Instance, image: str
) -> None:
    changed = group(image)
    changed["Template"]["Properties"]["LaunchTemplateData"]["InstanceType"] = "t3.large"
    assert deploy(client, "hosts", {**NETWORK, **changed})["StackStatus"] == "UPDATE_COMPLETE"
    described = client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"][0]
    assert described["LaunchTemplate"]["Version"] == "2"
    assert described["Instances"][0]["LaunchTemplate"]["Version"] == "1"
    assert [instance.id for instance in aws.cloud.instances()] == [host.id]


def test_groups_and_activities_are_told_page_by_page(client: Client, host: Instance) -> None:
    scaling = client("autoscaling")
    (own,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    sizes = {"MinSize": 0, "MaxSize": 9, "DesiredCapacity": 0, "VPCZoneIdentifier": own["VPCZoneIdentifier"]}
    template = own["Instances"][0]["LaunchTemplate"]
    del template["LaunchTemplateName"]
    names = [f"group-{number}" for number in range(50)]
    for name in names:
        scaling.create_auto_scaling_group(AutoScalingGroupName=name, LaunchTemplate=template, **sizes)

    def describe(**more: Any) -> tuple[int, str | None]:
        answer = scaling.describe_auto_scaling_groups(**more)
        return len(answer["AutoScalingGroups"]), answer.get("NextToken")

    size, more = describe()
    assert (size, describe(NextToken=more)) == (50, (1, None))
    assert describe(MaxRecords=100) == (51, None)
    assert describe(AutoScalingGroupNames=names) == (50, None)
    assert describe(AutoScalingGroupNames=[*names, "g"], MaxRecords=51) == (51, None)
    assert refused(describe, AutoScalingGroupNames=[*names, "g"])[1] == "ValidationError"
    assert refused(describe, MaxRecords=101)[1] == "ValidationError"

    activities = scaling.describe_scaling_activities
    scaling.set_desired_capacity(AutoScalingGroupName="group-0", DesiredCapacity=3)
    first = activities(AutoScalingGroupName="group-0", MaxRecords=2)
    rest = activities(AutoScalingGroupName="group-0", MaxRecords=2, NextToken=first["NextToken"])
    assert (len(first["Activities"]), len(rest["Activities"]), rest.get("NextToken")) == (2, 1, None)
    assert refused(activities, MaxRecords=101)[1] == "ValidationError"


def test_a_group_replaces_in_the_only_order_that_it_knows(client: Client, host: Instance) -> None:
    scaling = client("autoscaling")

    def follow(least: int, most: int) -> None:
        policy = {"MinHealthyPercentage": least, "MaxHealthyPercentage": most}
        scaling.update_auto_scaling_group(AutoScalingGroupName="g", InstanceMaintenancePolicy=policy)

    follow(0, 100)
    _, code, message = refused(follow, least=100, most=110)
    assert (code, "knows no InstanceMaintenancePolicy" in message) == ("ValidationError", True)
    (own,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert own["InstanceMaintenancePolicy"] == {"MinHealthyPercentage": 0, "MaxHealthyPercentage": 100}


def test_a_protected_instance_keeps_its_group(aws: Server, client: Client, host: Instance) -> None:
    autoscaling, cloudformation = client("autoscaling"), client("cloudformation")
    protect = {"AutoScalingGroupName": "g", "InstanceIds": [host.id]}
    autoscaling.set_instance_protection(**protect, ProtectedFromScaleIn=True)
    cloudformation.delete_stack(StackName="hosts")
    assert any("are protected from scale-in" in reason for reason in reasons(client, "hosts"))
    autoscaling.set_instance_protection(**protect, ProtectedFromScaleIn=False)
    with FakeRuntime(aws):
        cloudformation.delete_stack(StackName="hosts")
    assert not aws.autoscaling.groups


def test_a_group_that_was_deleted_by_hand_goes_with_its_stack(
    aws: Server, client: Client, host: Instance
) -> None:
    """As operators delete fleets, whose hosts are protected: docs/operating.md, "Remove a deployment"."""
    with FakeRuntime(aws):
        client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName="g", ForceDelete=True)
        client("cloudformation").delete_stack(StackName="hosts")
    assert "does not exist" in refused(client("cloudformation").describe_stacks, StackName="hosts")[2]


# -- instances' permissions


def as_host(aws: Server, client: Client, host: Instance, service: str) -> Any:
    credentials = aws.cloud.credentials(host.id)
    assert credentials is not None
    assert aws.cloud.credentials(host.id) == credentials
    return client(service, key=credentials.access_key, secret=credentials.secret_key, token=credentials.token)


def test_an_instance_may_do_what_its_role_may(aws: Server, client: Client, host: Instance) -> None:
    identity = as_host(aws, client, host, "sts").get_caller_identity()["Arn"]
    assert identity.endswith(f":assumed-role/{host.role}/{host.id}")
    ec2 = as_host(aws, client, host, "ec2")
    ec2.attach_volume(VolumeId=physical(client, "Volume"), InstanceId=host.id, Device="/dev/sdf")
    ec2.attach_network_interface(
        NetworkInterfaceId=physical(client, "Second"), InstanceId=host.id, DeviceIndex=1
    )
    client("ssm").put_parameter(Name="/p", Value="v", Type="String")
    assert as_host(aws, client, host, "ssm").get_parameter(Name="/p")["Parameter"]["Value"] == "v"


def test_an_instance_sends_its_own_events_and_a_rule_logs_them(
    aws: Server, client: Client, host: Instance
) -> None:
    log = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/events/log"
    writers = json.dumps({"Version": "2012-10-17", "Statement": []})
    resources: dict[str, Any] = {
        "Log": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/aws/events/log"}},
        "Writers": {
            "Type": "AWS::Logs::ResourcePolicy",
            "Properties": {"PolicyName": "writers", "PolicyDocument": writers},
        },
        "Rule": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "Name": "rule",
                "EventPattern": {"source": ["own"]},
                "Targets": [{"Id": "old", "Arn": log}, {"Id": "log", "Arn": log}],
            },
        },
    }
    assert deploy(client, "events", resources)["StackStatus"] == "CREATE_COMPLETE", reasons(client, "events")
    resources["Rule"]["Properties"]["Targets"] = [{"Id": "log", "Arn": log}]
    assert deploy(client, "events", resources)["StackStatus"] == "UPDATE_COMPLETE", reasons(client, "events")

    send = as_host(aws, client, host, "events").put_events
    own = {"Source": "own", "DetailType": "kind", "Detail": '{"reason": "why"}'}
    assert send(Entries=[own])["FailedEntryCount"] == 0
    client("events").put_events(Entries=[{**own, "Source": "other"}])
    for change in ({"Source": "other"}, {"DetailType": "other"}, {"EventBusName": "other"}):
        assert "is not authorized to perform: events:PutEvents" in refused(send, Entries=[own | change])[2]
        assert "is not authorized" in refused(send, Entries=[own, own | change])[2]
    (logged,) = client("logs").filter_log_events(logGroupName="/aws/events/log")["events"]
    assert json.loads(logged["message"])["detail"] == {"reason": "why"}

    client("cloudformation").delete_stack(StackName="events")
    while client("logs").describe_log_groups()["logGroups"]:
        time.sleep(0.1)
    assert not client("events").list_rules()["Rules"]
    assert not client("logs").describe_resource_policies()["resourcePolicies"]


def test_an_instance_may_do_nothing_else(aws: Server, client: Client, host: Instance) -> None:
    parameters: dict[str, Any]
    for service, operation, parameters, action in (
        ("ec2", "describe_instances", {}, "ec2:DescribeInstances"),
        ("ec2", "detach_network_interface", {"AttachmentId": "x"}, "ec2:DetachNetworkInterface"),
        ("ssm", "put_parameter", {"Name": "/p", "Value": "v", "Type": "String"}, "ssm:PutParameter"),
        ("secretsmanager", "get_secret_value", {"SecretId": "s"}, "secretsmanager:GetSecretValue"),
        ("cloudwatch", "put_metric_data", {"Namespace": "n", "MetricData": []}, "cloudwatch:PutMetricData"),
        (
            "autoscaling",
            "set_instance_health",
            {"InstanceId": host.id, "HealthStatus": "Unhealthy"},
            "autoscaling:SetInstanceHealth",
        ),
    ):
        status, _, message = refused(getattr(as_host(aws, client, host, service), operation), **parameters)
        assert status == 403
        assert f"{host.role}/{host.id} is not authorized to perform: {action} on resource" in message


def test_conditions_see_how_a_group_is_changed(aws: Server, client: Client, host: Instance) -> None:
    change = as_host(aws, client, host, "autoscaling").update_auto_scaling_group
    own = {"AutoScalingGroupName": "g", "VPCZoneIdentifier": physical(client, "Subnet")}
    change(**own)
    for more in ({"MinSize": 0}, {"MaxSize": 3}, {"LaunchConfigurationName": "other"}):
        assert "is not authorized" in refused(change, **own, **more)[2]
    tag = {"ResourceType": "auto-scaling-group", "ResourceId": "g", "PropagateAtLaunch": True}
    client("autoscaling").create_or_update_tags(Tags=[{**tag, "Key": "openqa:environment", "Value": "other"}])
    assert "is not authorized" in refused(change, **own)[2]


def test_files_in_buckets(aws: Server, client: Client, host: Instance) -> None:
    operator, s3 = client("s3"), as_host(aws, client, host, "s3")
    operator.create_bucket(Bucket="files")
    for key in ("open/file", "secret/file"):
        operator.put_object(Bucket="files", Key=key, Body=b"text")
    assert s3.get_object(Bucket="files", Key="open/file")["Body"].read() == b"text"
    assert refused(s3.get_object, Bucket="files", Key="secret/file")[0] == 403
    assert refused(s3.put_object, Bucket="files", Key="open/file", Body=b"")[0] == 403
    # Who may not list a bucket is not told that something is missing.
    assert refused(s3.get_object, Bucket="files", Key="open/none")[0] == 403
    assert refused(operator.get_object, Bucket="files", Key="open/none")[0] == 404
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::files/*"}
    operator.put_bucket_policy(Bucket="files", Policy=json.dumps({"Statement": [deny]}))
    assert refused(s3.get_object, Bucket="files", Key="open/file")[0] == 403
    assert refused(operator.get_object, Bucket="files", Key="open/file")[0] == 403


@pytest.mark.parametrize(
    ("change", "delivered"),
    [
        ({}, True),
        ({"Resource": "arn:aws:s3:::logs/other/*"}, False),
        ({"Principal": {"Service": "another.amazonaws.com"}}, False),
        ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::another"}}}, False),
        ({"Effect": "Deny", "Principal": "*"}, False),
    ],
)
def test_a_buckets_policy_decides_whether_access_logs_are_delivered(
    aws: Server, client: Client, change: dict[str, Any], delivered: bool
) -> None:
    s3 = client("s3")
    for name in ("files", "logs"):
        s3.create_bucket(Bucket=name)
    logging = {"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": "own/"}}
    s3.put_bucket_logging(Bucket="files", BucketLoggingStatus=logging)
    s3.list_objects_v2(Bucket="files")
    assert "Contents" not in s3.list_objects_v2(Bucket="logs")
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::logs/own/*",
        "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::files"}},
    }
    s3.put_bucket_policy(Bucket="logs", Policy=json.dumps({"Statement": [allow | change]}))
    s3.list_objects_v2(Bucket="files")
    assert ("Contents" in s3.list_objects_v2(Bucket="logs")) is delivered


@pytest.mark.parametrize("token", ["another", None])
def test_an_instances_key_is_of_no_use_without_its_token(
    aws: Server, client: Client, host: Instance, token: str | None
) -> None:
    credentials = aws.cloud.credentials(host.id)
    assert credentials is not None
    sts = client("sts", key=credentials.access_key, secret=credentials.secret_key, token=token)
    status, _, message = refused(sts.get_caller_identity)
    assert (status, message) == (403, "The security token included in the request is invalid.")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("Credential=AKIANOBODY/20260101/us-east-1/{}/aws4_request", "The security token included in the"),
        (None, "Request is missing Authentication Token"),
    ],
)
@pytest.mark.parametrize("service", ["sts", "s3"])
def test_by_its_own_names_aws_answers_no_strangers(
    server: tuple[Server, str], service: str, key: str | None, message: str
) -> None:
    """Those are the names that instances use, each with its role's credentials; operators use another."""
    query = "Action=GetCallerIdentity&Version=2011-06-15" if service == "sts" else ""
    signature = {"Authorization": f"AWS4-HMAC-SHA256 {key.format(service)}, Signature=0"} if key else {}
    told = {}
    for host in (f"{service}.us-east-1.amazonaws.com", "localhost"):
        request = urllib.request.Request(f"{server[1]}/?{query}", headers={"Host": host, **signature})
        try:
            with urllib.request.urlopen(request) as answer:
                told[host] = (answer.status, "")
        except urllib.error.HTTPError as error:
            told[host] = (error.code, error.read().decode())
    status, text = told[f"{service}.us-east-1.amazonaws.com"]
    assert status == 403
    assert message in text
    assert told["localhost"][0] == 200


def test_who_copies_a_file_must_be_allowed_to_read_it(aws: Server, client: Client, host: Instance) -> None:
    operator, s3 = client("s3"), as_host(aws, client, host, "s3")
    operator.create_bucket(Bucket="files")
    for key in ("open/file", "secret/file"):
        operator.put_object(Bucket="files", Key=key, Body=b"text")
    s3.copy_object(Bucket="files", Key="own/copy", CopySource="files/open/file")
    assert s3.get_object(Bucket="files", Key="own/copy")["Body"].read() == b"text"
    told = refused(s3.copy_object, Bucket="files", Key="own/copy", CopySource="files/secret/file")
    assert "is not authorized to perform: s3:GetObject on resource: arn:aws:s3:::files/secret/file" in told[2]


def test_a_bucket_is_listed_below_a_prefix_alone(aws: Server, client: Client, host: Instance) -> None:
    operator, s3 = client("s3"), as_host(aws, client, host, "s3")
    operator.create_bucket(Bucket="files")
    s3.put_object(Bucket="files", Key="own/file", Body=b"text")
    listed = s3.list_objects_v2(Bucket="files", Prefix="own/")["Contents"]
    assert [entry["Key"] for entry in listed] == ["own/file"]
    for options in ({"Prefix": "open/"}, {}):
        assert "s3:ListBucket on resource" in refused(s3.list_objects_v2, Bucket="files", **options)[2]
    # Where it may list, it is told what is missing.
    assert refused(s3.get_object, Bucket="files", Key="own/none")[0] == 404
    assert refused(s3.get_object, Bucket="files", Key="open/none")[0] == 403
