"""The fixed network interface: attached at first boot, so that the address outlives the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from userdata.host.aws import call, wait
from userdata.host.errors import HostError

FREE_SECONDS = 600
APPEAR_SECONDS = 120


def attach(ec2: Any, *, interface: str, instance: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """Attaches the interface as the second one, once no other instance has it.

    Raises:
        HostError: another instance kept it, or it could not be attached.
    """
    if _attachment(ec2, interface).get("InstanceId") == instance:
        return
    wait(
        f"interface {interface} to be released by the instance that has it",
        lambda: True if _describe(ec2, interface)["Status"] == "available" else None,
        seconds=FREE_SECONDS,
        sleep=sleep,
    )
    call(
        f"interface {interface}",
        ec2.attach_network_interface,
        NetworkInterfaceId=interface,
        InstanceId=instance,
        DeviceIndex=1,
    )


def mac_address(ec2: Any, interface: str) -> str:
    """Returns the interface's hardware address, in lower case."""
    address: str = _describe(ec2, interface)["MacAddress"]
    return address.lower()


def find_link(
    mac: str, *, links: Path = Path("/sys/class/net"), sleep: Callable[[float], None] = time.sleep
) -> str:
    """Waits for the link with a hardware address and returns its name.

    Raises:
        HostError: it did not appear.
    """

    def found() -> str | None:
        names = (link.name for link in sorted(links.iterdir()) if _address(link) == mac)
        return next(names, None)

    return wait(
        f"the network interface with hardware address {mac}",
        found,
        seconds=APPEAR_SECONDS,
        pause=0.5,
        sleep=sleep,
    )


def detach(ec2: Any, *, interface: str, instance: str) -> None:
    """Asks EC2 to detach the interface from this instance. Never by force."""
    attachment = _attachment(ec2, interface)
    if attachment.get("InstanceId") == instance and attachment.get("Status") != "detaching":
        call(
            f"interface {interface}",
            ec2.detach_network_interface,
            AttachmentId=attachment["AttachmentId"],
            Force=False,
        )


def _describe(ec2: Any, interface: str) -> dict[str, Any]:
    answer = call(f"interface {interface}", ec2.describe_network_interfaces, NetworkInterfaceIds=[interface])
    if not answer["NetworkInterfaces"]:
        raise HostError(f"interface {interface} does not exist")
    found: dict[str, Any] = answer["NetworkInterfaces"][0]
    return found


def _attachment(ec2: Any, interface: str) -> dict[str, Any]:
    return _describe(ec2, interface).get("Attachment") or {}


def _address(link: Path) -> str:
    try:
        return (link / "address").read_text(encoding="ascii").strip().lower()
    except OSError:  # it went away
        return ""
