"""Which signals of instances CloudFormation counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from localcloud.aws.cloudformation.model import Resource
from localcloud.aws.cloudformation.resources.compute import AutoScalingGroup
from localcloud.aws.cloudformation.types import Context, ResourceError


class Waiting:
    """A resource that waits; between two looks at it the next signals arrive."""

    def __init__(self, *bursts: dict[str, str]) -> None:
        self.resource = Resource(logical_id="Group", type="AWS::AutoScaling::AutoScalingGroup", definition={})
        self.events: list[str] = []
        self._bursts = bursts

    def progress(self, text: str) -> None:
        self.events.append(text)

    def wait(self, done: Callable[[], bool], _: Any) -> bool:
        for burst in self._bursts:
            self.resource.signals |= burst
            if done():
                return True
        return False


def wait(waiting: Waiting, count: int, *, percent: int = 100, awaited: set[str] | None = None) -> None:
    AutoScalingGroup()._signals(cast(Context, waiting), count, "PT15M", percent, awaited=awaited)


def test_as_many_successes_as_wanted() -> None:
    waiting = Waiting({"i-1": "SUCCESS"}, {"i-2": "SUCCESS"})
    wait(waiting, 2)
    assert waiting.events == [f"Received SUCCESS signal with UniqueId i-{n}" for n in (1, 2)]


def test_a_failure_decides_at_once_and_a_successors_comes_too_late() -> None:
    waiting = Waiting({"i-1": "FAILURE", "i-2": "FAILURE", "i-3": "SUCCESS"})
    with pytest.raises(ResourceError, match=r"Received 1 FAILURE signal\(s\) out of 1\."):
        wait(waiting, 1)
    assert waiting.events == ["Received FAILURE signal with UniqueId i-1"]


def test_a_failure_after_the_last_success_comes_too_late() -> None:
    wait(Waiting({"i-1": "SUCCESS", "i-2": "FAILURE"}), 1)


def test_some_may_fail() -> None:
    waiting = Waiting({"i-1": "FAILURE"}, {"i-2": "SUCCESS"})
    wait(waiting, 2, percent=50)
    with pytest.raises(ResourceError, match=r"Received 2 FAILURE signal\(s\) out of 2\."):
        wait(Waiting({"i-1": "FAILURE", "i-2": "FAILURE"}), 2, percent=50)


def test_instances_that_nobody_waits_for_do_not_count() -> None:
    wait(Waiting({"i-old": "FAILURE"}, {"i-1": "SUCCESS"}), 1, awaited={"i-1"})
    with pytest.raises(ResourceError, match="Received 1 FAILURE"):
        wait(Waiting({"i-old": "SUCCESS"}, {"i-1": "FAILURE"}), 1, awaited={"i-1"})


def test_a_signal_that_does_not_come() -> None:
    with pytest.raises(ResourceError, match=r"Failed to receive 1 resource signal\(s\)"):
        wait(Waiting({"i-1": "SUCCESS"}), 2)
