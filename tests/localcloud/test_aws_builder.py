"""Disk images on the embedded AWS, whose machines only report: the stacks, roles and code of real hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import settings
from localcloud.aws.server import Server
from settings import Builder
from tests.localcloud.aws_helpers import REGION, FakeRuntime, open_server
from tests.localcloud.deployed import until
from tests.localcloud.test_aws_cycle import Cli
from tests.templates.synthesis import document, synthesize
from tests.userdata import machine
from userdata.host import document as documents
from userdata.host import roles
from userdata.host.disk_images import build, fetch
from userdata.host.host import Host
from userdata.host.layout import Layout

NAME = "images"
GROUP = f"openqa-{NAME}-builder-x86_64"
BUILDER = Builder(
    architecture="x86_64",
    instance_types=("t3.medium",),
    virtualization="none",
    program="sample",
    schedule="30 3 * * *",
)


@dataclass
class Deployed:
    """The stacks, and hosts that are folders here."""

    server: Server
    endpoint: str
    documents: dict[str, Any]
    folder: Path

    def instances(self, group: str) -> list[str]:
        answer = self.server.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        (found,) = answer["AutoScalingGroups"]
        return [entry["InstanceId"] for entry in found["Instances"] if entry["LifecycleState"] == "InService"]

    def serving(self, group: str) -> str:
        def found() -> str | None:
            return next(iter(self.instances(group)), None)

        return until(f"a host of {group}", found, seconds=60)

    def host(self, role: str, instance: str) -> Host:
        """A host that may do what its role may."""
        credentials = self.server.cloud.credentials(instance)
        assert credentials is not None
        session = boto3.Session(
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.token,
            region_name=REGION,
        )

        def client(service: str) -> Any:
            config = Config(s3={"addressing_style": "path"})
            return session.client(service, endpoint_url=self.endpoint, config=config)

        layout = Layout(self.folder / instance)
        layout.bundle.parent.mkdir(parents=True, exist_ok=True)
        layout.bundle.symlink_to(Path(__file__).parents[2])
        layout.runtime.mkdir(parents=True)
        return Host(
            document=self.documents[role],
            layout=layout,
            instance=instance,
            instance_type="t3.medium",
            address="10.99.0.10",
            client=client,
        )


def filled_in(made: Any, part: str, bucket: str) -> documents.Document:
    """The document of a stack's hosts, with the name of the bucket that CloudFormation fills in."""
    (template,) = made.properties("AWS::EC2::LaunchTemplate", part)
    data: dict[str, Any] = dict(document(template["LaunchTemplateData"]))
    for key in ("builder", "disk_images"):
        if key in data:
            data[key] = {**data[key], "bucket": bucket}
    return documents.parse(data)


@pytest.fixture
def deployed(tmp_path: Path, open_path: Path) -> Iterator[Deployed]:
    environment = settings.load("local").model_copy(update={"name": NAME, "builders": (BUILDER,)})
    made = synthesize(environment, tmp_path / "out", check=False)
    server, endpoint = open_server()
    image = server.client("ec2").register_image(Name="base")["ImageId"]
    server.client("ssm").put_parameter(Name="/openqa/local/ami/x86_64", Value=image, Type="String")
    cli = Cli(endpoint, tmp_path)
    with FakeRuntime(server):
        done = cli("bootstrap", "aws://123456789012/us-east-1")
        assert done.returncode == 0, done.stdout
        done = cli("deploy", "--all", "--require-approval=never", app=tmp_path / "out")
        assert done.returncode == 0, done.stdout[-4000:]
        stack = server.client("cloudformation").describe_stacks(StackName=f"openqa-{NAME}-storage")["Stacks"][
            0
        ]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        bucket = outputs["DiskImagesBucket"]
        told = {"builder": filled_in(made, "builders", bucket), "webui": filled_in(made, "webui", bucket)}
        yield Deployed(server, endpoint, told, open_path)
    server.stop()


class InService:
    """The instance metadata of a host that nobody wants gone."""

    def find(self, path: str) -> str:
        return "InService"


def refused(call: Callable[..., Any], **arguments: Any) -> bool:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return bool(error.value.response["Error"]["Code"] == "AccessDenied")


def test_a_builder_may_do_its_work_and_nothing_else(deployed: Deployed) -> None:
    scaling = deployed.server.client("autoscaling")
    (action,) = scaling.describe_scheduled_actions(AutoScalingGroupName=GROUP)["ScheduledUpdateGroupActions"]
    assert (action["Recurrence"], action["DesiredCapacity"]) == ("30 3 * * *", 1)
    assert deployed.instances(GROUP) == []

    # Its time comes.
    deployed.server.autoscaling.step(action["StartTime"])
    builder = deployed.host("builder", deployed.serving(GROUP))
    made = build.build(builder)
    assert {image.name for image in made.images} == {"disk_sample_1.img", "disk_sample_2.img"}
    # A second run finds nothing to do.
    assert build.build(builder).images == made.images

    webui = deployed.host("webui", deployed.serving(f"openqa-{NAME}-webui"))
    machine.keep_sample(webui)
    roles._lay_out(webui)
    fixed = webui.layout.data / "openqa/share/factory/hdd/fixed"
    fetch.fetch(webui)
    assert {path.name for path in fixed.iterdir()} == {image.name for image in made.images}

    bucket = build.settings(builder).bucket
    s3, theirs = builder.client("s3"), webui.client("s3")
    key = f"x86_64/{made.images[0].key}"
    assert refused(s3.delete_object, Bucket=bucket, Key=key)
    assert refused(s3.put_object, Bucket=bucket, Key="aarch64/manifest.json", Body=b"")
    assert refused(theirs.put_object, Bucket=bucket, Key="x86_64/manifest.json", Body=b"")
    assert refused(theirs.delete_object, Bucket=bucket, Key=key)

    # It goes, and its group stays empty.
    build.over(builder, InService())  # type: ignore[arg-type]
    until("the builder is gone", lambda: None if deployed.instances(GROUP) else True, seconds=60)
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 0
