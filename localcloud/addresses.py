"""The fixed addresses of the local cloud, all inside its own network namespace.

They are AWS's own link-local addresses, and addresses reserved for benchmarks and documentation (RFC 2544,
RFC 5737), which no VPC and no network of a user's machine has.
"""

from __future__ import annotations

from ipaddress import IPv4Address

METADATA = IPv4Address("169.254.169.254")
RESOLVER = IPv4Address("169.254.169.253")

# Where *.amazonaws.com leads to.
GATEWAY = IPv4Address("198.18.0.1")

# The source address of what comes in through the web UI's port on this machine: its user.
OPERATOR = IPv4Address("127.0.0.1")

# A place on the Internet that nothing trusts, for tests of what is closed to it.
OUTSIDE = IPv4Address("203.0.113.10")

# Another one, for tests of what is open to some addresses outside the VPC.
DEVELOPER = IPv4Address("198.51.100.10")


def private_name(address: IPv4Address, *, region: str) -> str:
    """An instance's private DNS name, such as ``ip-10-99-1-5.ec2.internal``.

    Args:
        address: Its private address.
        region: Its region; us-east-1 has a domain of its own.
    """
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{str(address).replace('.', '-')}.{domain}"
