"""Disk images: built by a host that comes and goes, shown by the web UI's, never by halves."""

from __future__ import annotations

from argparse import Namespace

import pytest

import settings
from ops import disk_images
from settings import Environment
from tests.localcloud.content.conftest import BUILDER
from tests.localcloud.deployed import Deployment, until
from userdata.host.disk_images.manifest import Manifest

pytestmark = pytest.mark.images

GROUP = "builder-x86_64"
MAKING = "/var/lib/openqa-disk-images"
FIXED = "/srv/data/openqa/share/factory/hdd/fixed"
NAMES = {"disk_sample_1.img", "disk_sample_2.img"}
MIB = 1024**2


def start(environment: Environment) -> None:
    assert disk_images.build(environment, Namespace(arch=None)) == 0


def shown(content: Deployment) -> set[str]:
    (webui,) = content.serving("webui")
    content.run(webui, "systemctl", "start", "disk-images.service")
    return set(content.run(webui, "ls", "--almost-all", FIXED).stdout.split())


def test_a_builder_comes_publishes_and_goes(content: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    environment = settings.load("local").model_copy(update={"name": content.name, "builders": (BUILDER,)})
    assert (content.instances(GROUP), content.group(GROUP)["DesiredCapacity"]) == ([], 0)
    start(environment)

    def half_made() -> str | None:
        running = [instance for instance in content.instances(GROUP) if content.cloud.leader(instance)]
        for instance in running:
            listed = content.run(instance, "ls", MAKING, check=False).stdout.split()
            if any(name.endswith(".tmp") for name in listed):
                return instance
        return None

    first = until("a builder makes an image", half_made, seconds=300)
    # A second start while one is at work changes nothing.
    start(environment)
    assert f"a builder is at work already: {first}" in capsys.readouterr().out
    assert content.instances(GROUP) == [first]

    # Killed midway: nothing is published, nothing is shown.
    content.cloud.client("ec2").terminate_instances(InstanceIds=[first])
    assert disk_images.read(environment) == {"x86_64": None}
    assert not shown(content) & NAMES

    # Its group brings another, unless the first one had the time to empty it: the next run does the work.
    until("the killed builder is gone", lambda: None if first in content.instances(GROUP) else True)
    start(environment)

    def published() -> Manifest | None:
        return disk_images.read(environment)["x86_64"]

    manifest = until("the images are published", published, seconds=300)
    until("the builder is gone", lambda: None if content.instances(GROUP) else True, seconds=120)
    assert content.group(GROUP)["DesiredCapacity"] == 0
    assert {image.name for image in manifest.images} == NAMES
    assert manifest.checked is not None
    # The killed one may have said 1, but the last was good.
    assert content.told("ImagesFailed", "Minimum", period=3600, Architecture="x86_64") == [0.0]

    assert shown(content) >= NAMES
    (webui,) = content.serving("webui")
    content.run(webui, "systemctl", "is-active", "disk-images.timer")
    for image in manifest.images:
        path = f"{FIXED}/{image.name}"
        assert content.run(webui, "sha256sum", path).stdout.split()[0] == image.sha256
        about = content.run(webui, "stat", "--format=%s %b %u %a", path).stdout.split()
        size, blocks, user, mode = about
        assert (int(size), user, mode) == (image.bytes, "601", "644")
        assert int(size) == 64 * MIB
        assert int(blocks) * 512 < 4 * MIB, "the hole was filled"
