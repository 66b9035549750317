from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from localcloud import image
from localcloud.addresses import private_name
from localcloud.authority import Authority
from localcloud.image import ImageError
from localcloud.machine import Network, network_unit


def test_the_network_as_dhcp_would_tell_it() -> None:
    unit = network_unit(
        Network(
            address=IPv4Address("10.99.1.5"),
            subnet=IPv4Network("10.99.1.0/24"),
            mac="02:00:00:00:00:01",
            region="us-east-1",
        )
    )
    assert "Name=ens5\n" in unit
    assert "Address=10.99.1.5/24\nGateway=10.99.1.1\nDNS=169.254.169.253\nDomains=ec2.internal\n" in unit


def test_private_names() -> None:
    address = IPv4Address("10.99.1.5")
    assert private_name(address, region="us-east-1") == "ip-10-99-1-5.ec2.internal"
    assert private_name(address, region="eu-west-1") == "ip-10-99-1-5.eu-west-1.compute.internal"


def test_an_image_that_failed_is_tried_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ImageError, match="mount -t failed while making the machine image: "):
            image.make(tmp_path / "none", tmp_path / "image", certificate=b"")


def test_certificates_hold_before_a_strict_verifier() -> None:
    authority = Authority()
    issued = x509.load_pem_x509_certificates(authority.issue(["localhost", "*.s3.us-east-1.amazonaws.com"]))
    store = Store([x509.load_pem_x509_certificate(authority.certificate)])
    for name in ("localhost", "bucket.s3.us-east-1.amazonaws.com"):
        verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
        assert len(verifier.verify(issued[0], [])) == 2
