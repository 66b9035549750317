from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest

from localcloud import imds
from localcloud.aws.ports import Instance, Interface
from tests.localcloud.samples import ADDRESS, FixedInstances, instance, metadata_options

OTHER = IPv4Address("10.99.1.6")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def service(*instances: Instance, clock: Clock | None = None) -> imds.Service:
    return imds.Service(
        FixedInstances(*instances), region="us-east-1", account="123456789012", clock=clock or Clock()
    )


def token(metadata: imds.Service, lifetime: str = "60", source: IPv4Address = ADDRESS) -> str:
    answer = metadata.answer(
        "PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": lifetime}, source
    )
    assert answer.status == 200
    return answer.body.decode()


def get(metadata: imds.Service, path: str, source: IPv4Address = ADDRESS) -> imds.Answer:
    headers = {"x-aws-ec2-metadata-token": token(metadata, source=source)}
    return metadata.answer("GET", f"/latest/{path}", headers, source)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("meta-data/instance-id", "i-1"),
        ("meta-data/local-ipv4", "10.99.1.5"),
        ("meta-data/local-hostname", "ip-10-99-1-5.ec2.internal"),
        ("meta-data/placement/availability-zone", "us-east-1a"),
        ("meta-data/network/interfaces/macs/", "02:00:00:00:00:01/"),
        ("meta-data/network/interfaces/macs/02:00:00:00:00:01/security-group-ids", "sg-1\nsg-2"),
        ("meta-data/network/interfaces/macs/02:00:00:00:00:01/subnet-ipv4-cidr-block", "10.99.1.0/24"),
        ("meta-data/iam/security-credentials/", "worker"),
        ("meta-data/tags/instance/Name", "small"),
        ("meta-data/autoscaling/target-lifecycle-state", "InService"),
        ("user-data", "#!/bin/sh\n"),
        ("dynamic/instance-identity/", "document"),
    ],
)
def test_what_it_tells(path: str, value: str) -> None:
    assert get(service(instance()), path) == imds.Answer(200, value.encode())


@pytest.mark.parametrize(
    "path", ["meta-data/spot/instance-action", "meta-data/public-keys", "nonsense", "x/y"]
)
def test_what_it_does_not_know(path: str) -> None:
    assert get(service(instance()), path).status == 404


def test_what_ec2_announces_to_a_spot_instance() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    told = get(service(replace(instance(), interruption=moment)), "meta-data/spot/instance-action")
    assert json.loads(told.body) == {"action": "terminate", "time": "2026-01-02T03:04:05Z"}
    told = get(service(replace(instance(), rebalance=moment)), "meta-data/events/recommendations/rebalance")
    assert json.loads(told.body) == {"noticeTime": "2026-01-02T03:04:05Z"}


def test_what_an_instance_does_not_have_is_not_there() -> None:
    bare = instance(
        role=None, target_lifecycle_state=None, user_data=b"", metadata=metadata_options(tags=False)
    )
    for path in ("meta-data/iam/info", "meta-data/autoscaling", "meta-data/tags/instance", "user-data"):
        assert get(service(bare), path).status == 404


def test_documents() -> None:
    metadata = service(instance())
    assert json.loads(get(metadata, "meta-data/iam/security-credentials/worker").body)["Token"] == "token"
    identity = json.loads(get(metadata, "dynamic/instance-identity/document").body)
    assert (identity["architecture"], identity["region"]) == ("x86_64", "us-east-1")


@pytest.mark.parametrize(
    ("type_", "architecture"),
    [("m7g.metal", "arm64"), ("c6gd.metal", "arm64"), ("g4dn.metal", "x86_64"), ("m8i.large", "x86_64")],
)
def test_architecture_in_the_identity_document(type_: str, architecture: str) -> None:
    document = imds.identity(instance(type=type_), region="us-east-1", account="1")
    assert json.loads(document)["architecture"] == architecture


def test_without_a_token_only_cloud_init_is_answered() -> None:
    metadata = service(instance())
    path = "/latest/meta-data/instance-id"
    assert metadata.answer("GET", path, {}, ADDRESS).status == 401
    assert metadata.answer("GET", path, {"user-agent": "Cloud-Init/25.1"}, ADDRESS).status == 200
    optional = service(instance(metadata=metadata_options(token_required=False)))
    assert optional.answer("GET", path, {}, ADDRESS).status == 200


def test_a_token_is_good_for_its_instance_and_its_time() -> None:
    clock = Clock()
    other = instance(
        id="i-2", address=OTHER, interfaces=tuple(_moved(interface) for interface in instance().interfaces)
    )
    metadata = service(instance(), other, clock=clock)
    headers = {"x-aws-ec2-metadata-token": token(metadata)}
    path = "/latest/meta-data/instance-id"
    assert metadata.answer("GET", path, headers, ADDRESS).status == 200
    assert metadata.answer("GET", path, headers, OTHER).status == 401
    clock.now = 60
    assert metadata.answer("GET", path, headers, ADDRESS).status == 401


def _moved(interface: Interface) -> Interface:
    return replace(interface, address=OTHER)


@pytest.mark.parametrize("lifetime", ["0", "21601", "-1", "x", "", "²"])
def test_token_lifetimes_that_are_refused(lifetime: str) -> None:
    headers = {"x-aws-ec2-metadata-token-ttl-seconds": lifetime}
    assert service(instance()).answer("PUT", "/latest/api/token", headers, ADDRESS).status == 400


def test_a_forwarded_request_gets_no_token() -> None:
    headers = {"x-aws-ec2-metadata-token-ttl-seconds": "60", "x-forwarded-for": "10.0.2.15"}
    assert service(instance()).answer("PUT", "/latest/api/token", headers, ADDRESS).status == 403


def test_strangers_and_instances_without_the_service_are_refused() -> None:
    assert service(instance()).answer("GET", "/latest/", {}, OTHER).status == 403
    off = service(instance(metadata=metadata_options(enabled=False)))
    assert off.answer("GET", "/latest/", {"user-agent": "Cloud-Init/25.1"}, ADDRESS).status == 403


def test_a_second_interface_is_the_same_instance() -> None:
    interface = instance().interfaces[0]
    two = instance(interfaces=(interface, _moved(interface)))
    assert get(service(two), "meta-data/instance-id", OTHER).body == b"i-1"
