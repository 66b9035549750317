"""The genuine CDK CLI against the embedded AWS, from bootstrap to destroy, with roll-backs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_ssm as ssm

from localcloud.aws.ports import Instance
from localcloud.aws.server import Server
from tests.localcloud.aws_helpers import ACCOUNT, REGION, FakeRuntime, open_server

ROOT = Path(__file__).parents[2]
STACK = "cycle"


def synthesize(directory: Path, *, user_data: str, greeting: str) -> Path:
    """A cloud assembly with one of most things."""
    app = cdk.App(outdir=str(directory), analytics_reporting=False)
    stack = cdk.Stack(app, STACK, env=cdk.Environment(account=ACCOUNT, region=REGION))
    vpc = ec2.CfnVPC(stack, "Vpc", cidr_block="10.1.0.0/16")
    subnet = ec2.CfnSubnet(
        stack, "Subnet", vpc_id=vpc.ref, cidr_block="10.1.0.0/24", availability_zone=f"{REGION}a"
    )
    role = iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    s3_assets.Asset(stack, "File", path=str(Path(__file__))).grant_read(role)
    profile = iam.CfnInstanceProfile(stack, "Profile", roles=[role.role_name])
    bucket = s3.Bucket(
        stack, "Bucket", versioned=True, enforce_ssl=True, removal_policy=cdk.RemovalPolicy.DESTROY
    )
    secretsmanager.Secret(stack, "Secret").grant_read(role)
    ssm.StringParameter(stack, "Greeting", parameter_name="/cycle/greeting", string_value=greeting)
    image = ssm.StringParameter.value_for_typed_string_parameter_v2(
        stack, "/cycle/ami", ssm.ParameterValueType.AWS_EC2_IMAGE_ID
    )
    template = ec2.CfnLaunchTemplate(
        stack,
        "Template",
        launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
            image_id=image,
            instance_type="t3.small",
            iam_instance_profile=ec2.CfnLaunchTemplate.IamInstanceProfileProperty(arn=profile.attr_arn),
            instance_initiated_shutdown_behavior="terminate",
            user_data=cdk.Fn.base64(user_data),
        ),
    )
    group = autoscaling.CfnAutoScalingGroup(
        stack,
        "Group",
        min_size="1",
        max_size="1",
        vpc_zone_identifier=[subnet.ref],
        launch_template=autoscaling.CfnAutoScalingGroup.LaunchTemplateSpecificationProperty(
            launch_template_id=template.ref, version=template.attr_latest_version_number
        ),
        lifecycle_hook_specification_list=[
            autoscaling.CfnAutoScalingGroup.LifecycleHookSpecificationProperty(
                lifecycle_hook_name=name,
                lifecycle_transition=f"autoscaling:EC2_INSTANCE_{transition}",
                default_result=default,
            )
            for name, transition, default in (
                ("ready", "LAUNCHING", "ABANDON"),
                ("drain", "TERMINATING", "CONTINUE"),
            )
        ],
    )
    group.cfn_options.creation_policy = cdk.CfnCreationPolicy(
        resource_signal=cdk.CfnResourceSignal(count=1, timeout="PT15M")
    )
    group.cfn_options.update_policy = cdk.CfnUpdatePolicy(
        auto_scaling_rolling_update=cdk.CfnAutoScalingRollingUpdate(
            min_instances_in_service=0,
            pause_time="PT15M",
            wait_on_resource_signals=True,
            suspend_processes=["ReplaceUnhealthy"],
        )
    )
    cdk.CfnOutput(stack, "BucketName", value=bucket.bucket_name)
    return Path(app.synth().directory)


class Cli:
    """The CDK CLI with the embedded AWS as its endpoint."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "operator",
            "AWS_SECRET_ACCESS_KEY": "operator",
            "AWS_REGION": REGION,
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "CI": "true",
        }

    def __call__(self, *arguments: str, app: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "node_modules/.bin/cdk"), *arguments, "--no-notices"]
        return subprocess.run(
            [*command, *(("--app", str(app)) if app else ())],
            cwd=self.environment["HOME"],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def deploy(self, app: Path) -> subprocess.CompletedProcess[str]:
        return self("deploy", "--require-approval=never", app=app)


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    server, endpoint = open_server()
    image = server.client("ec2").register_image(Name="base")["ImageId"]
    server.client("ssm").put_parameter(Name="/cycle/ami", Value=image, Type="String")
    yield server, endpoint
    server.stop()


def outcome(runtime: FakeRuntime, instance: Instance) -> None:
    """Hosts come up unless their user data says otherwise."""
    if instance.user_data == b"broken":
        runtime.fail(instance)
    else:
        runtime.succeed(instance)


def test_the_whole_cycle(server: tuple[Server, str], tmp_path: Path) -> None:
    aws, endpoint = server
    first = synthesize(tmp_path / "first", user_data="one", greeting="hello")
    second = synthesize(tmp_path / "second", user_data="two", greeting="good morning")
    broken = synthesize(tmp_path / "broken", user_data="broken", greeting="good night")
    cli = Cli(endpoint, tmp_path)

    def running() -> list[Instance]:
        return [instance for instance in aws.cloud.instances() if instance.state == "running"]

    def reasons() -> list[str]:
        events = aws.client("cloudformation").describe_stack_events(StackName=STACK)["StackEvents"]
        return [event.get("ResourceStatusReason", "") for event in events]

    def parameter() -> str:
        return str(aws.client("ssm").get_parameter(Name="/cycle/greeting")["Parameter"]["Value"])

    def stack() -> Any:
        return aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]

    with FakeRuntime(aws, outcome) as runtime:
        result = cli("bootstrap", f"aws://{ACCOUNT}/{REGION}")
        assert result.returncode == 0, result.stdout

        # A first deployment that fails leaves nothing behind.
        result = cli.deploy(broken)
        assert result.returncode == 1
        assert "Received 1 FAILURE signal(s) out of 1" in result.stdout
        assert stack()["StackStatus"] == "ROLLBACK_COMPLETE"
        assert not running()

        result = cli.deploy(first)
        assert result.returncode == 0, result.stdout
        (host,) = running()
        assert host.user_data == b"one"
        assert host.tags["aws:cloudformation:stack-name"] == STACK
        assert [output["OutputKey"] for output in stack()["Outputs"]] == ["BucketName"]

        result = cli.deploy(first)
        assert result.returncode == 0, result.stdout
        assert "(no changes)" in result.stdout
        result = cli("deploy", "--require-approval=never", "--force", app=first)
        assert "(no changes)" in result.stdout, result.stdout
        assert running() == [host]

        result = cli("diff", app=second)
        assert "good morning" in result.stdout, result.stdout

        # A new launch template version replaces the host: the old one drains and goes, the new one comes.
        result = cli.deploy(second)
        assert result.returncode == 0, result.stdout
        (replaced,) = running()
        assert replaced.user_data == b"two"
        assert host.id in runtime.drained
        assert parameter() == "good morning"
        assert any(f"Successfully terminated instance(s) [{host.id}]" in reason for reason in reasons())

        # A host that does not come up takes the whole update back, the parameter too.
        result = cli.deploy(broken)
        assert result.returncode == 1
        assert any(reason.startswith("Received FAILURE signal with UniqueId i-") for reason in reasons())
        assert stack()["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
        (restored,) = running()
        assert restored.user_data == b"two"
        assert restored.id != replaced.id
        assert parameter() == "good morning"

        result = cli("destroy", "--force", app=second)
        assert result.returncode == 0, result.stdout
        assert restored.id in runtime.drained
    assert not aws.cloud.instances()
    assert not aws.cloud.subnets()
    assert not aws.client("secretsmanager").list_secrets()["SecretList"]
    assert not aws.autoscaling.groups
    ours = aws.client("cloudformation").describe_stacks()["Stacks"]
    assert [entry["StackName"] for entry in ours] == ["CDKToolkit"]
