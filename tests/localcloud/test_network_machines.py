"""Who reaches whom, and what is attached to and detached from running machines, on real ones."""

from __future__ import annotations

import pytest

from tests.localcloud.lab import Lab, allow, device, wait_until

pytestmark = pytest.mark.machine

TIMED_OUT = 28  # curl's exit code


def connect(address: str, port: int) -> str:
    return f"curl -s -o /dev/null -m 2 http://{address}:{port}/"


def test_only_what_a_group_allows_gets_through(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    lab.wait_for(client, connect(lab.address(server), 8080))
    assert lab.run(client, connect(lab.address(server), 22)).returncode == TIMED_OUT
    assert lab.run(client, f"ping -c1 -W1 {lab.address(server)}").returncode != 0
    # The client's group lets nobody in, whatever the server's group may send.
    assert lab.run(server, connect(lab.address(client), 8080)).returncode == TIMED_OUT
    assert lab.outside(connect(lab.address(server), 8080)).returncode == TIMED_OUT


def test_a_changed_rule_works_at_once(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    source = {"IpRanges": [{"CidrIp": "203.0.113.0/24"}]}
    attempt = connect(lab.address(server), 8080)
    allow(lab.cloud, lab.groups["server"], 8080, source)
    wait_until(lambda: lab.outside(attempt).returncode == 0)
    permission = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, **source}
    lab.aws("ec2").revoke_security_group_ingress(GroupId=lab.groups["server"], IpPermissions=[permission])
    wait_until(lambda: lab.outside(attempt).returncode == TIMED_OUT)
    assert lab.run(client, attempt).returncode == 0


def test_a_machine_cannot_take_another_address(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    lab.output(client, "ip address add 10.99.1.200/32 dev ens5")
    for target in (f"{lab.address(server)}:8080", "169.254.169.254"):
        attempt = f"curl -s -m 2 --interface 10.99.1.200 http://{target}/"
        assert lab.run(client, attempt).returncode == TIMED_OUT
    lab.output(client, "ip address del 10.99.1.200/32 dev ens5")


def test_neither_this_computer_nor_the_internet_is_in_reach(lab: Lab, pair: tuple[str, str]) -> None:
    client, _ = pair
    for address, port in (("10.99.1.1", 22), ("198.18.0.1", 22), ("127.0.0.1", lab.cloud.api_port)):
        assert lab.run(client, connect(address, port)).returncode != 0
    assert lab.run(client, "ping -c1 -W1 1.1.1.1").returncode != 0


def test_a_volume_moves_from_one_machine_to_the_other(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    ec2 = lab.aws("ec2")
    volume = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
    disk = device(volume)

    def is_free() -> bool:
        return bool(ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")

    ec2.attach_volume(VolumeId=volume, InstanceId=client, Device="/dev/sdf")
    lab.wait_for(client, f"test -b {disk}")
    assert lab.output(client, f"blockdev --getsize64 {disk}") == str(1 << 30)
    lab.output(client, f"mkfs.ext4 -q {disk} && mount {disk} /mnt && echo kept >/mnt/file")

    ec2.detach_volume(VolumeId=volume)
    # Not while it is mounted, as on EC2.
    with pytest.raises(AssertionError, match="not within"):
        wait_until(is_free, seconds=2)
    lab.output(client, "umount /mnt")
    wait_until(is_free)
    assert lab.run(client, f"test -e {disk}").returncode != 0

    ec2.attach_volume(VolumeId=volume, InstanceId=server, Device="/dev/sdf")
    lab.wait_for(server, f"test -b {disk}")
    assert lab.output(server, f"mount {disk} /mnt && cat /mnt/file; umount /mnt") == "kept"
    ec2.detach_volume(VolumeId=volume)
    wait_until(is_free)
    ec2.delete_volume(VolumeId=volume)
    file = lab.cloud.work / "volumes" / volume
    wait_until(lambda: not file.exists())


def test_an_interface_moves_from_one_machine_to_the_other(lab: Lab, pair: tuple[str, str]) -> None:
    client, server = pair
    ec2 = lab.aws("ec2")
    interface = ec2.create_network_interface(
        SubnetId=lab.subnets[0], PrivateIpAddress="10.99.1.77", Groups=[lab.groups["server"]]
    )["NetworkInterface"]

    def attach(instance: str) -> str:
        made = ec2.attach_network_interface(
            NetworkInterfaceId=interface["NetworkInterfaceId"], InstanceId=instance, DeviceIndex=1
        )
        lab.wait_for(instance, "test -e /sys/class/net/ens6")
        assert lab.output(instance, "cat /sys/class/net/ens6/address") == interface["MacAddress"]
        return str(made["AttachmentId"])

    def detach(instance: str, attachment: str) -> None:
        ec2.detach_network_interface(AttachmentId=attachment)
        lab.wait_for(instance, "test -e /sys/class/net/ens6", succeeds=False)

    detach(client, attach(client))
    attachment = attach(server)
    lab.output(
        server,
        "ip address add 10.99.1.77/32 dev ens6 && ip link set ens6 up"
        " && ip route add default via 10.99.1.1 dev ens6 onlink table 77"
        " && ip rule add from 10.99.1.77 table 77",
    )
    lab.wait_for(client, connect("10.99.1.77", 8080))
    assert lab.run(client, connect("10.99.1.77", 22)).returncode == TIMED_OUT
    detach(server, attachment)
    assert lab.run(client, connect("10.99.1.77", 8080)).returncode != 0
