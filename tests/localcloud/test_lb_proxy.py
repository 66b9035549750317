"""The load balancer with a real server behind it."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.localcloud.lab import Lab, wait_until

pytestmark = pytest.mark.machine

Answer = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def target_group(lab: Lab, pair: tuple[str, str]) -> str:
    """The ARN of the empty target group of a load balancer on localhost's name."""
    group = {
        "Protocol": "HTTP",
        "Port": 8080,
        "VpcId": lab.describe(pair[0])["VpcId"],
        "HealthCheckPath": "/health",
        "HealthCheckIntervalSeconds": 5,
        "HealthCheckTimeoutSeconds": 2,
        "HealthyThresholdCount": 2,
        "UnhealthyThresholdCount": 2,
    }
    listener = {
        "LoadBalancerArn": {"Ref": "Balancer"},
        "Protocol": "HTTPS",
        "Port": 443,
        "Certificates": [{"CertificateArn": {"Ref": "Certificate"}}],
        "DefaultActions": [{"Type": "forward", "TargetGroupArn": {"Ref": "Group"}}],
    }
    balancer = {"Subnets": lab.subnets, "SecurityGroups": [lab.groups["balancer"]]}
    certificate = {"DomainName": "localhost", "Tags": [{"Key": "Name", "Value": "lab"}]}
    types = {
        "Group": ("AWS::ElasticLoadBalancingV2::TargetGroup", group),
        "Listener": ("AWS::ElasticLoadBalancingV2::Listener", listener),
        "Balancer": ("AWS::ElasticLoadBalancingV2::LoadBalancer", balancer),
        "Certificate": ("AWS::CertificateManager::Certificate", certificate),
    }
    template = {
        "Resources": {name: {"Type": kind, "Properties": made} for name, (kind, made) in types.items()},
        "Outputs": {"Group": {"Value": {"Ref": "Group"}}},
    }
    cloudformation = lab.aws("cloudformation")
    cloudformation.create_stack(StackName="balancer", TemplateBody=json.dumps(template))

    def stack() -> Any:
        return cloudformation.describe_stacks(StackName="balancer")["Stacks"][0]

    wait_until(lambda: stack()["StackStatus"] == "CREATE_COMPLETE")
    return str(stack()["Outputs"][0]["OutputValue"])


@pytest.fixture
def get(lab: Lab) -> Callable[..., Answer]:
    """Asks for a path, with headers; status 0 if there is no answer."""
    context = ssl.create_default_context(cafile=str(lab.cloud.certificate))

    def get(path: str, **headers: str) -> Answer:
        request = urllib.request.Request(lab.cloud.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {}
        except OSError:
            return 0, {}

    return get


def health(lab: Lab, group: str) -> list[str]:
    described = lab.aws("elbv2").describe_target_health(TargetGroupArn=group)
    return [target["TargetHealth"]["State"] for target in described["TargetHealthDescriptions"]]


def test_a_target_from_registration_to_deregistration(
    lab: Lab, pair: tuple[str, str], target_group: str, get: Callable[..., Answer]
) -> None:
    _, server = pair
    elb = lab.aws("elbv2")
    wait_until(lambda: get("/")[0] == 503)

    elb.register_targets(TargetGroupArn=target_group, Targets=[{"Id": server}])
    wait_until(lambda: health(lab, target_group) == ["healthy"])
    wait_until(lambda: get("/")[0] == 200)

    lab.output(server, "touch /run/ill")
    wait_until(lambda: health(lab, target_group) == ["unhealthy"])
    # The only target there is gets requests even so.
    assert get("/")[0] == 200
    lab.output(server, "rm /run/ill")
    wait_until(lambda: health(lab, target_group) == ["healthy"])

    lab.output(server, "systemctl stop server")
    wait_until(lambda: get("/")[0] == 502)
    lab.output(server, "systemd-run --unit=server python3 /root/server.py")
    wait_until(lambda: get("/")[0] == 200)

    elb.deregister_targets(TargetGroupArn=target_group, Targets=[{"Id": server}])
    wait_until(lambda: get("/")[0] == 503)


@pytest.fixture
def served(lab: Lab, pair: tuple[str, str], target_group: str, get: Callable[..., Answer]) -> None:
    lab.aws("elbv2").register_targets(TargetGroupArn=target_group, Targets=[{"Id": pair[1]}])
    wait_until(lambda: get("/")[0] == 200)


@pytest.mark.usefixtures("served")
def test_headers_tell_the_server_who_asked_and_how(lab: Lab, get: Callable[..., Answer]) -> None:
    _, seen = get("/")
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", "443")
    assert seen["host"] == f"localhost:{lab.cloud.web_port}"
    _, seen = get("/", **{"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http"})
    assert seen["x-forwarded-for"] == "192.0.2.7, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"


@pytest.mark.usefixtures("served")
def test_an_upgraded_connection_passes_both_ways(lab: Lab) -> None:
    context = ssl.create_default_context(cafile=str(lab.cloud.certificate))
    plain = socket.create_connection(("127.0.0.1", lab.cloud.web_port), timeout=10)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(
            b"GET /upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        stream = connection.makefile("rb")
        assert stream.readline().startswith(b"HTTP/1.1 101")
        while stream.readline().strip():
            pass
        for word in (b"one\n", b"two\n"):
            connection.sendall(word)
            assert stream.readline() == word


@pytest.mark.usefixtures("served")
def test_nobody_else_reaches_it(lab: Lab, pair: tuple[str, str]) -> None:
    client, _ = pair
    name = lab.aws("elbv2").describe_load_balancers()["LoadBalancers"][0]["DNSName"]
    address = lab.output(client, f"getent ahostsv4 {name} | head -1 | cut -d' ' -f1")
    assert address.startswith("10.99.")
    attempt = f"curl -skm 2 https://{address}/"
    assert lab.run(client, attempt).returncode == lab.outside(attempt).returncode == 28
