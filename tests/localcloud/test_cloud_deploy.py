from __future__ import annotations

import pytest

from localcloud.deploy import report, unchanged


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
    assert told.startswith("i-1 failed: it left no word about its boot\n")
    assert told.endswith("line 999")
    assert len(told.splitlines()) < 50


def test_an_instance_that_came_up_did_not_fail() -> None:
    assert report("i-1", "login: openqa-on-aws: the webui works after 20 s\nPowering off.\n") is None
