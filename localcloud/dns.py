"""The VPC's resolver: hosted zones, AWS's endpoints, names of instances and load balancers.

All other names are the internet's: they do not exist where the cloud has no way out to it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from dnslib import QTYPE, RCODE, RR, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from localcloud.addresses import GATEWAY, RESOLVER
from localcloud.aws.ports import Record, Zone

_AWS = re.compile(r"(.+\.)?amazonaws\.com\.")
_AWS_TTL = 60
_MAX_ALIASES = 8
_UPSTREAM_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class Names:
    """What one VPC's resolver knows.

    Attributes:
        zones: The hosted zones that the VPC sees.
        hosts: Addresses of names that are in no zone: instances and load balancers. Lower case, with the
            final dot.
    """

    zones: tuple[Zone, ...]
    hosts: Mapping[str, tuple[IPv4Address, ...]]


def visible(zones: Iterable[Zone], vpc: str | None) -> tuple[Zone, ...]:
    """The zones that a VPC sees: public ones, and private ones that are associated with it.

    Args:
        zones: All zones.
        vpc: The VPC's id; None for a machine in no VPC.
    """
    return tuple(zone for zone in zones if not zone.vpcs or vpc in zone.vpcs)


def resolve(names: Names, name: str, kind: str) -> tuple[bool, tuple[Record, ...]]:
    """Resolve a name.

    Args:
        names: What is known.
        name: The name, with the final dot.
        kind: The record type.

    Returns:
        Whether the name exists, and its records of this type, with the CNAMEs that lead to them.
    """
    found: list[Record] = []
    for _ in range(_MAX_ALIASES):
        records = _records(names, name.lower())
        if records is None:
            return bool(found), tuple(found)
        match = [record for record in records if record.type == kind]
        alias = next((record for record in records if record.type == "CNAME"), None)
        if match or alias is None:
            return True, (*found, *match)
        found.append(alias)
        name = alias.values[0] if alias.values[0].endswith(".") else f"{alias.values[0]}."
    return True, tuple(found)


def reply(names: Names, request: DNSRecord) -> DNSRecord:
    """Answer a query; names that are not known do not exist.

    Args:
        names: What is known.
        request: The query.
    """
    answer = request.reply(aa=0, ra=1)
    exists, records = resolve(names, str(request.q.qname), QTYPE[request.q.qtype])
    if not exists:
        answer.header.rcode = RCODE.NXDOMAIN
    for record in records:
        for value in record.values:
            answer.add_answer(*RR.fromZone(f"{record.name} {record.ttl} IN {record.type} {value}"))
    return answer


def is_known(names: Names, name: str) -> bool:
    """Tell whether this resolver answers for a name, even if only that it does not exist.

    Args:
        names: What is known.
        name: The name, with the final dot.
    """
    name = name.lower()
    zones = any(name == zone.name or name.endswith(f".{zone.name}") for zone in names.zones)
    return zones or _records(names, name) is not None


def serve(
    known: Callable[[IPv4Address], Names],
    *,
    upstream: IPv4Address | None = None,
    address: IPv4Address = RESOLVER,
    port: int = 53,
) -> None:
    """Answer on the resolver's address over UDP and TCP, in threads of this process.

    Args:
        known: What the machine with this address sees.
        upstream: The resolver that knows the internet's names; None if the cloud has no way out.
        address: The address to listen on.
        port: The port to listen on.

    Raises:
        OSError: The address is not available.
    """

    class Resolver(BaseResolver):  # type: ignore[misc] # dnslib has no types
        def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
            names = known(IPv4Address(handler.client_address[0]))
            if upstream and not is_known(names, str(request.q.qname)):
                return DNSRecord.parse(request.send(str(upstream), timeout=_UPSTREAM_SECONDS))
            return reply(names, request)

    for tcp in (False, True):
        server = DNSServer(
            Resolver(), address=str(address), port=port, tcp=tcp, logger=DNSLogger("-request,-reply")
        )
        threading.Thread(target=server.server.serve_forever, daemon=True, name="dns").start()


def _records(names: Names, name: str) -> list[Record] | None:
    """All records of a name; None if there is no such name."""
    zones = [zone for zone in names.zones if name == zone.name or name.endswith(f".{zone.name}")]
    if zones:
        # The most specific zone answers alone.
        zone = max(zones, key=lambda zone: len(zone.name))
        records = [record for record in zone.records if record.name == name]
        below = any(record.name.endswith(f".{name}") for record in zone.records)
        return records if records or below or name == zone.name else None
    if name in names.hosts:
        return [_address(name, names.hosts[name])]
    if _AWS.fullmatch(name):
        return [_address(name, (GATEWAY,))]
    return None


def _address(name: str, addresses: Iterable[IPv4Address]) -> Record:
    return Record(name=name, type="A", ttl=_AWS_TTL, values=tuple(str(address) for address in addresses))
