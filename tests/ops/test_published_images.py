"""The operator's command about disk images, against moto's AWS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ops import __main__ as main
from ops import disk_images
from tests.unit.test_builder_settings import SAMPLE
from tests.unit.test_settings import BASE
from userdata.host.disk_images.manifest import Manifest
from userdata.host.disk_images.store import Store

REGION = "us-east-1"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "here.toml").write_text(BASE + SAMPLE)
    return tmp_path


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(disk_images, "stack_outputs", lambda *_: {"DiskImagesBucket": "disk-images"})
    with mock_aws():
        client = boto3.client("s3", region_name=REGION)
        client.create_bucket(Bucket="disk-images")
        yield client


class Groups:
    """Auto Scaling with one group, or none."""

    def __init__(self, *names: str) -> None:
        self.desired = dict.fromkeys(names, 0)

    def describe_auto_scaling_groups(self, *, AutoScalingGroupNames: list[str]) -> Any:  # noqa: N803
        found = [
            {"DesiredCapacity": self.desired[name], "Instances": [{"InstanceId": "i-0"}] * self.desired[name]}
            for name in AutoScalingGroupNames
            if name in self.desired
        ]
        return {"AutoScalingGroups": found}

    def set_desired_capacity(self, *, AutoScalingGroupName: str, DesiredCapacity: int) -> None:  # noqa: N803
        self.desired[AutoScalingGroupName] = DesiredCapacity


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The builders' stack is there."""
    monkeypatch.setattr(disk_images, "stack_outputs", lambda *_: {})


def run(directory: Path, *words: str) -> int:
    return main.main(["--env", "here", "--environments", str(directory), "disk-images", *words])


@pytest.mark.usefixtures("deployed")
def test_a_builder_is_started_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = Groups("openqa-here-builder-x86_64")
    monkeypatch.setattr(disk_images, "client", lambda *_: groups)
    assert run(directory, "build") == 0
    assert groups.desired == {"openqa-here-builder-x86_64": 1}
    assert "x86_64: a builder is coming up" in capsys.readouterr().out
    assert run(directory, "build", "--arch", "x86_64") == 0
    assert "x86_64: a builder is at work already: i-0" in capsys.readouterr().out
    assert run(directory, "build", "--arch", "aarch64") == 1
    assert "here has no such builder" in capsys.readouterr().err


@pytest.mark.usefixtures("deployed")
def test_a_builder_that_is_not_deployed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(disk_images, "client", lambda *_: Groups())
    assert run(directory, "build") == 1
    assert "here is not deployed with a builder for x86_64" in capsys.readouterr().err


def test_what_was_published(
    s3: Any, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(directory, "list") == 1
    assert "x86_64: nothing has been published yet" in capsys.readouterr().out
    store = Store(s3, bucket="disk-images", prefix="x86_64/")
    path = tmp_path / "disk_a.img"
    path.write_bytes(b"one")
    image = store.put(path)
    store.write(Manifest(checked="2026-01-01T00:00:00+00:00", images=(image,)), tag=None)
    assert run(directory, "list") == 0
    shown = capsys.readouterr().out
    assert "x86_64: 1 images, up to date as of 2026-01-01T00:00:00+00:00" in shown
    assert f"disk_a.img  0.0 GiB  sha256 {image.sha256}" in shown
    s3.put_object(Bucket="disk-images", Key="x86_64/manifest.json", Body=b"{")
    assert run(directory, "list") == 1
    assert "x86_64/manifest.json: it is not a manifest of disk images" in capsys.readouterr().err


def test_a_profile_that_there_is_not_is_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert run(directory, "build") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot use AWS's cloudformation with the shell's settings" in line
    assert "nobody" in line
