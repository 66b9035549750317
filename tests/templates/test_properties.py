"""What holds for every template of every environment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from constructs.acknowledged import reported
from constructs.security_groups import ANYWHERE, flows

import settings
from fleet import catalogue
from settings.checks import FLEET_BYTES, TEXTS_BYTES, texts
from settings.model import FLEETS, ZONE_LETTERS, Environment
from tests.templates.synthesis import Json, Synthesized, document, rendered, synthesize, user_data, walk

USER_DATA_LIMIT = 16 * 1024
RULES_LIMIT = 60
PARAMETER_LIMIT = 4096
# Of a role's policies together, without spaces: the IAM user guide, "IAM and AWS STS quotas".
POLICIES_LIMIT = 10_240
TEMPLATE_LIMIT = 1_000_000
INTRINSIC = r'\{"(?:Fn::ImportValue|Fn::GetAtt|Ref)":[^{}]*\}'
REFERENCE_LENGTH = 150  # of an ARN or a name that CloudFormation fills in, at most
# Actions for which IAM knows no resources: AWS's service authorization reference.
ANY_RESOURCE = re.compile(
    r"(autoscaling|ec2):Describe\w+|cloudwatch:PutMetricData|ssm:GetCommandInvocation|ssmmessages:\w+"
)
HOOKS = {
    ("ready", "autoscaling:EC2_INSTANCE_LAUNCHING", "ABANDON"),
    ("drain", "autoscaling:EC2_INSTANCE_TERMINATING", "CONTINUE"),
}


def launch_templates(environment: Synthesized) -> Iterator[Json]:
    for properties in environment.properties("AWS::EC2::LaunchTemplate"):
        yield properties["LaunchTemplateData"]


def filled(text: str) -> int:
    """Returns how long a text is at most, once CloudFormation has filled it in."""
    return len(re.sub(r"\$\{(ImportValue|Ref|GetAtt) [^}]*\}", "x" * REFERENCE_LENGTH, text))


def listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def test_no_managed_policies(environment: Synthesized) -> None:
    for role in environment.properties("AWS::IAM::Role"):
        assert "ManagedPolicyArns" not in role


def test_open_ingress_only_at_a_public_load_balancer(environment: Synthesized) -> None:
    rules = [
        (group["GroupDescription"], rule["FromPort"], rule["ToPort"])
        for group in environment.properties("AWS::EC2::SecurityGroup")
        for rule in group.get("SecurityGroupIngress", ())
        if rule.get("CidrIp") == ANYWHERE
    ]
    for description, first, last in rules:
        assert environment.environment.public
        assert "load balancer" in description
        assert first == last
        assert first in (80, 443)
    for rule in environment.properties("AWS::EC2::SecurityGroupIngress"):
        assert "SourceSecurityGroupId" in rule


def test_nothing_has_the_vpcs_default_security_group(environment: Synthesized) -> None:
    """CloudFormation cannot take its rules away: whatever names no group of its own would have it."""
    groups = [
        interface["Groups"]
        for template in launch_templates(environment)
        for interface in template["NetworkInterfaces"]
    ]
    groups += [interface["GroupSet"] for interface in environment.properties("AWS::EC2::NetworkInterface")]
    kind = "AWS::ElasticLoadBalancingV2::LoadBalancer"
    groups += [balancer["SecurityGroups"] for balancer in environment.properties(kind)]
    assert all(groups)
    for template in environment.templates.values():
        assert "DefaultSecurityGroup" not in json.dumps(template)


def test_every_rule_says_why(environment: Synthesized) -> None:
    allowed = re.compile(r"[\w .:/()#,@\[\]+=&;{}!$*-]{1,255}")  # EC2's characters for a description
    for name, node in (node for template in environment.templates.values() for node in walk(template)):
        if name and name[-1] in ("Description", "GroupDescription") and "SecurityGroup" in "".join(name):
            assert allowed.fullmatch(node), node
    assert all(flow.why for flow in flows(environment.environment))


def test_no_wildcard_actions(environment: Synthesized, replicated: Synthesized) -> None:
    for _, statement in (*environment.statements(), *replicated.statements()):
        assert statement["Effect"] == "Allow"
        assert listed(statement["Action"])
        assert listed(statement["Resource"])
        assert not [action for action in listed(statement["Action"]) if "*" in str(action)]


def test_statements_of_every_kind_are_looked_at(replicated: Synthesized) -> None:
    allowed = {action for _, statement in replicated.statements() for action in listed(statement["Action"])}
    # Of a role's own policy, of an operator's managed policy, of a policy that is added to a role.
    assert {"secretsmanager:GetSecretValue", "ssm:SendCommand", "s3:ReplicateObject"} <= allowed


def test_every_wildcard_resource_is_acknowledged(environment: Synthesized) -> None:
    """In what is shipped: the security rules do not look into the policy of who copies backups elsewhere."""
    acknowledged = environment.acknowledged()
    for part, statement in environment.statements():
        for resource in listed(statement["Resource"]):
            if "*" in str(resource):
                rule = f"AwsSolutions::AwsSolutions-IAM5[Resource::{reported(resource)}]"
                assert any(rule == id and f"-{part}/" in path for path, id in acknowledged), resource


def test_only_what_knows_no_resources_is_allowed_on_all(environment: Synthesized) -> None:
    """The security rules miss it on a role that has one such statement: all of that role are acknowledged."""
    for _, statement in environment.statements():
        if "*" in listed(statement["Resource"]):
            for action in map(str, listed(statement["Action"])):
                assert ANY_RESOURCE.fullmatch(action), action
                assert statement.get("Condition") or action.startswith("ssmmessages:"), action


def test_roles_are_for_services(environment: Synthesized) -> None:
    for role in environment.properties("AWS::IAM::Role"):
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            assert set(statement["Principal"]) == {"Service"}


def test_services_that_say_for_what_they_act_act_for_nobody_elses(environment: Synthesized) -> None:
    place = f"{environment.environment.region}:{environment.environment.account}"
    sources = {
        "dlm.amazonaws.com": f"arn:aws:dlm:{place}:policy/*",
        "vpc-flow-logs.amazonaws.com": f"arn:aws:ec2:{place}:vpc-flow-log/*",
    }
    conditions = {
        statement["Principal"]["Service"]: statement.get("Condition")
        for role in environment.properties("AWS::IAM::Role")
        for statement in role["AssumeRolePolicyDocument"]["Statement"]
    }
    assert conditions.pop("ec2.amazonaws.com") is None
    assert conditions == {
        service: {
            "StringEquals": {"aws:SourceAccount": environment.environment.account},
            "ArnLike": {"aws:SourceArn": source},
        }
        for service, source in sources.items()
    }


def test_no_secret_in_a_template(environment: Synthesized) -> None:
    forbidden = {"SecretString", "MasterUserPassword", "Password", "SecretAccessKey"}
    for template in environment.templates.values():
        for path, node in walk(template):
            assert not path or path[-1] not in forbidden
            assert not isinstance(node, str) or "{{resolve:" not in node
            assert not isinstance(node, str) or "PRIVATE KEY" not in node
            assert not isinstance(node, str) or not re.search(r"\bAKIA[0-9A-Z]{16}\b", node)


def test_no_rule_of_a_security_group_is_there_twice(environment: Synthesized) -> None:
    """EC2 knows a rule by protocol, ports and peer: of two that are alike, the one that goes takes both."""
    for group in environment.properties("AWS::EC2::SecurityGroup"):
        for kind in ("SecurityGroupIngress", "SecurityGroupEgress"):
            rules = [
                tuple(rule.get(key) for key in ("IpProtocol", "FromPort", "ToPort", "CidrIp"))
                for rule in group.get(kind, ())
            ]
            assert len(set(rules)) == len(rules) <= RULES_LIMIT


@pytest.mark.parametrize("port", [80, 443, 5671])
def test_a_brokers_port_opens_each_port_once(port: int) -> None:
    asked = settings.load("fedora")
    assert asked.schedule
    broker = f"amqps://somebody@broker.example.org:{port}/host"
    schedule = asked.schedule.model_copy(update={"broker": broker})
    ports = [
        flow.ports
        for flow in flows(asked.model_copy(update={"schedule": schedule}))
        if (flow.source, flow.target) == ("webui", "internet")
    ]
    assert len(ports) == len(set(ports))
    assert set(ports) == {(80, 80), (443, 443), (port, port)}


def test_user_data_is_small_complete_and_free_of_secrets(environment: Synthesized) -> None:
    templates = list(launch_templates(environment))
    assert len(templates) == 2 + len(environment.environment.fleets) + len(environment.environment.builders)
    for template in templates:
        text = user_data(template)
        assert filled(text) < USER_DATA_LIMIT
        assert "@@" not in text
        for arn in document(template)["secrets"].values():
            assert arn is None or re.fullmatch(r"\$\{ImportValue openqa-[\w-]+-storage:\w+\}", arn)


def largest(name: str) -> Environment:
    """Returns a shipped environment with the longest names and lists, all zones and all fleets."""
    asked = settings.load(name)
    region = "us-gov-west-1"
    zones = tuple(region + letter for letter in ZONE_LETTERS)
    types = sorted(catalogue.load(), key=len)[-40:]  # the most, with the longest names
    lists = json.dumps({"classes": [""], "instance_types": types, "warm": []})
    fleet = asked.fleets[0].model_copy(
        update={
            "classes": ("x" * (FLEET_BYTES - len(lists)),),
            "instance_types": tuple(types),
            "workers_per_host": None,
            "warm": (),
            "spare": 2 / 3,
            "spot_share": 0.5,
            "network": "tap",
            "tap_topology": "mesh",
        }
    )
    names = [f"fleet-{number:02}-named-so" for number in range(FLEETS)]
    network = asked.network.model_copy(update={"availability_zones": zones, "zone": zones[0]})
    rest = sum(len(json.dumps(text)) for text in texts(asked).values())
    packages = tuple(f"{number:02}-{'x' * 57}" for number in range(100))
    content = asked.content.model_copy(
        update={"download_domains": ("x" * (TEXTS_BYTES - rest),), "worker_packages": packages}
    )
    return asked.model_copy(
        update={
            "name": "x" * 16,
            "region": region,
            "network": network,
            "content": content,
            "fleets": tuple(fleet.model_copy(update={"name": name}) for name in names),
        }
    )


@pytest.mark.parametrize("name", ["production", "fedora"])
def test_as_much_as_settings_allow_fits(tmp_path: Path, name: str) -> None:
    synthesized = synthesize(largest(name), tmp_path, check=False)
    for role in synthesized.properties("AWS::IAM::Role"):
        written = json.dumps([policy["PolicyDocument"] for policy in role["Policies"]])
        assert len(re.sub(r"\s", "", re.sub(INTRINSIC, "x" * REFERENCE_LENGTH, written))) < POLICIES_LIMIT
    for template in launch_templates(synthesized):
        assert filled(user_data(template)) < USER_DATA_LIMIT
    parameters = synthesized.properties("AWS::SSM::Parameter", "workers")
    assert len(parameters) == FLEETS
    for parameter in parameters:
        value = re.sub(r"\$\{ImportValue [^}]*\}", "subnet-0123456789abcdef0", rendered(parameter["Value"]))
        assert len(json.loads(value)["subnets"]) == len(ZONE_LETTERS)
        assert len(value) <= PARAMETER_LIMIT
    for file in synthesized.directory.glob("*.template.json"):
        assert file.stat().st_size <= TEMPLATE_LIMIT


def test_instance_metadata(environment: Synthesized) -> None:
    for template in launch_templates(environment):
        assert template["MetadataOptions"] == {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        }


def test_no_key_pair(environment: Synthesized) -> None:
    for template in launch_templates(environment):
        assert "KeyName" not in template
    assert not environment.resources("AWS::EC2::KeyPair")


def test_no_port_of_ssh(environment: Synthesized) -> None:
    for flow in flows(environment.environment):
        if flow.ports and flow.target != "internet":
            assert not flow.ports[0] <= 22 <= flow.ports[1]


def test_volumes_are_encrypted(environment: Synthesized) -> None:
    for template in launch_templates(environment):
        assert template["BlockDeviceMappings"]
        for mapping in template["BlockDeviceMappings"]:
            assert mapping["Ebs"]["Encrypted"] is True
            assert mapping["Ebs"]["VolumeType"] == "gp3"
    for volume in environment.properties("AWS::EC2::Volume"):
        assert volume["Encrypted"] is True


def test_nothing_is_left_of_a_host_that_is_gone(environment: Synthesized) -> None:
    """One that powers itself off, because its first boot failed, is of no further use."""
    for template in launch_templates(environment):
        assert template["InstanceInitiatedShutdownBehavior"] == "terminate"
        for mapping in template["BlockDeviceMappings"]:
            assert mapping["Ebs"]["DeleteOnTermination"] is True


def test_hosts_and_their_volumes_say_whose_they_are(environment: Synthesized) -> None:
    for template in launch_templates(environment):
        assert {given["ResourceType"] for given in template["TagSpecifications"]} == {"instance", "volume"}
        for given in template["TagSpecifications"]:
            tags = {tag["Key"]: tag["Value"] for tag in given["Tags"]}
            assert tags["openqa:environment"] == environment.environment.name


def test_buckets_are_encrypted_and_private(environment: Synthesized) -> None:
    buckets = environment.resources("AWS::S3::Bucket")
    for bucket in (resource["Properties"] for resource in buckets.values()):
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]
        assert list(bucket["PublicAccessBlockConfiguration"].values()) == [True] * 4
    insecure = ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    secure = [
        policy["Bucket"]["Ref"]
        for policy in environment.properties("AWS::S3::BucketPolicy")
        if insecure
        in [
            (statement["Effect"], statement.get("Condition"))
            for statement in policy["PolicyDocument"]["Statement"]
        ]
    ]
    assert sorted(secure) == sorted(name.split("/")[1] for name in buckets)
    for _, statement in environment.statements(kind="AWS::S3::BucketPolicy"):
        if statement["Effect"] == "Allow":  # a service, for what it does for this environment
            assert set(statement["Principal"]) == {"Service"}
            assert statement["Condition"]


def test_hooks_in_every_group(environment: Synthesized) -> None:
    groups = environment.properties("AWS::AutoScaling::AutoScalingGroup")
    assert len(groups) == 2 + len(environment.environment.fleets) + len(environment.environment.builders)
    for group in groups:
        hooks = group["LifecycleHookSpecificationList"]
        assert {
            (hook["LifecycleHookName"], hook["LifecycleTransition"], hook["DefaultResult"]) for hook in hooks
        } == HOOKS
        assert all(30 <= hook["HeartbeatTimeout"] <= 7200 for hook in hooks)
        assert "DesiredCapacity" not in group


def test_no_group_leaves_it_to_the_account_which_host_comes_first(environment: Synthesized) -> None:
    """With its setting ``launchBeforeTerminate``, a group without a policy would keep the old host."""
    for group in environment.properties("AWS::AutoScaling::AutoScalingGroup"):
        policy = group["InstanceMaintenancePolicy"]
        assert policy == {"MinHealthyPercentage": 0, "MaxHealthyPercentage": 100}


def test_state_is_kept_where_it_must_be(environment: Synthesized) -> None:
    """But what a first deployment made that failed: its fixed names would stop the next."""
    gone = environment.environment.disposable
    deleted, replaced = ("Delete", "Delete") if gone else ("RetainExceptOnCreate", "Retain")
    for kind in ("AWS::EC2::Volume", "AWS::S3::Bucket", "AWS::SecretsManager::Secret"):
        resources = environment.resources(kind)
        assert resources
        for resource in resources.values():
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (deleted, replaced)


def test_stacks_with_state_are_protected(environment: Synthesized) -> None:
    prefix = f"openqa-{environment.environment.name}"
    for part in environment.templates:
        stack = environment.manifest["artifacts"][f"{prefix}-{part}"]["properties"]
        protected = part in ("dns", "storage") and not environment.environment.disposable
        assert stack["terminationProtection"] is protected


def test_no_custom_resources(environment: Synthesized) -> None:
    for template in environment.templates.values():
        for resource in template["Resources"].values():
            assert not resource["Type"].startswith(("Custom::", "AWS::CloudFormation::", "AWS::Lambda::"))


def test_every_export_is_of_something_that_stays(environment: Synthesized) -> None:
    kept = {
        "AWS::EC2::NetworkInterface",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::Subnet",
        "AWS::EC2::VPC",
        "AWS::EC2::Volume",
        "AWS::Route53::HostedZone",
        "AWS::S3::Bucket",
        "AWS::SecretsManager::Secret",
    }
    for template in environment.templates.values():
        for output in template.get("Outputs", {}).values():
            if "Export" in output:
                value = output["Value"]
                name = value.get("Ref") or value["Fn::GetAtt"][0]
                assert template["Resources"][name]["Type"] in kept


def test_only_iam_capabilities_without_names(environment: Synthesized) -> None:
    for kind in ("AWS::IAM::Role", "AWS::IAM::InstanceProfile"):
        for properties in environment.properties(kind):
            assert not {"RoleName", "InstanceProfileName"} & set(properties)
