"""The names of worker hosts: leased, kept, given back. Many at a time: tests/localcloud/test_names.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.userdata import machine
from userdata.host import names
from userdata.host.errors import HostError
from userdata.host.host import Host

TABLE = "openqa-test-names"


@pytest.fixture
def group(aws: None, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The instances of the Auto Scaling group."""
    members: set[str] = set()
    machine.make_names(TABLE)
    monkeypatch.setattr(names, "_members", lambda _: members)
    return members


def launch(root: Path, instance: str, group: set[str]) -> Host:
    group.add(instance)
    made = machine.host(root / instance, "worker", instance=instance)
    made.layout.name.unlink()
    return made


def leases() -> dict[int, str]:
    items = boto3.client("dynamodb", region_name=machine.REGION).scan(TableName=TABLE)["Items"]
    return {int(item["number"]["N"]): item["instance"]["S"] for item in items}


@given(
    holders=st.dictionaries(st.integers(1, 20), st.sampled_from("abcdefgh")),
    members=st.frozensets(st.sampled_from("abcdefgh")),
)
def test_free_numbers_are_free_and_all_others_are_not(
    holders: dict[int, str], members: frozenset[str]
) -> None:
    found = list(islice(names.free(holders, members), 3))
    assert all(holders.get(number) not in members for number in found)
    assert all(holders.get(other) in members for other in {*range(1, found[-1])} - {*found})


def test_names_are_leased_from_the_lowest_on_and_used_again(tmp_path: Path, group: set[str]) -> None:
    first, second, third = (launch(tmp_path, f"i-{number}", group) for number in range(3))
    assert [names.take(host) for host in (first, second, third)] == [f"standard-{n}" for n in (1, 2, 3)]
    assert (first.name, third.name) == ("standard-1", "standard-3")
    names.release(second)
    assert names.take(launch(tmp_path, "i-3", group)) == "standard-2"


def test_a_host_that_has_a_name_gets_it_again(tmp_path: Path, group: set[str]) -> None:
    other, host = launch(tmp_path, "i-0", group), launch(tmp_path, "i-1", group)
    assert (names.take(other), names.take(host), names.take(host)) == (
        "standard-1",
        "standard-2",
        "standard-2",
    )
    names.release(other)
    assert names.take(host) == "standard-2"
    assert leases() == {2: "i-1"}


def test_the_name_of_a_host_that_is_gone_is_taken_over(tmp_path: Path, group: set[str]) -> None:
    gone = launch(tmp_path, "i-0", group)
    names.take(gone)
    heir = launch(tmp_path, "i-1", group)
    group.remove("i-0")
    assert names.take(heir) == "standard-1"
    # What is done late is done to nobody's harm.
    names.release(gone)
    assert leases() == {1: "i-1"}
    assert not names.keep(gone)
    assert names.keep(heir)


def test_a_lost_table_comes_back(tmp_path: Path, group: set[str]) -> None:
    hosts = [launch(tmp_path, f"i-{number}", group) for number in range(3)]
    for host in hosts:
        names.take(host)
    before = leases()
    boto3.client("dynamodb", region_name=machine.REGION).delete_table(TableName=TABLE)
    machine.make_names(TABLE)
    assert leases() == {}
    assert all(names.keep(host) for host in hosts)
    assert leases() == before


def test_other_fleets_have_names_of_their_own(tmp_path: Path, group: set[str]) -> None:
    names.take(launch(tmp_path, "i-0", group))
    data = machine.read("worker")
    data["worker"]["fleet"] = "other"
    other = machine.host(tmp_path / "other", data, instance="i-1")
    group.add("i-1")
    assert names.take(other) == "other-1"


def test_a_host_that_another_one_beat_takes_the_next(
    tmp_path: Path, group: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faster, slower = launch(tmp_path, "i-0", group), launch(tmp_path, "i-1", group)
    seen: Iterator[Any] = iter([{}])
    real = names._holders

    def look(host: Host) -> dict[int, str]:
        found = next(seen, None)
        if found is not None and host is slower:
            names.take(faster)
            return {}
        return real(host)

    monkeypatch.setattr(names, "_holders", look)
    assert names.take(slower, sleep=lambda _: pytest.fail("nobody must be asked again")) == "standard-2"


def test_a_host_that_comes_while_another_looks_keeps_its_name(
    tmp_path: Path, group: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slower, came = launch(tmp_path, "i-0", group), list[Host]()
    real = names._members

    def look(host: Host) -> set[str]:
        found = set(real(host))
        if host is slower and not came:
            came.append(launch(tmp_path, "i-1", group))
            names.take(came[0])
        return found

    monkeypatch.setattr(names, "_members", look)
    assert names.take(slower, sleep=lambda _: None) == "standard-2"
    assert leases() == {1: "i-1", 2: "i-0"}


def test_an_answer_that_was_lost_costs_no_second_name(
    tmp_path: Path, group: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = launch(tmp_path, "i-0", group)
    real = names._put
    monkeypatch.setattr(names, "_put", lambda *a, **more: real(*a, **more) and real(*a, **more))
    assert names.take(host) == "standard-1"
    assert leases() == {1: "i-0"}


def test_a_list_of_members_without_this_host_is_not_believed(tmp_path: Path, group: set[str]) -> None:
    names.take(launch(tmp_path, "i-0", group))
    late = launch(tmp_path, "i-1", group)
    group.clear()

    def appear(_: float) -> None:
        group.update({"i-0", "i-1"})

    assert names.take(late, sleep=appear) == "standard-2"


def test_a_host_without_a_chance_says_so(tmp_path: Path, group: set[str]) -> None:
    host = launch(tmp_path, "i-0", group)
    group.clear()
    with pytest.raises(HostError, match=r"host name: no free one after \d+ attempts"):
        names.take(host, sleep=lambda _: None)
    with pytest.raises(HostError, match="host name: cannot read"):
        _ = host.name


def test_a_table_that_is_not_there_is_a_reason(
    tmp_path: Path, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_members", lambda host: {host.instance})
    with pytest.raises(HostError, match=r"host name: .*ResourceNotFoundException"):
        names.take(machine.host(tmp_path, "worker"))
