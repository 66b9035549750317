"""What each stack holds, in detail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, CfnParameter, Stack
from constructs import self_healing_host
from constructs.front_door import TLS_POLICY
from constructs.host_document import webui_document
from constructs.machine_image import machine_image
from constructs.schedule_document import schedule_document
from constructs.security_groups import SecurityGroups
from moto.elbv2.ssl_policies import SSL_POLICIES

import settings
from fleet import agent, catalogue, controller, facts, openqa_api, warm
from images.recipe import Recipe
from localcloud.aws.iam import Need, judge
from settings import Environment, load
from settings.messages import Rule, Schedule
from tests.templates.synthesis import (
    ROOT,
    Json,
    Synthesized,
    document,
    findings,
    reference,
    rendered,
    synthesize,
)
from tests.userdata.machine import DOCUMENTS
from userdata.host import certificates, messages, minion, ready, roles, space, volume
from userdata.host.backup import assets, base, rehearsal
from userdata.host.content import refresh
from userdata.host.secrets import sign_in_client
from userdata.messages import fedora as messages_of_fedora
from userdata.messages import rules
from userdata.messages.rules import IDENTITY

GROUP = "AWS::AutoScaling::AutoScalingGroup"
TEMPLATE = "AWS::EC2::LaunchTemplate"


def changed(name: str, **changes: Any) -> Environment:
    return settings.load(name).model_copy(update=changes)


def only(found: list[Json]) -> Json:
    (one,) = found
    return one


def tags(properties: Json) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in properties["Tags"]}


def template(synthesized: Synthesized, part: str) -> Json:
    data: Json = only(synthesized.properties(TEMPLATE, part))["LaunchTemplateData"]
    return data


def fleet_template(synthesized: Synthesized, fleet: str) -> Json:
    found: list[Json] = [
        properties["LaunchTemplateData"]
        for properties in synthesized.properties(TEMPLATE, "workers")
        if document(properties["LaunchTemplateData"])["worker"]["fleet"] == fleet
    ]
    return only(found)


def fleet_group(synthesized: Synthesized, fleet: str) -> Json:
    name = f"openqa-{synthesized.environment.name}-fleet-{fleet}"
    return only(
        [group for group in synthesized.properties(GROUP, "workers") if group["AutoScalingGroupName"] == name]
    )


def subnet_zone(synthesized: Synthesized, subnet: Json) -> str:
    """Returns the zone of an imported subnet."""
    id = exported(synthesized)[subnet["Fn::ImportValue"]]
    zone: str = synthesized.templates["network"]["Resources"][id]["Properties"]["AvailabilityZone"]
    return zone


def actions(synthesized: Synthesized, part: str, kind: str = "AWS::IAM::") -> set[str]:
    return {
        action for _, statement in synthesized.statements(part, kind=kind) for action in statement["Action"]
    }


def span(alarm: Json) -> int:
    """Returns for how many seconds things must be bad until an alarm rings."""
    seconds: int = alarm["Period"] * alarm["EvaluationPeriods"]
    return seconds


def host_actions(synthesized: Synthesized, part: str) -> set[str]:
    """Returns what roles may do, without the operators' policies."""
    return actions(synthesized, part, "AWS::IAM::Role")


# dns


def test_zone_is_made_only_where_it_is_not_there(local: Synthesized, production: Synthesized) -> None:
    assert only(local.properties("AWS::Route53::HostedZone", "dns")) == {"Name": "localhost."}
    assert "dns" not in production.templates


@pytest.mark.parametrize(
    ("name", "policies"), [("dev", ("Delete", "Delete")), ("production", ("RetainExceptOnCreate", "Retain"))]
)
def test_a_zone_that_is_delegated_outlives_its_stack(
    tmp_path: Path, name: str, policies: tuple[str, str]
) -> None:
    domain = settings.load(name).domain
    assert domain
    made = synthesize(
        changed(name, domain=domain.model_copy(update={"hosted_zone_id": None})), tmp_path, check=False
    )
    (zone,) = made.resources("AWS::Route53::HostedZone", "dns").values()
    assert (zone["DeletionPolicy"], zone["UpdateReplacePolicy"]) == policies


def test_stacks(production: Synthesized) -> None:
    assert list(production.templates) == ["dashboard", "database", "network", "storage", "webui", "workers"]


