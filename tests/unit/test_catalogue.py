"""The catalogue of instance types."""

from __future__ import annotations

import pytest

from fleet import catalogue

TYPES = list(catalogue.load().values())


@pytest.mark.parametrize(
    ("name", "disk_gb", "workers"),
    [
        ("t3.medium", None, 0),  # too little memory for one
        ("t3.large", None, 1),
        ("c8i.xlarge", None, 1),
        ("c8i.4xlarge", None, 4),  # memory decides
        ("c8i-flex.8xlarge", None, 8),
        ("m8i.xlarge", None, 2),
        ("m8i.4xlarge", None, 8),
        ("m8i-flex.2xlarge", None, 4),
        ("r8i.4xlarge", None, 8),  # vCPUs decide
        ("a1.metal", None, 4),
        ("c7g.metal", None, 16),
        ("m7g.metal", None, 32),
        ("m5zn.metal", None, 24),
        ("c5.metal", None, 24),
        ("c5d.metal", 3600, 24),
        ("m5.metal", None, 48),
        ("i3.metal", 15200, 36),
        ("m6i.metal", None, 60),  # Fedora's hosts: the cap
        ("m8i.4xlarge", 200, 5),  # disk decides
        ("m8i.4xlarge", 39.9, 0),
        ("c6a.metal", 0, 0),
    ],
)
def test_workers(name: str, disk_gb: float | None, workers: int) -> None:
    assert catalogue.load()[name].workers(disk_gb=disk_gb) == workers


def test_find() -> None:
    found = catalogue.find("c5d.metal")
    assert found is not None
    assert (found.vcpu, found.memory_gib, found.metal, found.storage_gb) == (96, 192, True, 3600)
    assert catalogue.find("c5d.wood") is None


@pytest.mark.parametrize("facts", TYPES, ids=lambda facts: facts.name)
def test_facts_are_plausible(facts: catalogue.InstanceType) -> None:
    assert facts.architecture in ("x86_64", "aarch64")
    assert facts.metal == (".metal" in facts.name)
    assert not (facts.nested and facts.metal)
    assert not (facts.nested and facts.architecture == "aarch64")
    assert 2 <= facts.vcpu <= 192
    assert 1 <= facts.memory_gib / facts.vcpu <= 8
    assert bool(facts.disks) == bool(facts.disk_gb)
    assert facts.network_gbps > 0
    assert facts.price is not None
    assert 0.004 < facts.price / facts.vcpu < 0.13
    assert facts.name[0] in "acdhimrtz", "vcpu_quota counts Standard families only"


def test_sizes_of_a_family_cost_by_vcpu() -> None:
    """A slip of the pen in a price or a vCPU count shows against the family's other sizes."""
    families: dict[str, list[catalogue.InstanceType]] = {}
    for facts in TYPES:
        if (
            not facts.metal
            and facts.price is not None
            and facts.name.split(".")[1] not in ("small", "medium")
        ):
            families.setdefault(facts.name.split(".")[0], []).append(facts)
    for family, sizes in families.items():
        if family in ("t3", "t3a", "t4g"):
            continue  # vCPUs do not set a burstable type's price
        rates = [facts.price / facts.vcpu for facts in sizes if facts.price is not None]
        assert max(rates) == pytest.approx(min(rates), rel=0.01), family


def test_a_volume_costs_by_size_and_by_the_throughput_that_its_size_does_not_include() -> None:
    month = 730
    assert catalogue.volume_price(100) * month == pytest.approx(8)
    assert catalogue.volume_price(100, 225) * month == pytest.approx(12)
