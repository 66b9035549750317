"""What a machine of the local cloud is, on a real one."""

from __future__ import annotations

import pytest

from tests.localcloud.lab import Lab, device, wait_until

pytestmark = pytest.mark.machine

METADATA = "http://169.254.169.254/latest"
TOKEN = f"curl -sS -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {METADATA}/api/token"


def metadata(path: str) -> str:
    return f'curl -sS -m 5 -H "X-aws-ec2-metadata-token: $({TOKEN})" {METADATA}/meta-data/{path}'


def test_user_data_ran_and_is_on_the_console(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    assert lab.state(client) == lab.state(server) == "running"
    wait_until(lambda: "user data was here as root" in lab.cloud.console(server).read_text())
    console = lab.aws("ec2").get_console_output
    wait_until(lambda: "hello from the client" in console(InstanceId=client).get("Output", ""))


def test_no_unit_of_a_new_machine_fails(lab: Lab, pair: tuple[str, str]) -> None:
    """`systemctl --failed` is what operators are told to look at."""
    for instance in pair:
        lab.wait_for(instance, "systemctl is-active cloud-init.target")
        assert lab.output(instance, "systemctl --failed --plain --no-legend") == ""


def test_machines_have_names_and_identities_of_their_own(lab: Lab, pair: tuple[str, str]) -> None:
    names = {lab.output(instance, "hostname") for instance in pair}
    assert names == {f"ip-{lab.address(instance).replace('.', '-')}" for instance in pair}
    assert len({lab.output(instance, "cat /etc/machine-id") for instance in pair}) == 2


def test_the_metadata_service_wants_a_token(lab: Lab, pair: tuple[str, str]) -> None:
    client, _ = pair
    status = f"curl -s -o /dev/null -w '%{{http_code}}' {METADATA}/meta-data/"
    assert lab.output(client, status) == "401"
    assert lab.output(client, metadata("instance-id")) == client
    assert lab.output(client, metadata("local-ipv4")) == lab.address(client)


def test_credentials_are_the_roles(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    assert lab.output(server, metadata("iam/security-credentials/")) == "lab"
    assert '"AccessKeyId"' in lab.output(server, metadata("iam/security-credentials/lab"))
    assert lab.output(client, metadata("iam/security-credentials/lab")) == ""


# With IP_MINTTL the kernel drops what a router with so many hops more to go could not have passed on.
FURTHER_AWAY = r"""python3 -c '
import socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_IP, 21, %d)
s.settimeout(2)
s.connect(("169.254.169.254", 80))
s.sendall(b"GET /latest/ HTTP/1.0\r\nUser-Agent: Cloud-Init/1\r\n\r\n")
print(s.recv(12).decode())
'"""


def test_replies_of_the_metadata_service_travel_as_far_as_the_instance_says(
    lab: Lab, pair: tuple[str, str]
) -> None:
    client, _ = pair
    assert lab.output(client, FURTHER_AWAY % 1) == "HTTP/1.1 200"
    assert "timed out" in lab.run(client, FURTHER_AWAY % 2).stderr
    change = lab.aws("ec2").modify_instance_metadata_options
    change(InstanceId=client, HttpPutResponseHopLimit=2)
    lab.wait_for(client, FURTHER_AWAY % 2)
    change(InstanceId=client, HttpPutResponseHopLimit=1)
    lab.wait_for(client, FURTHER_AWAY % 2, succeeds=False)


@pytest.mark.parametrize(
    "name", ["sts.us-east-1.amazonaws.com", "sts.amazonaws.com", "some-bucket.s3.us-east-1.amazonaws.com"]
)
def test_aws_is_reached_by_its_own_names_with_certificates_that_hold(
    name: str, lab: Lab, pair: tuple[str, str]
) -> None:
    verified = f"curl -sS -m 10 -o /dev/null -w '%{{ssl_verify_result}}' https://{name}/"
    assert lab.output(pair[1], verified) == "0"


def test_names(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    route53 = lab.aws("route53")
    vpc = {"VPCRegion": "us-east-1", "VPCId": lab.describe(client)["VpcId"]}
    zone = route53.create_hosted_zone(Name="lab.internal", CallerReference="1", VPC=vpc)["HostedZone"]["Id"]
    values = [{"Value": lab.address(server)}]
    record = {"Name": "server.lab.internal", "Type": "A", "TTL": 5, "ResourceRecords": values}
    changes = [{"Action": "CREATE", "ResourceRecordSet": record}]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})

    def look_up(name: str) -> str:
        return lab.run(client, f"getent ahostsv4 {name} | cut -d' ' -f1 | sort -u").stdout.strip()

    assert wait_until(lambda: look_up("server.lab.internal")) == lab.address(server)
    name = f"ip-{lab.address(server).replace('.', '-')}"
    assert look_up(f"{name}.ec2.internal") == look_up(name) == lab.address(server)
    assert look_up("www.debian.org") == look_up("nothing.lab.internal") == ""


def test_reboot_power_off_and_start_keep_the_disk(lab: Lab) -> None:
    ec2 = lab.aws("ec2")
    instance = lab.launch("client", user_data="#!/bin/sh\necho once >>/root/boots\n")
    lab.wait_for_boot(instance)
    volume = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    lab.wait_for(instance, f"test -b {device(volume)}")
    machine_id = lab.output(instance, "cat /etc/machine-id; touch /run/before")

    ec2.reboot_instances(InstanceIds=[instance])
    lab.wait_for(instance, "test -e /run/cloud-init && ! test -e /run/before")
    lab.wait_for_boot(instance)
    lab.wait_for(instance, f"test -b {device(volume)}")
    assert lab.state(instance) == "running"

    lab.output(instance, "touch /run/before; systemctl poweroff")
    lab.wait_for_state(instance, "stopped")
    ec2.start_instances(InstanceIds=[instance])
    lab.wait_for_state(instance, "running")
    lab.wait_for_boot(instance)
    lab.wait_for(instance, f"test -b {device(volume)}")
    assert lab.output(instance, "cat /root/boots") == "once"
    assert lab.output(instance, "cat /etc/machine-id") == machine_id

    ec2.terminate_instances(InstanceIds=[instance])
    lab.wait_for_state(instance, "terminated")
    assert lab.cloud.leader(instance) is None
    assert "Powering off" in lab.cloud.console(instance).read_text()


def test_an_unknown_image_ends_the_instance(lab: Lab) -> None:
    image = lab.aws("ec2").register_image(Name="unknown")["ImageId"]
    instance = lab.launch("client", ImageId=image)
    lab.wait_for_state(instance, "terminated")
    assert f"{image} is not an AMI of this cloud" in lab.cloud.log.read_text()