def test_order_of_deployment(local: Synthesized) -> None:
    depends = {
        name.removeprefix("openqa-local-"): {
            other.removeprefix("openqa-local-")
            for other in artifact["dependencies"]
            if not other.endswith(".assets")
        }
        for name, artifact in local.manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert depends["network"] == depends["dns"] == set()
    assert depends["storage"] == {"network"}
    assert depends["database"] == {"network", "storage"}
    assert {"database", "dns"} <= depends["webui"]
    assert "webui" in depends["workers"]


# network


def test_subnets_follow_the_plan(environment: Synthesized) -> None:
    plan = environment.environment.network.subnets
    made = {
        (subnet["AvailabilityZone"], subnet["CidrBlock"])
        for subnet in environment.properties("AWS::EC2::Subnet", "network")
    }
    assert made == {(zone, str(cidr)) for half in (plan.public, plan.private) for zone, cidr in half.items()}


def test_a_zone_more_changes_nothing_else(tmp_path: Path, local: Synthesized) -> None:
    network = local.environment.network
    more = network.model_copy(update={"availability_zones": ("us-east-1c", *network.availability_zones)})
    after = synthesize(changed("local", network=more), tmp_path, check=False)
    kinds = ("AWS::EC2::Subnet", "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::Volume")
    for kind in kinds:
        assert local.resources(kind).items() <= after.resources(kind).items()


def test_hosts_take_the_time_from_their_own_link(environment: Synthesized) -> None:
    (options,) = environment.resources("AWS::EC2::DHCPOptions", "network")
    properties = only(environment.properties("AWS::EC2::DHCPOptions"))
    assert properties["NtpServers"] == ["169.254.169.123"]
    assert properties["DomainNameServers"] == ["AmazonProvidedDNS"]
    association = only(environment.properties("AWS::EC2::VPCDHCPOptionsAssociation"))
    (vpc,) = environment.resources("AWS::EC2::VPC")
    assert association["DhcpOptionsId"] == {"Ref": options.removeprefix("network/")}
    assert association["VpcId"] == {"Ref": vpc.removeprefix("network/")}


def public_subnets(made: Synthesized) -> set[str]:
    """Returns the subnets whose hosts reach the internet by public addresses of their own."""
    tables = [route["RouteTableId"] for route in made.properties("AWS::EC2::Route") if "GatewayId" in route]
    return {
        association["SubnetId"]["Ref"]
        for association in made.properties("AWS::EC2::SubnetRouteTableAssociation")
        if association["RouteTableId"] in tables
    }


def exported(made: Synthesized) -> dict[str, str | None]:
    """Returns the network's exports, each with the id of what it refers to."""
    return {
        output["Export"]["Name"]: output["Value"].get("Ref")
        for output in made.templates["network"]["Outputs"].values()
    }


def test_nat_gateway(production: Synthesized) -> None:
    gateway = only(production.properties("AWS::EC2::NatGateway"))
    subnet = production.templates["network"]["Resources"][gateway["SubnetId"]["Ref"]]["Properties"]
    assert subnet["AvailabilityZone"] == production.environment.network.zone
    public = public_subnets(production)
    assert gateway["SubnetId"]["Ref"] in public
    for group in production.properties(GROUP):
        for subnet in group["VPCZoneIdentifier"]:
            assert exported(production)[subnet["Fn::ImportValue"]] not in public


def test_public_ip_instead_of_nat(tmp_path: Path) -> None:
    network = settings.load("local").network.model_copy(update={"egress": "public-ip"})
    made = synthesize(changed("local", network=network), tmp_path, check=False)
    assert not made.properties("AWS::EC2::NatGateway")
    assert not made.properties("AWS::EC2::EIP")
    public = public_subnets(made)
    assert len(public) == 2
    for group in made.properties(GROUP):
        for subnet in group["VPCZoneIdentifier"]:
            assert exported(made)[subnet["Fn::ImportValue"]] in public
    for interface in made.properties("AWS::EC2::NetworkInterface"):
        assert exported(made)[interface["SubnetId"]["Fn::ImportValue"]] not in public


def test_a_public_address_is_had_by_those_hosts_that_need_it(environment: Synthesized) -> None:
    """Of their launch template: nothing else that is launched in a public subnet gets one."""
    for subnet in environment.properties("AWS::EC2::Subnet"):
        assert subnet["MapPublicIpOnLaunch"] is False
    public = environment.environment.network.egress == "public-ip"
    for properties in environment.properties(TEMPLATE):
        interface = only(properties["LaunchTemplateData"]["NetworkInterfaces"])
        assert interface["AssociatePublicIpAddress"] is public
        assert interface["DeleteOnTermination"] is True


def test_hosts_may_move_between_private_and_public_subnets(tmp_path: Path, production: Synthesized) -> None:
    network = production.environment.network.model_copy(update={"egress": "public-ip"})
    after = synthesize(changed("production", network=network), tmp_path, check=False)
    # CloudFormation refuses to take back an export that the stacks which come later still import.
    assert exported(production).keys() <= exported(after).keys()
    # There is a way out of either half while hosts move, also back after one that did not come up.
    assert public_subnets(production) == public_subnets(after)


@pytest.mark.parametrize(
    "change", [{"egress": "public-ip"}, {"availability_zones": ("us-east-1a", "us-east-1b", "us-east-1c")}]
)
def test_hosts_whose_subnets_change_are_of_an_old_template(
    tmp_path: Path, local: Synthesized, change: dict[str, Any]
) -> None:
    network = local.environment.network.model_copy(update=change)
    after = synthesize(changed("local", network=network), tmp_path, check=False)
    assert template(local, "workers") != template(after, "workers")


def test_s3_and_dynamodb_are_reached_without_the_internet(environment: Synthesized) -> None:
    endpoints = environment.properties("AWS::EC2::VPCEndpoint")
    begin = f"com.amazonaws.{environment.environment.region}"
    assert [endpoint["ServiceName"] for endpoint in endpoints] == [f"{begin}.s3", f"{begin}.dynamodb"]
    for endpoint in endpoints:
        assert endpoint["VpcEndpointType"] == "Gateway"
        assert len(endpoint["RouteTableIds"]) == len(environment.resources("AWS::EC2::RouteTable"))


def test_flow_logs(environment: Synthesized) -> None:
    assert only(environment.properties("AWS::EC2::FlowLog"))["TrafficType"] == "ALL"


def test_no_log_is_kept_for_ever(environment: Synthesized) -> None:
    groups = environment.properties("AWS::Logs::LogGroup")
    assert len(groups) == 2
    access = only(
        [
            bucket["Properties"]
            for name, bucket in environment.resources("AWS::S3::Bucket", "storage").items()
            if name.startswith("storage/BackupsLogs")
        ]
    )
    days = {group["RetentionInDays"] for group in groups}
    days |= {rule["ExpirationInDays"] for rule in access["LifecycleConfiguration"]["Rules"]}
    assert days == {7 if environment.environment.disposable else 90}


def test_between_groups(local: Synthesized) -> None:
    def pairs(kind: str, source: str, target: str) -> set[tuple[str, str, int, int]]:
        def name(value: Json) -> str:
            return re.sub(r"^SecurityGroups|[0-9A-F]{8}$", "", value["Fn::GetAtt"][0])

        return {
            (name(rule[source]), name(rule[target]), rule["FromPort"], rule["ToPort"])
            for rule in local.properties(kind)
        }

    expected = {
        ("LoadBalancer", "Webui", 80, 80),
        ("Worker", "Webui", 80, 80),
        ("Worker", "Webui", 873, 873),
        ("Webui", "Worker", 20013, 20013),
        ("Webui", "Database", 5432, 5432),
    }
    assert pairs("AWS::EC2::SecurityGroupIngress", "SourceSecurityGroupId", "GroupId") == expected
    assert pairs("AWS::EC2::SecurityGroupEgress", "GroupId", "DestinationSecurityGroupId") == expected


def test_no_builders_no_group_of_theirs() -> None:
    local = settings.load("local")
    made = SecurityGroups(Stack(App(), "stack"), "SecurityGroups", environment=local, vpc="vpc-0")
    assert (made.builder, local.builders) == (None, ())


def test_command_server_ports_follow_the_workers(production: Synthesized) -> None:
    most = max(
        fleet.workers(name) for fleet in production.environment.fleets for name in fleet.instance_types
    )
    rule = only(
        [
            rule
            for rule in production.properties("AWS::EC2::SecurityGroupIngress")
            if rule["FromPort"] == 20013
        ]
    )
    assert rule["ToPort"] == 20003 + 10 * most


def test_vnc_is_open_to_the_developers_alone(environment: Synthesized) -> None:
    group = only(
        [
            group
            for group in environment.properties("AWS::EC2::SecurityGroup")
            if "Worker hosts" in group["GroupDescription"]
        ]
    )
    most = max(
        fleet.workers(name) for fleet in environment.environment.fleets for name in fleet.instance_types
    )
    open_to = [
        (rule["CidrIp"], rule["IpProtocol"], rule["FromPort"], rule["ToPort"])
        for rule in group.get("SecurityGroupIngress", [])
    ]
    assert open_to == [
        (str(network), "tcp", 5991, 5990 + most) for network in environment.environment.developers
    ]


def test_load_balancer_lets_in_whom_the_environment_says(environment: Synthesized) -> None:
    group = only(
        [
            group
            for group in environment.properties("AWS::EC2::SecurityGroup")
            if "load balancer" in group["GroupDescription"]
        ]
    )
    asked = environment.environment
    networks = ["0.0.0.0/0"] if asked.public else [str(network) for network in asked.trusted]
    allowed = {
        (rule["CidrIp"], rule["IpProtocol"], rule["FromPort"], rule["ToPort"])
        for rule in group["SecurityGroupIngress"]
    }
    ports = (80, 443) if asked.domain else (80,)
    assert allowed == {(network, "tcp", port, port) for network in networks for port in ports}
    assert only(group["SecurityGroupEgress"])["CidrIp"] == "255.255.255.255/32"


def test_of_the_internet_hosts_reach_the_web_and_the_broker_alone(environment: Synthesized) -> None:
    """But workers, whose systems under test may download whatever they like."""
    schedule = environment.environment.schedule
    for group in environment.properties("AWS::EC2::SecurityGroup"):
        reached = {
            (rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"))
            for rule in group["SecurityGroupEgress"]
            if rule["CidrIp"] == "0.0.0.0/0"
        }
        web = {("tcp", port, port) for port in (80, 443)}
        by_group = {
            "The load balancer in front of the web UI": set(),
            "The web UI host and its fixed interface": web
            | ({("tcp", schedule.port, schedule.port)} if schedule else set()),
            "Worker hosts": {("-1", None, None)},
        }
        assert reached == by_group.get(group["GroupDescription"].partition(": ")[2], web)


def test_private_names(environment: Synthesized) -> None:
    name = f"{environment.environment.name}.openqa.internal."
    zone = only(environment.properties("AWS::Route53::HostedZone", "network"))
    assert zone["Name"] == name
    assert len(zone["VPCs"]) == 1
    storage = environment.templates["storage"]["Resources"]
    addresses = {}
    for record in environment.properties("AWS::Route53::RecordSet", "storage"):
        ((interface, attribute),) = (value["Fn::GetAtt"] for value in record["ResourceRecords"])
        assert attribute == "PrimaryPrivateIpAddress"
        addresses[record["Name"]] = storage[interface]["Properties"]["PrivateIpAddress"]
    assert addresses == {
        f"database.{name}": str(environment.environment.database.address),
        f"webui.{name}": str(environment.environment.webui.address),
    }


def test_the_vpc_resolves_private_names(environment: Synthesized) -> None:
    """A private zone takes both: Route 53's developer guide, "Working with private hosted zones"."""
    vpc = only(environment.properties("AWS::EC2::VPC"))
    assert vpc["EnableDnsHostnames"] is vpc["EnableDnsSupport"] is True


# storage


def test_volumes_and_interfaces(environment: Synthesized) -> None:
    asked = environment.environment
    volumes = environment.properties("AWS::EC2::Volume", "storage")
    assert {volume["Size"] for volume in volumes} == {asked.database.volume_gib, asked.webui.volume_gib}
    assert {volume["AvailabilityZone"] for volume in volumes} == {asked.network.zone}
    for fleet in asked.fleets:
        (disk,) = fleet_template(environment, fleet.name)["BlockDeviceMappings"]
        assert (disk["Ebs"]["VolumeSize"], disk["Ebs"]["Throughput"]) == (
            fleet.volume_size,
            fleet.volume_mibps,
        )
    throughput = {volume["Size"]: volume.get("Throughput") for volume in volumes}
    assert throughput == {asked.database.volume_gib: None, asked.webui.volume_gib: asked.webui.volume_mibps}
    interfaces = environment.properties("AWS::EC2::NetworkInterface", "storage")
    assert {interface["PrivateIpAddress"] for interface in interfaces} == {
        str(asked.database.address),
        str(asked.webui.address),
    }


def test_backups(environment: Synthesized) -> None:
    bucket = only(
        [
            bucket
            for bucket in environment.properties("AWS::S3::Bucket", "storage")
            if "VersioningConfiguration" in bucket
        ]
    )
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    days = environment.environment.backups.keep_days
    first, second = bucket["LifecycleConfiguration"]["Rules"]
    assert first["ExpirationInDays"] == first["NoncurrentVersionExpiration"]["NoncurrentDays"] == days
    assert first["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert second["ExpiredObjectDeleteMarker"] is True
    assert not {"Prefix", "TagFilters"} & (first.keys() | second.keys())
    assert bucket["BucketEncryption"]
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert not {"ObjectLockEnabled", "ReplicationConfiguration"} & bucket.keys()
    assert bucket["LoggingConfiguration"]
    assert "BackupBucket" in environment.templates["storage"]["Outputs"]


def backup_bucket(synthesized: Synthesized) -> Json:
    found = synthesized.properties("AWS::S3::Bucket", "storage")
    return only([bucket for bucket in found if "VersioningConfiguration" in bucket])


def with_backups(directory: Path, **changes: Any) -> Synthesized:
    asked = settings.load("production")
    backups = asked.backups.model_copy(update=changes)
    return synthesize(changed("production", backups=backups), directory)


def test_locked_backups(tmp_path: Path) -> None:
    made = with_backups(tmp_path, object_lock_days=14)
    bucket = backup_bucket(made)
    assert bucket["ObjectLockEnabled"] is True
    retention = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert retention == {"Days": 14, "Mode": "GOVERNANCE"}


def test_replicated_backups(replicated: Synthesized) -> None:
    rule = only(backup_bucket(replicated)["ReplicationConfiguration"]["Rules"])
    assert rule["Destination"] == {"Bucket": "arn:aws:s3:::elsewhere"}
    assert rule["DeleteMarkerReplication"] == {"Status": "Disabled"}
    policy = only(replicated.properties("AWS::IAM::RolePolicy", "storage"))["PolicyDocument"]
    to = only([s for s in policy["Statement"] if s["Resource"] == ["arn:aws:s3:::elsewhere/*"]])
    assert to["Action"] == ["s3:ReplicateObject", "s3:ReplicateTags"]
    assert findings(replicated.report, "violations") == []


def test_no_backup_is_left_out_of_what_is_copied(replicated: Synthesized) -> None:
    rule = only(backup_bucket(replicated)["ReplicationConfiguration"]["Rules"])
    assert (rule["Status"], rule["Filter"]) == ("Enabled", {"Prefix": ""})


def test_locked_backups_can_be_copied(replicated: Synthesized) -> None:
    """Which takes reading their locks: the S3 user guide, "Object Lock considerations", "Replication"."""
    needed = {"s3:GetObjectRetention", "s3:GetObjectLegalHold"}
    assert needed <= actions(replicated, "storage", "AWS::IAM::RolePolicy")


def test_snapshots(environment: Synthesized) -> None:
    details = only(environment.properties("AWS::DLM::LifecyclePolicy", "storage"))["PolicyDetails"]
    wanted = {tag["Key"]: tag["Value"] for tag in details["TargetTags"]}
    asked = environment.environment
    assert wanted == {"openqa:snapshots": f"openqa-{asked.name}-webui"}
    volumes = [
        volume
        for volume in environment.properties("AWS::EC2::Volume")
        if wanted.items() <= tags(volume).items()
    ]
    assert [volume["Size"] for volume in volumes] == [asked.webui.volume_gib]
    schedule = only(details["Schedules"])
    assert schedule["CreateRule"]["Interval"] == asked.backups.snapshot_hours
    assert schedule["RetainRule"] == {"Count": asked.backups.snapshots}


def test_snapshots_are_of_the_web_uis_volume_and_old_ones_can_go(environment: Synthesized) -> None:
    details = only(environment.properties("AWS::DLM::LifecyclePolicy", "storage"))["PolicyDetails"]
    (tag,) = details["TargetTags"]
    (role,) = (
        role
        for role in environment.properties("AWS::IAM::Role", "storage")
        if "dlm.amazonaws.com" in str(role["AssumeRolePolicyDocument"])
    )
    (policy,) = role["Policies"]
    rules = json.loads(
        re.sub(r'\{"Fn::Join": \["", \["([^"]*)", \{"Ref": "([^"]*)"\}\]\]\}', r'"\1\2"', json.dumps(policy))
    )["PolicyDocument"]
    region, account = environment.environment.region, environment.environment.account

    def allowed(action: str, resource: str, **tags: str) -> bool:
        context = {f"aws:resourcetag/{key}": [value] for key, value in tags.items()}
        return judge([rules], Need(action=f"ec2:{action}", resource=resource, context=context)) == "allowed"

    volumes = {
        id.partition("/")[2]: tags(volume["Properties"])
        for id, volume in environment.resources("AWS::EC2::Volume", "storage").items()
    }
    taken = [id for id in volumes if allowed("CreateSnapshot", f"arn:aws:ec2:{region}:{account}:volume/{id}")]
    assert taken == [id for id, given in volumes.items() if given.get(tag["Key"]) == tag["Value"]]
    snapshot = f"arn:aws:ec2:{region}::snapshot/snap-1"
    # A snapshot has its volume's tags, if they are copied.
    assert only(details["Schedules"])["CopyTags"] is True
    (id,) = taken
    assert allowed("DeleteSnapshot", snapshot, **volumes[id])
    assert not allowed("DeleteSnapshot", snapshot, **volumes[id] | {tag["Key"]: "openqa-other-webui"})
    assert not allowed("DeleteSnapshot", snapshot)


def test_other_hours_leave_no_snapshot_behind(tmp_path: Path, production: Synthesized) -> None:
    """Of a schedule with another name, DLM deletes none that exist: its user guide, "Modify … policies"."""
    made = with_backups(tmp_path, snapshot_hours=6)
    schedules = [
        only(only(each.properties("AWS::DLM::LifecyclePolicy"))["PolicyDetails"]["Schedules"])
        for each in (production, made)
    ]
    assert [schedule["CreateRule"]["Interval"] for schedule in schedules] == [24, 6]
    assert len({schedule["Name"] for schedule in schedules}) == 1


def test_no_snapshots(tmp_path: Path) -> None:
    made = with_backups(tmp_path, snapshots=0)
    assert not made.properties("AWS::DLM::LifecyclePolicy")


# What CloudFormation replaces a volume for:
# docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-volume.html
REPLACES_A_VOLUME = (
    "AvailabilityZone",
    "Encrypted",
    "KmsKeyId",
    "SnapshotId",
    "OutpostArn",
    "MultiAttachEnabled",
)


@pytest.mark.parametrize(
    "change",
    [
        {"database": {"volume_gib": 999}, "webui": {"volume_gib": 9999, "volume_mibps": 750}},
        {"database": {"instance_type": "m7i.xlarge"}, "webui": {"instance_type": "m7i.xlarge"}},
        {"network": {"availability_zones": ("us-east-1a", "us-east-1d")}},
        {"network": {"egress": "public-ip"}},
        {"backups": {"snapshots": 0, "keep_days": 7}},
        {"kind": "dev", "public": False, "domain": None},
    ],
    ids=lambda change: " ".join(change),
)
def test_no_change_of_settings_replaces_a_volume(
    production: Synthesized, tmp_path: Path, change: dict[str, Any]
) -> None:
    before = production.environment
    after = before.model_copy(
        update={
            key: getattr(before, key).model_copy(update=value) if isinstance(value, dict) else value
            for key, value in change.items()
        }
    )
    kept = production.resources("AWS::EC2::Volume")
    made = synthesize(after, tmp_path, check=False).resources("AWS::EC2::Volume")
    assert len(kept) == 2
    assert made.keys() == kept.keys()
    for id, known in kept.items():
        for property in REPLACES_A_VOLUME:
            assert made[id]["Properties"].get(property) == known["Properties"].get(property), property
        assert made[id]["Properties"]["Size"] >= known["Properties"]["Size"]


def test_secrets(local: Synthesized, production: Synthesized) -> None:
    def generators(synthesized: Synthesized) -> dict[str, Json]:
        return {
            secret["Name"]: secret["GenerateSecretString"]
            for secret in synthesized.properties("AWS::SecretsManager::Secret")
        }

    assert set(generators(local)) == {
        f"openqa/local/{name}" for name in ("database", "api-key", "worker-key")
    }
    made = generators(production)
    assert set(made) == {
        f"openqa/production/{name}" for name in ("database", "api-key", "worker-key", "sign-in")
    }
    assert made["openqa/production/database"] == {"ExcludePunctuation": True, "PasswordLength": 32}
    for name in ("api-key", "worker-key"):
        key = made[f"openqa/production/{name}"]
        assert set("0123456789abcdef") == set(
            "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        ) - set(key["ExcludeCharacters"])
        assert key["ExcludePunctuation"]
        assert key["PasswordLength"] == 32
        assert key["RequireEachIncludedType"] is False


def test_a_client_that_is_to_be_entered_can_be_read_until_then(production: Synthesized) -> None:
    """The web UI's host may start before: it reads what Secrets Manager generated."""
    (asked,) = (
        secret["GenerateSecretString"]
        for secret in production.properties("AWS::SecretsManager::Secret")
        if secret["Name"].endswith("/sign-in")
    )
    generated = json.loads(asked["SecretStringTemplate"]) | {asked["GenerateStringKey"]: "random"}
    assert sign_in_client(json.dumps(generated))["secret"] == "random"


# database and web UI


@pytest.mark.parametrize("role", ["database", "webui"])
def test_a_stateful_hosts_own_disk(tmp_path: Path, role: str) -> None:
    asked = settings.load("production")
    host = getattr(asked, role).model_copy(update={"root_gib": 70})
    made = synthesize(asked.model_copy(update={role: host}), tmp_path, check=False)
    (disk,) = template(made, role)["BlockDeviceMappings"]
    assert disk["Ebs"]["VolumeSize"] == 70


@pytest.mark.parametrize("part", ["database", "webui"])
def test_self_healing_host(environment: Synthesized, part: str) -> None:
    resource = only(list(environment.resources(GROUP, part).values()))
    group = resource["Properties"]
    assert group["AutoScalingGroupName"] == f"openqa-{environment.environment.name}-{part}"
    assert (group["MinSize"], group["MaxSize"]) == ("1", "1")
    assert len(group["VPCZoneIdentifier"]) == 1
    assert resource["CreationPolicy"] == {"ResourceSignal": {"Count": 1, "Timeout": "PT30M"}}
    update = resource["UpdatePolicy"]["AutoScalingRollingUpdate"]
    assert update["MinInstancesInService"] == 0
    assert update["WaitOnResourceSignals"] is True
    assert update["PauseTime"] == "PT30M"
    hooks = {hook["LifecycleHookName"]: hook for hook in group["LifecycleHookSpecificationList"]}
    boot = 300
    # What a host waits for, it may wait for: one that is given up cannot tell why, and the next begins anew.
    assert boot + volume.FREE_SECONDS + ready.SECONDS <= hooks["ready"]["HeartbeatTimeout"] == 1800
    # One whose schema is upgraded asks for more; a group waits for a hundred time-outs at most.
    assert boot + volume.FREE_SECONDS + ready.UPGRADE_SECONDS + ready.SECONDS < 100 * 1800


@pytest.mark.parametrize("part", ["database", "webui"])
def test_an_update_that_fails_rolls_back_and_starts_no_further_host(
    environment: Synthesized, part: str
) -> None:
    (group,) = environment.resources(GROUP, part).values()
    suspended = group["UpdatePolicy"]["AutoScalingRollingUpdate"]["SuspendProcesses"]
    assert {"HealthCheck", "ReplaceUnhealthy"} <= set(suspended)


def test_the_load_balancer_passes_requests_on_to_the_web_uis_host(environment: Synthesized) -> None:
    (target,) = environment.resources("AWS::ElasticLoadBalancingV2::TargetGroup", "webui")
    for part in environment.templates:
        for group in environment.properties(GROUP, part):
            expected = [{"Ref": target.removeprefix("webui/")}] if part == "webui" else None
            assert group.get("TargetGroupARNs") == expected


@pytest.mark.parametrize("part", ["database", "webui"])
def test_document_of_a_self_healing_host(production: Synthesized, part: str) -> None:
    made = document(template(production, part))
    (id,) = (name.split("/")[1] for name in production.resources(GROUP, part))
    assert made["environment"] == "production"
    assert made["role"] == part
    assert made["stack"] == f"openqa-production-{part}"
    assert made["resource"] == id
    assert made["group"] == f"openqa-production-{part}"
    assert made["hooks"] == {"launch": "ready", "terminate": "drain"}
    assert made["zone"] == "production.openqa.internal"
    assert made["volume"]["id"].startswith("${ImportValue openqa-production-storage:")
    assert made["interface"]["address"] == str(getattr(production.environment, part).address)
    assert (made["interface"]["prefix"], made["interface"]["gateway"]) == (20, "10.60.128.1")


@pytest.mark.parametrize("part", ["database", "webui"])
def test_a_host_writes_and_reads_its_own_backups_and_deletes_none(
    environment: Synthesized, part: str
) -> None:
    backup = document(template(environment, part))["backup"]
    assert backup["prefix"] == f"{part}/"
    assert backup["bucket"].startswith(f"${{ImportValue openqa-{environment.environment.name}-storage:")
    granted: dict[str, set[str]] = {}
    for role in environment.properties("AWS::IAM::Role", part):
        for statement in role["Policies"][0]["PolicyDocument"]["Statement"]:
            for resource in statement["Resource"]:
                if "ExportsOutputRefBackups" in json.dumps(resource):
                    last = resource["Fn::Join"][1][-1]
                    end = last.lstrip("/") if isinstance(last, str) else ""
                    granted.setdefault(end, set()).update(statement["Action"])
                    if "s3:ListBucket" in statement["Action"]:
                        assert statement["Condition"] == {"StringLike": {"s3:prefix": [f"{part}/*"]}}
    assert granted == {
        "": {"s3:ListBucket"},
        f"{part}/*": {"s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"},
    }


def test_no_role_may_delete_objects_or_volumes(environment: Synthesized) -> None:
    for part in environment.templates:
        granted = actions(environment, part)
        assert not {
            action for action in granted if action.startswith(("s3:Delete", "ec2:DeleteVolume", "s3:Bypass"))
        }
        assert not {action for action in granted if action.endswith("*")}


def test_a_host_speaks_for_its_own_group_and_stack_alone(environment: Synthesized) -> None:
    """Otherwise a worker's host, where others' tests run, could have the database's replaced."""
    place = f"{environment.environment.region}:{environment.environment.account}"
    name = f"openqa-{environment.environment.name}"
    for part in ("database", "webui", "workers", *(["builders"] if environment.environment.builders else [])):
        groups = {group["AutoScalingGroupName"] for group in environment.properties(GROUP, part)}
        spoken_for = [
            resource
            for _, statement in environment.statements(part, kind="AWS::IAM::Role")
            if "autoscaling:SetInstanceHealth" in statement["Action"]
            for resource in statement["Resource"]
        ]
        begin = f"arn:aws:autoscaling:{place}:autoScalingGroup:*:autoScalingGroupName/"
        assert sorted(spoken_for) == sorted(f"{begin}{group}" for group in groups)
        signalled = [
            resource
            for _, statement in environment.statements(part, kind="AWS::IAM::Role")
            if "cloudformation:SignalResource" in statement["Action"]
            for resource in statement["Resource"]
        ]
        stacks = [f"arn:aws:cloudformation:{place}:stack/{name}-{part}/*"]
        assert signalled == (stacks if part in ("database", "webui") else [])


def test_only_the_databases_host_says_which_authority_is_trusted(environment: Synthesized) -> None:
    name = environment.environment.name
    place = f"{environment.environment.region}:{environment.environment.account}"
    for part, action in (("database", "ssm:PutParameter"), ("webui", "ssm:GetParameter")):
        granted = [
            resource
            for _, statement in environment.statements(kind="AWS::IAM::Role")
            if action in statement["Action"]
            for resource in statement["Resource"]
        ]
        assert granted == [f"arn:aws:ssm:{place}:parameter/openqa/{name}/database-ca"], part


def test_workers_do_not_know_the_backups(production: Synthesized) -> None:
    assert "backup" not in document(fleet_template(production, "tap"))
    assert "Backups" not in json.dumps(production.templates["workers"])


def test_document_of_the_database(production: Synthesized) -> None:
    made = document(template(production, "database"))
    assert set(made["images"]) == {"database"}
    assert set(made["secrets"]) == {"database"}
    assert made["database"] == {"name": "openqa", "user": "openqa", "memory_mib": 32768}


def test_document_of_the_webui(production: Synthesized, local: Synthesized) -> None:
    made = document(template(production, "webui"))
    assert set(made["images"]) == {"webui", "proxy"}
    assert all(made["secrets"].values())
    assert set(made["secrets"]) == {"database", "api_key", "worker_key", "sign_in"}
    assert made["webui"]["url"] == "https://openqa.example.org"
    assert made["webui"]["sign_in"]["token_url"] == "https://id.example.org/token"
    assert document(template(local, "webui"))["secrets"]["sign_in"] is None


def test_fedora_schedules_with_its_own_program(synthesized: Callable[[str], Synthesized]) -> None:
    made = document(template(synthesized("fedora"), "webui"))
    assert set(made["images"]) == {"webui", "proxy", "consumer"}
    # From git, and Fedora's on every host.
    reference = Recipe("consumer", "fedora", "x86_64").reference
    assert made["images"]["consumer"]["reference"] == reference
    assert made["schedule"]["architectures"] == ["aarch64", "x86_64"]
    assert made["schedule"]["reports"] == {}
    assert "broker" not in made["secrets"]


def test_nothing_is_scheduled_for_fleets_without_hosts() -> None:
    asked = load("fedora")
    fleets = tuple(
        fleet.model_copy(update={"max": 0}) if fleet.architecture == "aarch64" else fleet
        for fleet in asked.fleets
    )
    told = schedule_document(asked.model_copy(update={"fleets": fleets}))
    assert told["schedule"]["architectures"] == ["x86_64"]


@pytest.fixture(scope="session")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """An environment that schedules by rules."""
    post = dict.fromkeys(IDENTITY, "{id}")
    schedule = Schedule(
        broker="amqps://user@broker.example.org/%2F",
        exchange="pubsub",
        queue="",
        rules=(Rule(topic="#", post=post),),
    )
    return synthesize(changed("local", schedule=schedule), tmp_path_factory.mktemp("ruled"), check=False)


def test_the_clock_needs_no_broker(almalinux: Synthesized) -> None:
    told = document(template(almalinux, "webui"))
    (entry,) = told["timetable"]
    assert entry["at"] == ["mon-sun 02:00"]
    posts = [build["post"] for build in rules.one_by_one([entry])]
    assert [{name: post[name] for name in IDENTITY} for post in posts] == [
        {
            "DISTRI": "almalinux",
            "VERSION": version,
            "FLAVOR": "dvd-iso",
            "ARCH": "x86_64",
            "BUILD": "{date}",
        }
        for version in ("9", "10")
    ]
    assert all("{date}" in post["ISO"] for post in posts)
    assert "schedule" not in told
    assert "broker" not in told["secrets"]


def test_the_webui_is_told_where_messages_come_from(ruled: Synthesized) -> None:
    told = document(template(ruled, "webui"))["schedule"]
    assert (told["exchange"], told["queue"]) == ("pubsub", "")


def test_images_come_from_the_ami_or_the_staging_bucket(production: Synthesized, local: Synthesized) -> None:
    golden = document(template(local, "webui"))
    assert golden["images"]["webui"] == {
        "reference": Recipe("webui", "debian", "x86_64").reference,
        "bucket": None,
        "key": None,
    }
    fetched = document(template(production, "webui"))
    assert fetched["images"]["webui"]["key"] == Recipe("webui", "debian", "x86_64").hash
    assert fetched["artifacts"]["sample"]["key"] == Recipe("sample", "debian", "x86_64").hash
    assert fetched["images"]["webui"]["bucket"] == "cdk-hnb659fds-assets-444455556666-us-east-1"


def published_by(synthesized: Synthesized, part: str) -> set[str]:
    """The commands that make what a stack publishes, without the interpreter."""
    file = synthesized.directory / f"openqa-{synthesized.environment.name}-{part}.assets.json"
    return {
        " ".join(asset["source"]["executable"][1:])
        for asset in json.loads(file.read_text())["files"].values()
        if "executable" in asset["source"]
    }


def test_archives_are_built_when_they_are_published(production: Synthesized, local: Synthesized) -> None:
    assert published_by(production, "webui") == {
        f"-m images archive {name} --os debian --arch x86_64" for name in ("webui", "proxy", "sample")
    }
    assert published_by(production, "workers") == {
        f"-m images archive worker --os debian --arch {architecture}"
        for architecture in ("x86_64", "aarch64")
    }
    assert not any(published_by(local, part) for part in local.templates)


def test_what_hosts_may_do(local: Synthesized) -> None:
    own = {
        "autoscaling:CompleteLifecycleAction",
        "autoscaling:RecordLifecycleActionHeartbeat",
        "autoscaling:SetInstanceHealth",
        "events:PutEvents",
        "s3:GetObject",
        "secretsmanager:GetSecretValue",
    }
    state = {
        "cloudformation:SignalResource",
        "ec2:AttachNetworkInterface",
        "ec2:AttachVolume",
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeVolumes",
        "ec2:DetachNetworkInterface",
        "ec2:DetachVolume",
        "s3:AbortMultipartUpload",
        "s3:ListBucket",
        "s3:PutObject",
    }
    names = {"dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"}
    assert host_actions(local, "workers") == own | names | {"autoscaling:DescribeAutoScalingGroups"}
    assert host_actions(local, "database") == own | state | {"cloudwatch:PutMetricData", "ssm:PutParameter"}
    controller = {
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeScalingActivities",
        "autoscaling:SetDesiredCapacity",
        "autoscaling:SuspendProcesses",
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        "autoscaling:UpdateAutoScalingGroup",
        "cloudwatch:PutMetricData",
        "ssm:GetParametersByPath",
    }
    assert host_actions(local, "webui") == own | state | controller | {"ssm:GetParameter"}


def test_no_host_launches_others_or_gives_them_a_role(environment: Synthesized) -> None:
    """Without them Auto Scaling gives no group another launch template, whoever may change the group."""
    for part in environment.templates:
        assert not host_actions(environment, part) & {"ec2:RunInstances", "iam:PassRole"}


@pytest.mark.parametrize("role", ["database", "webui"])
def test_a_host_takes_its_own_state_to_its_own_group_alone(environment: Synthesized, role: str) -> None:
    name, account = environment.environment.name, environment.environment.account
    begin = f"arn:aws:ec2:{environment.environment.region}:{account}"
    exports = {
        output["Export"]["Name"]: output["Value"].get("Ref")
        for output in environment.templates["storage"]["Outputs"].values()
        if "Export" in output
    }

    def written(resource: Any) -> str:
        """An ARN; what it imports goes by its logical id."""
        parts = [resource] if isinstance(resource, str) else resource["Fn::Join"][1]
        return "".join(part if isinstance(part, str) else exports[part["Fn::ImportValue"]] for part in parts)

    (policy,) = only(environment.properties("AWS::IAM::Role", role))["Policies"]
    rules = {
        "Statement": [
            {**statement, "Resource": [*map(written, statement["Resource"])]}
            for statement in policy["PolicyDocument"]["Statement"]
            if any(action.startswith("ec2:") for action in statement["Action"])
        ]
    }

    def allowed(action: str, resource: str, group: str = "") -> bool:
        tag = {"aws:resourcetag/aws:autoscaling:groupname": [group]} if group else {}
        return judge([rules], Need(action=action, resource=resource, context=tag)) == "allowed"

    for kind, type in (("Volume", "volume"), ("NetworkInterface", "network-interface")):
        owners = {
            id.rpartition("/")[2]: tags(resource["Properties"])["Name"]
            for id, resource in environment.resources(f"AWS::EC2::{kind}", "storage").items()
        }
        groups = [*owners.values(), f"openqa-{name}-fleet-any", "openqa-other-database", ""]
        assert len(owners) == 2
        for action in (f"ec2:Attach{kind}", f"ec2:Detach{kind}"):
            states = [owner for id, owner in owners.items() if allowed(action, f"{begin}:{type}/{id}")]
            assert states == [f"openqa-{name}-{role}"], action
            hosts = [group for group in groups if allowed(action, f"{begin}:instance/i-1", group)]
            assert hosts == [f"openqa-{name}-{role}"], action


def test_hosts_tell_why_they_failed_and_nothing_else_and_it_is_logged(environment: Synthesized) -> None:
    settings = environment.environment
    place = f"{settings.region}:{settings.account}"
    said = {"source": f"openqa.{settings.name}", "detail-type": "openQA host failed"}
    hosts = [role for role in environment.properties("AWS::IAM::Role") if "openQA host failed" in str(role)]
    assert len(hosts) == len(environment.properties("AWS::IAM::InstanceProfile"))
    for role in hosts:
        (allowed,) = [
            statement
            for statement in role["Policies"][0]["PolicyDocument"]["Statement"]
            if "events:PutEvents" in statement["Action"]
        ]
        assert allowed["Action"] == ["events:PutEvents"]
        assert [arn.partition(":events:")[2] for arn in allowed["Resource"]] == [f"{place}:event-bus/default"]
        assert allowed["Condition"] == {
            "StringEquals": {"events:detail-type": said["detail-type"]},
            "ForAllValues:StringEquals": {"events:source": [said["source"]]},
        }
    rule = only(environment.properties("AWS::Events::Rule", "storage"))
    assert rule["EventPattern"] == {key: [value] for key, value in said.items()}
    log = f"{place}:log-group:/aws/events/openqa-{settings.name}"
    assert [target["Arn"].partition(":logs:")[2] for target in rule["Targets"]] == [log]
    policy = only(environment.properties("AWS::Logs::ResourcePolicy", "storage"))["PolicyDocument"]
    opens, writes = json.loads(policy)["Statement"]
    assert [statement["Action"] for statement in (opens, writes)] == [
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    ]
    assert {statement["Resource"].partition(":logs:")[2] for statement in (opens, writes)} == {f"{log}:*"}
    source = writes["Condition"]["ArnLike"]["aws:SourceArn"]
    assert source.partition(":events:")[2] == f"{place}:rule/{rule['Name']}"


def controls(synthesized: Synthesized, **context: list[str]) -> Callable[[str, str, str], bool]:
    """Returns whether the controller may do something with a group by its name and its environment's."""
    (policy,) = only(synthesized.properties("AWS::IAM::Role", "webui"))["Policies"]
    rules = [
        json.loads(re.sub(r'\{"Fn::ImportValue": ("[^"]*")\}', r"\1", json.dumps(statement)))
        for statement in policy["PolicyDocument"]["Statement"]
        if any(action.startswith("autoscaling:") for action in statement["Action"])
    ]
    place = f"{synthesized.environment.region}:{synthesized.environment.account}"

    def allowed(action: str, group: str, owner: str) -> bool:
        need = Need(
            action=f"autoscaling:{action}",
            resource=f"arn:aws:autoscaling:{place}:autoScalingGroup:1:autoScalingGroupName/{group}",
            context={"aws:resourcetag/openqa:environment": [owner]}
            | {f"autoscaling:{key}": value for key, value in context.items()},
        )
        return judge([{"Statement": rules}], need) == "allowed"

    return allowed


def test_the_controller_may_size_the_environments_own_fleets(environment: Synthesized) -> None:
    name = environment.environment.name
    allowed = controls(environment)
    for action in ("SetDesiredCapacity", "SuspendProcesses", "TerminateInstanceInAutoScalingGroup"):
        for fleet in environment.environment.fleets:
            assert allowed(action, f"openqa-{name}-fleet-{fleet.name}", name)
        assert not allowed(action, f"openqa-{name}-database", name)
        assert not allowed(action, "openqa-other-fleet-any", "other")
        # A group of the environment `NAME-fleet-b`.
        assert not allowed(action, f"openqa-{name}-fleet-b-database", f"{name}-fleet-b")
    (policy,) = only(environment.properties("AWS::IAM::Role", "webui"))["Policies"]
    by_action = {
        action: statement
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
    }
    metrics = by_action["cloudwatch:PutMetricData"]["Condition"]["StringEquals"]
    assert metrics == {"cloudwatch:namespace": f"openQA/{name}"}
    assert all(
        f":parameter/openqa/{name}/fleets" in arn for arn in by_action["ssm:GetParametersByPath"]["Resource"]
    )


def test_the_controller_may_move_fleets_between_zones_and_change_nothing_else(
    environment: Synthesized,
) -> None:
    (policy,) = only(environment.properties("AWS::IAM::Role", "webui"))["Policies"]
    (statement,) = [
        statement
        for statement in policy["PolicyDocument"]["Statement"]
        if "autoscaling:UpdateAutoScalingGroup" in statement["Action"]
    ]
    subnets = statement["Condition"]["ForAllValues:StringEquals"]["autoscaling:VPCZoneIdentifiers"]
    zones = [subnet_zone(environment, subnet) for subnet in subnets]
    assert zones == list(environment.environment.network.availability_zones)
    names = [subnet["Fn::ImportValue"] for subnet in subnets]
    name = environment.environment.name

    def allowed(group: str = f"openqa-{name}-fleet-any", owner: str = name, **context: list[str]) -> bool:
        return controls(environment, **context)("UpdateAutoScalingGroup", group, owner)

    assert allowed(vpczoneidentifiers=names)
    assert allowed(vpczoneidentifiers=names[:1])
    assert not allowed(vpczoneidentifiers=[*names, "subnet-other"])
    assert not allowed()
    assert not allowed(vpczoneidentifiers=names, minsize=["9"])
    assert not allowed(vpczoneidentifiers=names, maxsize=["9"])
    assert not allowed(vpczoneidentifiers=names, launchconfigurationname=["other"])
    assert not allowed(f"openqa-{name}-webui", vpczoneidentifiers=names)
    assert not allowed(owner="other", vpczoneidentifiers=names)


def test_alarms_about_the_controller(environment: Synthesized) -> None:
    alarms = [
        alarm
        for alarm in environment.properties("AWS::CloudWatch::Alarm", "webui")
        if "-controller-" in alarm["AlarmName"]
    ]
    found = {alarm["AlarmName"].rpartition("-")[2]: alarm for alarm in alarms}
    assert set(found) == {"breaker", "capacity", "unserved", "silent", "blind", "refused"}
    assert {alarm["Namespace"] for alarm in alarms} == {f"openQA/{environment.environment.name}"}
    assert found["silent"]["TreatMissingData"] == "breaching"
    assert {alarm["MetricName"] for alarm in alarms} == {
        "BreakersOpen",
        "FleetsWithoutCapacity",
        "JobsUnserved",
        "Rounds",
        "Blind",
        "Refused",
    }
    for alarm in alarms:
        assert "docs/fleet.md" in alarm["AlarmDescription"]


def test_a_blind_controller_rings_however_slow_it_is(environment: Synthesized) -> None:
    (blind,) = (
        alarm
        for alarm in environment.properties("AWS::CloudWatch::Alarm", "webui")
        if alarm["MetricName"] == "Blind"
    )
    # A period without figures would count as good, and the alarm wants all of them to be bad.
    slowest = controller.METRICS_SECONDS + openqa_api.SECONDS + controller.PAUSE_MOST_SECONDS
    assert blind["TreatMissingData"] == "notBreaching"
    assert blind["Period"] > slowest
    assert blind["Period"] * blind["EvaluationPeriods"] == 600


def test_alarms_about_what_the_web_uis_host_tells(environment: Synthesized) -> None:
    found = {
        alarm["MetricName"]: alarm
        for alarm in environment.properties("AWS::CloudWatch::Alarm", "webui")
        if "-controller-" not in alarm["AlarmName"] and alarm["Namespace"].startswith("openQA/")
    }
    published = "".join(
        Path(str(module.__file__)).read_text() for module in (refresh, space, minion, messages, assets)
    )
    expected = {"ContentFailed", "MinionFailed", "MinionWaitSeconds", "VolumeFreePercent", "RootFreePercent"}
    expected |= {"AssetsFailed"}
    expected |= {"ScheduleLagSeconds"} if environment.environment.schedule else set()
    expected |= {"TimetableLagSeconds"} if environment.environment.timetable else set()
    assert set(found) == expected
    for metric, alarm in found.items():
        assert f"{metric}=" in published
        assert alarm["Namespace"] == f"openQA/{environment.environment.name}"
        assert alarm["TreatMissingData"] == "breaching"
        assert alarm["Period"] <= 86400
    assert found["VolumeFreePercent"]["Threshold"] > 5  # where openQA stops
    # Two rounds of the timer are in its time, so that one alone rings no bell.
    minutes = environment.environment.content.refresh_minutes
    assert span(found["ContentFailed"]) > 2 * 60 * minutes


def test_one_background_job_that_failed_or_waits_rings(local: Synthesized) -> None:
    alarms = {alarm["MetricName"]: alarm for alarm in local.properties("AWS::CloudWatch::Alarm", "webui")}
    failed, waits = alarms["MinionFailed"], alarms["MinionWaitSeconds"]
    assert (failed["Threshold"], failed["ComparisonOperator"]) == (0, "GreaterThanThreshold")
    assert (waits["Threshold"], waits["ComparisonOperator"]) == (3600, "GreaterThanThreshold")
    # Every figure counts: none of both passes by itself.
    assert failed["Statistic"] == waits["Statistic"] == "Maximum"
    # A new host may wait for what its predecessor holds without that figures count as missing.
    assert span(failed) == span(waits) > self_healing_host.READY_SECONDS


def test_a_rehearsal_that_fills_the_root_disk_for_a_time_does_not_ring(local: Synthesized) -> None:
    for part, metric in (("webui", "RootFreePercent"), ("database", "DatabaseRootFreePercent")):
        alarms = local.properties("AWS::CloudWatch::Alarm", part)
        alarm = only([alarm for alarm in alarms if alarm["MetricName"] == metric])
        assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Maximum", "LessThanThreshold")
        assert span(alarm) == 3600
        assert f"openqa-local-{part} has been free" in alarm["AlarmDescription"]


def test_an_alarm_tells_that_messages_are_not_dealt_with(
    ruled: Synthesized, synthesized: Callable[[str], Synthesized]
) -> None:
    by_rules, by_fedora = (
        only([alarm for alarm in alarms if alarm["MetricName"] == "ScheduleLagSeconds"])
        for alarms in (
            made.properties("AWS::CloudWatch::Alarm", "webui") for made in (ruled, synthesized("fedora"))
        )
    )
    assert by_rules["Threshold"] <= 3600
    # What fedora_openqa fails with on purpose is tried for so long.
    assert messages_of_fedora.TRY_SECONDS < by_fedora["Threshold"] < 2 * messages_of_fedora.TRY_SECONDS
    for alarm in (by_rules, by_fedora):
        assert (alarm["Statistic"], alarm["TreatMissingData"]) == ("Minimum", "breaching")


def test_an_alarm_tells_that_the_timetable_is_not_kept(almalinux: Synthesized, ruled: Synthesized) -> None:
    alarms = almalinux.properties("AWS::CloudWatch::Alarm", "webui")
    alarm = only([alarm for alarm in alarms if alarm["MetricName"] == "TimetableLagSeconds"])
    assert (alarm["Statistic"], alarm["TreatMissingData"]) == ("Minimum", "breaching")
    assert 600 < alarm["Threshold"] <= 3600
    assert "TimetableLagSeconds=" in Path(str(messages.__file__)).read_text()
    assert not [alarm for alarm in alarms if alarm["MetricName"] == "ScheduleLagSeconds"]
    others = ruled.properties("AWS::CloudWatch::Alarm", "webui")
    assert not [alarm for alarm in others if alarm["MetricName"] == "TimetableLagSeconds"]


def test_fedoras_web_ui_is_told_what_the_approved_files_are_made_of() -> None:
    told = webui_document(
        load("fedora"), architecture="x86_64", url="https://openqa.example.org", sample=None
    )["webui"]
    approved = json.loads((DOCUMENTS / "webui-fedora.json").read_text())["webui"]
    assert told == approved


def test_the_controller_reads_what_each_fleet_is(environment: Synthesized) -> None:
    parameters = environment.properties("AWS::SSM::Parameter", "workers")
    read = {
        found["Name"]: facts.parse(found["Name"].rpartition("/")[2], rendered(found["Value"]))
        for found in parameters
    }
    for fleet in environment.environment.fleets:
        name = environment.environment.name
        known = read[f"/openqa/{name}/fleets/{fleet.name}"]
        assert known.group == f"openqa-{name}-fleet-{fleet.name}"
        assert known.classes == set(fleet.classes)
        assert known.slots == min(fleet.workers(kind) for kind in fleet.instance_types)
        assert known.one_host == (fleet.network in ("tap", "vde") and not fleet.mesh)
        assert known.price() == pytest.approx(
            (catalogue.load()[fleet.instance_types[0]].price or facts.UNKNOWN_PRICE)
            + catalogue.volume_price(fleet.volume_size, fleet.volume_mibps),
            abs=1e-5,
        )
        assert set(known.prices) == set(fleet.instance_types)
    assert len(read) == len(environment.environment.fleets)


def test_a_fleets_settings_change_nothing_about_the_webui_host(tmp_path: Path, local: Synthesized) -> None:
    (fleet,) = local.environment.fleets
    more = fleet.model_copy(
        update={
            "max": 9,
            "classes": ("qemu_x86_64", "tpm"),
            "warm": ("mon-fri 06:00-20:00 2",),
            "spare": 0.4,
        }
    )
    other = fleet.model_copy(update={"name": "other"})
    made = synthesize(local.environment.model_copy(update={"fleets": (more, other)}), tmp_path)
    assert made.templates["webui"] == local.templates["webui"]
    (parameter,) = (
        found
        for found in made.properties("AWS::SSM::Parameter", "workers")
        if found["Name"].endswith("/small")
    )
    told = facts.parse("small", rendered(parameter["Value"]))
    assert (told.warm, told.spare) == ((warm.parse("mon-fri 06:00-20:00 2"),), 0.4)


def test_an_architecture_more_or_less_is_nothing_to_a_webui_host_that_schedules_by_rules(
    tmp_path: Path, ruled: Synthesized
) -> None:
    (fleet,) = ruled.environment.fleets
    arm = fleet.model_copy(
        update={"name": "arm", "architecture": "aarch64", "instance_types": ("m7gd.metal",)}
    )
    image = ruled.environment.image.model_copy(update={"aarch64": "ami-00000000000000000"})
    more = ruled.environment.model_copy(update={"fleets": (fleet, arm), "image": image})
    made = synthesize(more, tmp_path, check=False)
    assert made.templates["webui"] == ruled.templates["webui"]


def test_alarms_tell_a_topic(tmp_path: Path, production: Synthesized) -> None:
    topic = "arn:aws:sns:us-east-1:111122223333:openqa"
    for alarm in production.properties("AWS::CloudWatch::Alarm"):
        assert not {"AlarmActions", "OKActions"} & set(alarm)
    told = synthesize(changed("fedora", alarm_topic=topic), tmp_path, check=False)
    alarms = told.properties("AWS::CloudWatch::Alarm")
    assert len(alarms) == 25
    for alarm in alarms:
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic]


def test_a_database_that_cannot_be_relied_on_rings(local: Synthesized) -> None:
    alarms = local.properties("AWS::CloudWatch::Alarm", "database")
    published = "".join(Path(str(module.__file__)).read_text() for module in (base, rehearsal, space, roles))
    assert len(alarms) == 6
    for alarm in alarms:
        assert f"{alarm['MetricName']}=" in published
        assert alarm["Namespace"] == "openQA/local"
        assert alarm["TreatMissingData"] == "breaching"


def test_a_day_without_a_good_rehearsal_rings(local: Synthesized) -> None:
    alarms = {alarm["MetricName"]: alarm for alarm in local.properties("AWS::CloudWatch::Alarm", "database")}
    verified = alarms["RestoreVerified"]
    # One good figure is enough, and there is one a day, an hour earlier or later.
    assert (verified["Statistic"], verified["ComparisonOperator"]) == ("Maximum", "LessThanThreshold")
    assert 24 * 3600 < span(verified) <= 26 * 3600


def test_silence_rings_soon(environment: Synthesized) -> None:
    alarms = {alarm["MetricName"]: alarm for alarm in environment.properties("AWS::CloudWatch::Alarm")}
    # CloudWatch takes figures of some periods farther back before it counts a period as missing, so that the
    # length of a period adds to each time several times.
    for metric, most in (
        ("HealthyHostCount", 60),
        ("ContentFailed", 300),
        ("AssetsFailed", 900),
        ("RootFreePercent", 300),
        ("DatabaseRootFreePercent", 300),
        ("BackupAgeSeconds", 900),
        ("RestoreVerified", 3600),
        ("DatabaseCertificateDays", 3600),
        ("MinionFailed", 900),
        ("MinionWaitSeconds", 900),
    ):
        assert alarms[metric]["Period"] <= most
    for alarm in alarms.values():
        assert span(alarm) <= (86400 if alarm["Period"] < 3600 else 7 * 86400)


def test_a_certificate_that_is_not_renewed_rings_in_time(local: Synthesized, production: Synthesized) -> None:
    alarms = {
        alarm["MetricName"]: alarm
        for made, part in ((local, "database"), (production, "webui"))
        for alarm in made.properties("AWS::CloudWatch::Alarm", part)
    }
    ours, acms = alarms["DatabaseCertificateDays"], alarms["DaysToExpiry"]
    # Not while there is time to renew it, and not when it is too late.
    assert 14 < ours["Threshold"] < certificates.RENEW_SECONDS / 86400
    # ACM begins 60 days before, or 45: docs.aws.amazon.com/acm/latest/userguide/managed-renewal.html
    assert 14 < acms["Threshold"] < 45
    for alarm in (ours, acms):
        assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Minimum", "LessThanThreshold")
    (certificate,) = production.resources("AWS::CertificateManager::Certificate", "webui")
    reference = {"Ref": certificate.removeprefix("webui/")}
    assert acms["Dimensions"] == [{"Name": "CertificateArn", "Value": reference}]
    # An end that has come is told no more.
    assert (acms["Namespace"], acms["TreatMissingData"]) == ("AWS/CertificateManager", "ignore")
    assert ours["TreatMissingData"] == "breaching"


def test_the_database_publishes_its_own_environments_metrics_alone(local: Synthesized) -> None:
    (statement,) = (
        statement
        for role in local.properties("AWS::IAM::Role", "database")
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "cloudwatch:PutMetricData" in statement["Action"]
    )
    assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "openQA/local"}}


def test_session_manager(production: Synthesized, local: Synthesized) -> None:
    for part in ("database", "webui", "workers"):
        assert "ssmmessages:OpenControlChannel" in host_actions(production, part)
        assert "ssmmessages:OpenControlChannel" not in host_actions(local, part)
        resources = [
            statement["Resource"]
            for _, statement in production.statements(part, kind="AWS::IAM::Role")
            if "ssm:UpdateInstanceInformation" in statement["Action"]
        ]
        assert resources
        assert resources.count(["arn:aws:ec2:us-east-1:444455556666:instance/*"]) == len(resources)


def test_objects_that_a_host_may_read_are_those_in_its_document(production: Synthesized) -> None:
    made = document(template(production, "webui"))
    wanted = {image["key"] for image in made["images"].values()} | {made["artifacts"]["sample"]["key"]}
    readable = {
        resource.rsplit("/", 1)[1]
        for policy in only(production.properties("AWS::IAM::Role", "webui"))["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == ["s3:GetObject"]
        for resource in statement["Resource"]
    }
    assert wanted < readable
    (bundle,) = readable - wanted
    assert re.fullmatch(r"[0-9a-f]{64}\.gz", bundle)


def test_front_door_with_a_domain(production: Synthesized) -> None:
    listeners = {
        listener["Port"]: listener
        for listener in production.properties("AWS::ElasticLoadBalancingV2::Listener", "webui")
    }
    assert set(listeners) == {80, 443}
    assert only(listeners[80]["DefaultActions"])["Type"] == "redirect"
    assert listeners[443]["SslPolicy"] == TLS_POLICY
    target = only(production.properties("AWS::ElasticLoadBalancingV2::TargetGroup", "webui"))
    assert (target["Port"], target["Protocol"], target["HealthCheckPath"]) == (80, "HTTP", "/health")
    balancer = only(production.properties("AWS::ElasticLoadBalancingV2::LoadBalancer", "webui"))
    attributes = {item["Key"]: item["Value"] for item in balancer["LoadBalancerAttributes"]}
    assert attributes["idle_timeout.timeout_seconds"] == "3600"
    assert attributes["deletion_protection.enabled"] == "true"
    assert attributes["access_logs.s3.enabled"] == "true"
    certificate = only(production.properties("AWS::CertificateManager::Certificate", "webui"))
    assert certificate["DomainName"] == "openqa.example.org"
    record = only(production.properties("AWS::Route53::RecordSet", "webui"))
    assert record["HostedZoneId"] == "Z00000000EXAMPLE"
    assert production.templates["webui"]["Outputs"]["Url"]["Value"] == "https://openqa.example.org"


def test_who_comes_without_tls_is_sent_to_where_there_is_some(production: Synthesized) -> None:
    (redirect,) = (
        listener["DefaultActions"][0]["RedirectConfig"]
        for listener in production.properties("AWS::ElasticLoadBalancingV2::Listener", "webui")
        if listener["Port"] == 80
    )
    assert (redirect["Protocol"], redirect["Port"]) == ("HTTPS", "443")


def test_the_domain_leads_to_the_load_balancer(production: Synthesized) -> None:
    (balancer,) = production.resources("AWS::ElasticLoadBalancingV2::LoadBalancer", "webui")
    alias = only(production.properties("AWS::Route53::RecordSet", "webui"))["AliasTarget"]
    name, zone = rendered(alias["DNSName"]), reference(alias["HostedZoneId"])
    balancer = balancer.removeprefix("webui/")
    assert name == f"dualstack.${{GetAtt {balancer}.DNSName}}"
    assert zone == f"${{GetAtt {balancer}.CanonicalHostedZoneID}}"


def test_a_load_balancer_goes_with_a_disposable_environment(environment: Synthesized) -> None:
    balancer = only(environment.properties("AWS::ElasticLoadBalancingV2::LoadBalancer", "webui"))
    attributes = {item["Key"]: item["Value"] for item in balancer["LoadBalancerAttributes"]}
    protected = "false" if environment.environment.disposable else "true"
    assert attributes["deletion_protection.enabled"] == protected


def test_malformed_headers_reach_no_web_ui(environment: Synthesized) -> None:
    balancer = only(environment.properties("AWS::ElasticLoadBalancingV2::LoadBalancer", "webui"))
    attributes = {item["Key"]: item["Value"] for item in balancer["LoadBalancerAttributes"]}
    assert attributes["routing.http.drop_invalid_header_fields.enabled"] == "true"


def test_only_the_environments_load_balancer_logs_where_it_may(environment: Synthesized) -> None:
    asked = environment.environment
    balancer = only(environment.properties("AWS::ElasticLoadBalancingV2::LoadBalancer", "webui"))
    attributes = {item["Key"]: item["Value"] for item in balancer["LoadBalancerAttributes"]}
    (statement,) = (
        statement
        for _, statement in environment.statements("storage", kind="AWS::S3::BucketPolicy")
        if "elasticloadbalancing" in str(statement["Principal"])
    )
    # Where it writes: the user guide of Application Load Balancers, "Access log files".
    place = f"/{attributes['access_logs.s3.prefix']}/AWSLogs/{asked.account}/*"
    assert rendered(statement["Resource"]).endswith(place)
    own = f"arn:aws:elasticloadbalancing:{asked.region}:{asked.account}:loadbalancer/*"
    assert statement["Condition"] == {"ArnLike": {"aws:SourceArn": own}}


def test_the_load_balancer_is_the_first_to_end_an_idle_connection(environment: Synthesized) -> None:
    balancer = only(environment.properties("AWS::ElasticLoadBalancingV2::LoadBalancer", "webui"))
    attributes = {item["Key"]: item["Value"] for item in balancer["LoadBalancerAttributes"]}
    nginx = (ROOT / "userdata/roles/webui/config/nginx.conf.j2").read_text()
    (kept,) = re.findall(r"keepalive_timeout (\d+);", nginx)
    assert int(kept) > int(attributes["idle_timeout.timeout_seconds"])


def test_security_groups_forget_no_idle_connection_of_the_web_ui() -> None:
    nginx = (ROOT / "userdata/roles/webui/config/nginx.conf.j2").read_text()
    (probed,) = re.findall(r"listen 8080 so_keepalive=(\d+)s::;", nginx)
    # Nitro v6: docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html
    assert int(probed) < 350


def test_an_alarm_tells_that_no_web_ui_answers(environment: Synthesized) -> None:
    (alarm,) = (
        alarm
        for alarm in environment.properties("AWS::CloudWatch::Alarm", "webui")
        if alarm["Namespace"] == "AWS/ApplicationELB"
    )
    assert alarm["ComparisonOperator"] == "LessThanThreshold"
    assert (alarm["Statistic"], alarm["Threshold"], alarm["TreatMissingData"]) == ("Maximum", 1, "breaching")
    assert span(alarm) == 900
    made = environment.templates["webui"]["Resources"]
    for dimension in alarm["Dimensions"]:
        ((_, (target, attribute)),) = dimension["Value"].items()
        assert made[target]["Type"] == f"AWS::ElasticLoadBalancingV2::{dimension['Name']}"
        assert attribute == f"{dimension['Name']}FullName"


def test_tls_has_forward_secrecy_and_authenticated_encryption() -> None:
    policy = SSL_POLICIES[TLS_POLICY]  # as AWS lists them
    assert set(policy["ssl_protocols"]) == {"TLSv1.2", "TLSv1.3"}
    for cipher in policy["ciphers"]:
        assert re.match(r"TLS_|ECDHE-.*-GCM-", cipher)


def test_front_door_without_a_domain(tmp_path: Path) -> None:
    made = synthesize(changed("local", domain=None), tmp_path)
    assert findings(made.report, "violations") == []
    assert "dns" not in made.templates
    listener = only(made.properties("AWS::ElasticLoadBalancingV2::Listener"))
    assert (listener["Port"], only(listener["DefaultActions"])["Type"]) == (80, "forward")
    assert not made.properties("AWS::CertificateManager::Certificate")
    url = document(template(made, "webui"))["webui"]["url"]
    assert re.fullmatch(r"http://\$\{GetAtt FrontDoorLoadBalancer\w+\.DNSName\}", url)


def test_outputs(environment: Synthesized) -> None:
    webui = environment.templates["webui"]["Outputs"]
    assert {"Url", "ApiKeySecretArn", "WebUiGroup"} <= set(webui)
    assert "DatabaseGroup" in environment.templates["database"]["Outputs"]


# workers


def test_fleets(environment: Synthesized) -> None:
    for fleet in environment.environment.fleets:
        group = fleet_group(environment, fleet.name)
        assert (group["MinSize"], group["MaxSize"]) == (str(fleet.min), str(fleet.max))
        assert group["NewInstancesProtectedFromScaleIn"] is True
        # Elsewhere its hosts boot when the controller says so, who may: each gigabyte between zones costs.
        (home,) = group["VPCZoneIdentifier"]
        assert subnet_zone(environment, home) == environment.environment.network.zone
    for resource in environment.resources(GROUP, "workers").values():
        assert not {"UpdatePolicy", "CreationPolicy"} & set(resource)


def test_fleets_may_have_any_names_that_settings_allow(tmp_path: Path) -> None:
    (fleet,) = load("local").fleets
    names = ("nested", "nested-group")
    fleets = tuple(fleet.model_copy(update={"name": name}) for name in names)
    made = synthesize(changed("local", fleets=fleets), tmp_path, check=False)
    assert all(fleet_group(made, name) for name in names)


def test_nested_virtualization_is_asked_for_where_it_is_wanted(environment: Synthesized) -> None:
    for fleet in environment.environment.fleets:
        options = fleet_template(environment, fleet.name).get("CpuOptions")
        if fleet.virtualization == "nested":
            assert options == {"NestedVirtualization": "enabled"}
            assert not any(catalogue.load()[name].metal for name in fleet.instance_types)
        else:
            assert options is None
    for part in ("database", "webui"):
        assert "CpuOptions" not in template(environment, part)


def test_mixed_instances(production: Synthesized, local: Synthesized) -> None:
    policy = fleet_group(production, "x86-nested")["MixedInstancesPolicy"]
    assert [override["InstanceType"] for override in policy["LaunchTemplate"]["Overrides"]] == [
        "m8i.4xlarge",
        "m8i-flex.4xlarge",
        "r8i.4xlarge",
        "r8i-flex.4xlarge",
    ]
    assert policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == 100
    assert "MixedInstancesPolicy" not in fleet_group(local, "small")
    assert "LaunchTemplate" in fleet_group(local, "small")


def test_spot_hosts_are_the_share_that_is_asked_for(local: Synthesized, tmp_path: Path) -> None:
    fleet = local.environment.fleets[0].model_copy(update={"max": 20, "spot_share": 0.75})
    asked = local.environment.model_copy(update={"fleets": (fleet,)})
    policy = fleet_group(synthesize(asked, tmp_path, check=False), fleet.name)["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == 25
    assert policy["InstancesDistribution"]["SpotAllocationStrategy"] == "price-capacity-optimized"
    assert policy["InstancesDistribution"]["OnDemandBaseCapacity"] == 0, (
        "the share counts from the first host"
    )


def test_types_are_launched_in_the_order_of_the_settings(production: Synthesized) -> None:
    policy = fleet_group(production, "x86-nested")["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandAllocationStrategy"] == "prioritized"


def test_a_host_may_drain_for_as_long_as_its_agent_does(environment: Synthesized) -> None:
    """A group waits for a hundred time-outs at most: `lifecycle_hooks`."""
    for group in environment.properties(GROUP, "workers"):
        (drain,) = (
            hook for hook in group["LifecycleHookSpecificationList"] if hook["LifecycleHookName"] == "drain"
        )
        assert 100 * drain["HeartbeatTimeout"] >= agent.DRAIN_SECONDS
        assert 3 * agent.HEARTBEAT_SECONDS <= drain["HeartbeatTimeout"] <= agent.HOOK_SECONDS


def test_metal_gets_the_time_that_it_takes(production: Synthesized) -> None:
    def ready(fleet: str) -> int:
        hooks = fleet_group(production, fleet)["LifecycleHookSpecificationList"]
        seconds: int = only([hook for hook in hooks if hook["LifecycleHookName"] == "ready"])[
            "HeartbeatTimeout"
        ]
        return seconds

    assert ready("x86-metal") >= 2400
    assert ready("x86-nested") <= 900


def test_document_of_a_worker(production: Synthesized) -> None:
    made = document(fleet_template(production, "arm-metal"))
    assert made["stack"] is None
    assert made["resource"] is None
    assert made["images"]["worker"]["reference"] == Recipe("worker", "debian", "aarch64").reference
    assert set(made["secrets"]) == {"api_key"}
    assert "SecretsWorkerKey" in made["secrets"]["api_key"]  # an administrator's is none of theirs
    assert made["worker"]["workers"] == {"m6gd.metal": 32, "m7gd.metal": 32}
    assert made["worker"]["classes"] == ["qemu_aarch64", "tap", "tap2", "tpm"]
    assert (made["worker"]["kvm"], made["worker"]["network"]) == (True, "tap")


PACKAGES = ("libtext-csv-perl", "libxml-libxml-perl")


@pytest.fixture(scope="session")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """The local environment with two mesh fleets beside its own, for tests that expect what openSUSE's do."""
    local = settings.load("local")
    (small,) = local.fleets
    content = local.content.model_copy(
        update={"tap_address": IPv4Interface("10.0.2.2/15"), "worker_packages": PACKAGES}
    )
    fleets = [
        small.model_copy(update={"name": name, "network": "tap", "tap_topology": "mesh"})
        for name in ("one", "two")
    ]
    return synthesize(
        changed("local", fleets=(small, *fleets), content=content), tmp_path_factory.mktemp("meshes")
    )


def test_only_hosts_of_one_mesh_send_each_other_gre(meshes: Synthesized, environment: Synthesized) -> None:
    workers = meshes.templates["workers"]["Resources"]
    rules = {
        kind: [rule for rule in meshes.properties(kind) if rule["IpProtocol"] == "47"]
        for kind in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress")
    }

    def security_groups(fleet: str) -> list[Json]:
        groups: list[Json] = only(fleet_template(meshes, fleet)["NetworkInterfaces"])["Groups"]
        return groups

    groups = {}
    for fleet in ("one", "two"):
        shared, own = security_groups(fleet)
        assert shared == only(security_groups("small"))
        groups[fleet] = own["Fn::GetAtt"][0]
        group = workers[groups[fleet]]["Properties"]
        assert "SecurityGroupIngress" not in group
        assert only(group["SecurityGroupEgress"])["CidrIp"] == "255.255.255.255/32"
        for kind, other in zip(rules, ("SourceSecurityGroupId", "DestinationSecurityGroupId"), strict=True):
            rule = only([rule for rule in rules[kind] if rule["GroupId"] == own])
            assert rule[other] == own
            assert not {"CidrIp", "FromPort", "ToPort"} & rule.keys()
    assert len(set(groups.values())) == 2
    assert all(len(found) == 2 for found in rules.values())
    assert not any(rule["IpProtocol"] == "47" for kind in rules for rule in environment.properties(kind))


def test_only_hosts_of_a_mesh_see_their_peers(meshes: Synthesized) -> None:
    profiles = meshes.resources("AWS::IAM::InstanceProfile", "workers")
    roles = meshes.templates["workers"]["Resources"]

    def seeing(fleet: str) -> list[Json]:
        profile = fleet_template(meshes, fleet)["IamInstanceProfile"]["Arn"]["Fn::GetAtt"][0]
        role = only(profiles[f"workers/{profile}"]["Properties"]["Roles"])["Ref"]
        return [
            statement
            for policy in roles[role]["Properties"]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            if "ec2:DescribeInstances" in statement["Action"]
        ]

    assert seeing("small") == []
    for fleet in ("one", "two"):
        statement = only(seeing(fleet))
        assert statement["Action"] in ("ec2:DescribeInstances", ["ec2:DescribeInstances"])
        assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}
        assert document(fleet_template(meshes, fleet))["worker"]["tap_topology"] == "mesh"
    assert document(fleet_template(meshes, "small"))["worker"]["tap_topology"] == "host"


def test_tap_hosts_alone_are_told_what_tests_expect_of_them(meshes: Synthesized) -> None:
    for fleet in ("one", "two"):
        worker = document(fleet_template(meshes, fleet))["worker"]
        assert (worker["tap_address"], worker["packages"]) == ("10.0.2.2/15", list(PACKAGES))
    assert not {"tap_address", "packages"} & document(fleet_template(meshes, "small"))["worker"].keys()


def test_containers_of_workers_have_the_packages_that_tests_need(meshes: Synthesized) -> None:
    recipe = Recipe("worker", "debian", "x86_64", PACKAGES)
    image = document(fleet_template(meshes, "small"))["images"]["worker"]
    # Golden AMIs have the image without them.
    assert (image["reference"], image["key"]) == (recipe.reference, recipe.hash)
    words = " ".join(f"--package={package}" for package in PACKAGES)
    assert published_by(meshes, "workers") == {f"-m images archive worker --os debian --arch x86_64 {words}"}
    assert document(template(meshes, "webui"))["images"]["webui"]["key"] is None


def test_security_rules_find_nothing_in_a_mesh(meshes: Synthesized) -> None:
    assert findings(meshes.report, "violations") == []


def test_ami_of_each_architecture(production: Synthesized) -> None:
    parameters = production.templates["workers"]["Parameters"]
    images = {
        fleet: parameters[fleet_template(production, fleet)["ImageId"]["Ref"]]
        for fleet in ("x86-metal", "arm-metal")
    }
    assert images["x86-metal"]["Default"] == production.environment.image.x86_64
    assert images["arm-metal"]["Default"] == production.environment.image.aarch64
    assert {image["Type"] for image in images.values()} == {"AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>"}


def test_ami_by_its_id(synthesized: Callable[[str], Synthesized]) -> None:
    fedora = synthesized("fedora")
    assert template(fedora, "database")["ImageId"] == fedora.environment.image.x86_64
    assert only(template(fedora, "database")["BlockDeviceMappings"])["DeviceName"] == "/dev/sda1"


def test_names_and_tags(production: Synthesized) -> None:
    for group in production.properties(GROUP):
        given = tags(group)
        assert given["Name"] == group["AutoScalingGroupName"]
        assert given["openqa:environment"] == "production"
        assert all(tag["PropagateAtLaunch"] for tag in group["Tags"])


def test_what_a_stack_holds_has_its_tags_from_the_stack(environment: Synthesized) -> None:
    name = environment.environment.name
    for part in environment.templates:
        stack = environment.manifest["artifacts"][f"openqa-{name}-{part}"]["properties"]
        assert stack["tags"] == {"openqa:environment": name}
    by_hand = {
        resource["Type"]
        for template in environment.templates.values()
        for resource in template["Resources"].values()
        if '"Key": "openqa:environment"' in json.dumps(resource)
    }
    # No stack tags what a launch template launches.
    assert by_hand == {GROUP, TEMPLATE}


NAMED = (
    "DHCPOptions",
    "EIP",
    "FlowLog",
    "InternetGateway",
    "NatGateway",
    "NetworkInterface",
    "RouteTable",
    "SecurityGroup",
    "Subnet",
    "VPC",
    "VPCEndpoint",
    "Volume",
)


def test_what_ec2_lists_has_a_name(environment: Synthesized, meshes: Synthesized) -> None:
    for made in (environment, meshes):
        begin = f"openqa-{made.environment.name}"
        for kind in NAMED:
            for properties in made.properties(f"AWS::EC2::{kind}"):
                name = tags(properties)["Name"]
                assert name == begin or name.startswith(f"{begin}-")


# names of worker hosts


def test_one_table_of_names(environment: Synthesized) -> None:
    table = only(environment.properties("AWS::DynamoDB::Table"))
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]} == {
        "fleet": "HASH",
        "number": "RANGE",
    }
    kept = only(list(environment.resources("AWS::DynamoDB::Table").values()))
    assert kept.get("DeletionPolicy", "Delete") == "Delete"


