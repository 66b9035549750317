from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from localcloud import deploy
from localcloud.cloud import RunningCloud
from localcloud.deploy import report, unchanged, wait_for_fleets, worth_telling


@pytest.mark.parametrize(
    ("output", "same"),
    [
        (" ✅  openqa-local-network (no changes)\n ✅  openqa-local-webui (no changes)\n", True),
        ("\n✅  openqa-local-network (no changes)\n\n✅  openqa-local-webui\n", False),
        ("openqa-local-network: creating CloudFormation changeset...\n", False),
        ("", False),
    ],
)
def test_whether_a_deployment_changed_anything(output: str, same: bool) -> None:
    assert unchanged(output) is same


@pytest.mark.parametrize(
    ("state", "kind", "told"),
    [
        ("CREATE_IN_PROGRESS", "AWS::EC2::Route", False),
        ("CREATE_COMPLETE", "AWS::EC2::Route", True),
        ("CREATE_FAILED", "AWS::EC2::Route", True),
        ("CREATE_IN_PROGRESS", "AWS::AutoScaling::AutoScalingGroup", True),
        ("UPDATE_ROLLBACK_IN_PROGRESS", "AWS::CloudFormation::Stack", True),
    ],
)
def test_what_is_told_of_a_deployment(state: str, kind: str, told: bool) -> None:
    assert worth_telling(f"openqa-local-network | 2/38 | 11:11:07 PM | {state} | {kind} | Thing\n") is told


def test_what_a_failed_instance_said_last() -> None:
    console = (
        "[\x1b[0;32m  OK  \x1b[0m] Started\x1b[0m something.\r\n"
        "openqa-local-webui login: openqa-on-aws: preparing the host\n"
        "openqa-on-aws: first boot failed: no volume; powering off\n"
        "\x1b[?25lPowering off.\n\n"
    )
    assert report("i-1", console) == (
        "i-1 failed: first boot failed: no volume; powering off\n"
        "  | [  OK  ] Started something.\n"
        "  | openqa-local-webui login: openqa-on-aws: preparing the host\n"
        "  | openqa-on-aws: first boot failed: no volume; powering off\n"
        "  | Powering off."
    )


def test_only_the_end_of_a_long_console_is_shown() -> None:
    told = report("i-1", "\n".join(f"line {number}" for number in range(1000)))
    assert told is not None
    assert told.startswith("i-1 failed: it printed nothing about its boot\n")
    assert told.endswith("line 999")
    assert len(told.splitlines()) < 50


def test_an_instance_that_came_up_did_not_fail() -> None:
    assert report("i-1", "login: openqa-on-aws: the webui works after 20 s\nPowering off.\n") is None


class Groups:
    """A cloud with one group that wants one host, and what became of its hosts."""

    def __init__(self, work: Path, **hosts: str) -> None:
        self.work = work
        self.hosts = hosts  # i-… to lifecycle state or, in small letters, EC2's
        (work / "consoles").mkdir()
        for host in hosts:
            self.console(host).write_text(
                f"openqa-on-aws: first boot failed: {host} has no KVM; powering off\n"
            )

    def console(self, instance: str) -> Path:
        return self.work / "consoles" / f"{instance}.log"

    def client(self, _: str) -> Groups:
        return self

    def describe_auto_scaling_groups(self) -> dict[str, Any]:
        members = [
            {"InstanceId": host, "LifecycleState": state}
            for host, state in self.hosts.items()
            if not state.islower()
        ]
        group = {"AutoScalingGroupName": "g", "DesiredCapacity": 1, "Instances": members}
        return {"AutoScalingGroups": [group]}

    def describe_instances(self) -> dict[str, Any]:
        found = [
            {"InstanceId": host, "State": {"Name": state if state.islower() else "running"}}
            for host, state in self.hosts.items()
        ]
        return {"Reservations": [{"Instances": found}]}

    def describe_scaling_activities(self, **_: str) -> dict[str, Any]:
        activities = [
            {
                "Description": f"Launching a new EC2 instance: {host}",
                "StatusCode": "Cancelled",
                "StatusMessage": f"Lifecycle hook ready was abandoned for {host}.",
                "Cause": "a difference",
            }
            for host in self.hosts
        ]
        return {"Activities": activities[::-1]}


def wait(groups: Groups, known: tuple[str, ...] = ()) -> str | None:
    return wait_for_fleets(cast(RunningCloud, groups), known=known)


def test_hosts_that_all_serve_are_no_trouble(tmp_path: Path) -> None:
    assert wait(Groups(tmp_path, old="terminated", new="InService")) is None


def test_a_host_that_failed_is_told_with_its_groups_words(tmp_path: Path) -> None:
    told = wait(Groups(tmp_path, old="terminated", bad="terminated", next="Pending:Wait"), known=("old",))
    assert told is not None
    assert told.splitlines() == [
        "bad failed: first boot failed: bad has no KVM; powering off",
        "  | openqa-on-aws: first boot failed: bad has no KVM; powering off",
        "g: Launching a new EC2 instance: bad: Cancelled: Lifecycle hook ready was abandoned for bad.",
    ]


def test_hosts_that_take_too_long_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "_FLEET_SECONDS", -1)
    assert wait(Groups(tmp_path, slow="Pending:Wait")) == "Not all hosts came up within -1 seconds in g."