def test_a_host_may_lease_names_of_its_own_fleet_only(environment: Synthesized) -> None:
    found = [
        statement
        for role in environment.properties("AWS::IAM::Role", "workers")
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if any(action.startswith("dynamodb:") for action in statement["Action"])
    ]
    assert all(
        statement["Action"] == ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"]
        and "Fn::GetAtt" in str(statement["Resource"])
        for statement in found
    )
    leading = [
        statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"] for statement in found
    ]
    assert leading == [[fleet.name] for fleet in environment.environment.fleets]


def test_operators_may_run_a_hosts_commands_on_that_host_alone(environment: Synthesized) -> None:
    name = environment.environment.name
    schedule = environment.environment.schedule
    by_hand = {"schedule"} if schedule and schedule.program == "fedora_openqa" else set()
    commands = {
        "database": {"backup", "restart", "restore", "progress"},
        "webui": {"content", "reconcile", "restart", "progress", *by_hand},
    }
    for part, expected in commands.items():
        documents = environment.properties("AWS::SSM::Document", part)
        assert {made["Name"] for made in documents} == {f"openqa-{name}-{part}-{one}" for one in expected}
        policy = only(environment.properties("AWS::IAM::ManagedPolicy", part))
        assert "Roles" not in policy
        sending = [
            statement
            for statement in policy["PolicyDocument"]["Statement"]
            if "ssm:SendCommand" in statement["Action"]
        ]
        named, hosts = sending
        assert len(named["Resource"]) == len(documents)
        region, account = environment.environment.region, environment.environment.account
        (described,) = (
            statement["Resource"]
            for statement in policy["PolicyDocument"]["Statement"]
            if "cloudformation:DescribeStacks" in statement["Action"]
        )
        assert described == [f"arn:aws:cloudformation:{region}:{account}:stack/openqa-{name}-{part}/*"]
        assert "*" not in json.dumps(named["Resource"])
        assert hosts["Condition"] == {
            "StringEquals": {
                "ssm:resourceTag/openqa:environment": name,
                "ssm:resourceTag/openqa:role": part,
            }
        }
        (group,) = environment.properties("AWS::AutoScaling::AutoScalingGroup", part)
        tags = {tag["Key"]: tag["Value"] for tag in group["Tags"] if tag["PropagateAtLaunch"]}
        assert (tags["openqa:environment"], tags["openqa:role"]) == (name, part)


def test_a_hosts_commands_take_no_shell_text(environment: Synthesized) -> None:
    for made in environment.properties("AWS::SSM::Document"):
        # Without a new version in place, CloudFormation could not change a document that has a name.
        assert made["UpdateMethod"] == "NewVersion"
        content = made["Content"]
        (step,) = content["mainSteps"]
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(step)))
        assert used == set(content["parameters"])
        for parameter in content["parameters"].values():
            pattern = parameter["allowedPattern"]
            assert pattern.startswith("^")
            assert pattern.endswith("$")
            for text in ("a b", ";", "$(a)", "`a`", "'", '"', "&", "|", "\\", "<", ">", "*", "../a"):
                assert not re.search(pattern, text)
                assert not re.search(pattern, f"latest{text}")


def test_another_ssm_parameter_is_another_parameter_of_the_template() -> None:
    """Of the same name it would keep its value: an update of a stack takes no new default."""
    stack = Stack(App(), "stack")
    for image in ("/debian", "/golden", "ami-12345678"):
        machine_image(stack, image=image, architecture="x86_64")
    made = [child for child in stack.node.find_all() if isinstance(child, CfnParameter)]
    assert [parameter.default for parameter in made] == ["/debian", "/golden"]
