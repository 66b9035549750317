"""What no single field shows: whether the settings of an environment fit together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Interface
from itertools import islice

from fleet import catalogue
from settings import fleet_checks, messages, openqa_ini, timetable
from settings.content import SAMPLE, Content
from settings.fleet_checks import unknown_types
from settings.model import (
    FEDORA_ACCOUNTS,
    LOCAL_ACCOUNT,
    LOCAL_REGION,
    PRIVATE_NETWORKS,
    RDS_DAYS,
    RESERVED_NETWORKS,
    ZONE_LETTERS,
    Database,
    Environment,
    SignIn,
)
from settings.naming import partition
from settings.problem import Problem, allowed, shown, twice
from userdata.host.document import TAP_PREFIX

# Room for [content], [sign_in], [schedule] and the timetable in the web UI host's user data: EC2 takes
# 16 KiB, and everything else is below six.
TEXTS_BYTES = 10_000
# Room for a fleet's lists in its SSM parameter, which takes 4 KiB and names each type twice.
FLEET_BYTES = 2_400
# A security group takes 60 rules, unless AWS grants more; this is what the deployment's own traffic leaves:
# docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html
GROUP_RULES = 55


def problems(environment: Environment) -> Iterator[Problem]:
    """Find what no single field shows."""
    yield from _local_problems(environment)
    # One problem of the range is reason enough to choose another.
    network_problems = [*islice(_cidr_problems(environment), 1), *_zone_problems(environment)]
    yield from network_problems
    if not network_problems:
        yield from _address_problems(environment)
        yield from _room_problems(environment)
    yield from _database_problems(environment)
    yield from _host_problems(environment)
    yield from _access_problems(environment)
    yield from _sign_in_problems(environment)
    yield from _backup_problems(environment)
    yield from _arn_problems(environment)
    yield from _content_problems(environment.content, local=environment.kind == "local")
    yield from _tap_problems(environment.content.tap_address)
    if environment.schedule:
        yield from messages.problems(environment.schedule, profile=environment.content.profile)
    yield from timetable.problems(environment.timetable)
    yield from _size_problems(environment)
    yield from fleet_checks.problems(environment)


def _local_problems(environment: Environment) -> Iterator[Problem]:
    for key, there in {"account": LOCAL_ACCOUNT, "region": LOCAL_REGION}.items():
        given = getattr(environment, key)
        if environment.kind == "local" and given != there:
            wrong = "the local cloud has only one"
            yield Problem(key, given, wrong, f'{shown(there)}, or a kind other than "local"')


def _cidr_problems(environment: Environment) -> Iterator[Problem]:
    network = environment.network
    if not 16 <= network.cidr.prefixlen <= 23:
        wrong = (
            "a VPC is at most a /16, and load balancers want each of its sixteen subnets to be at least a /27"
        )
        yield Problem("network.cidr", network.cidr, wrong, "a range from /16 to /23")
    if not any(network.cidr.subnet_of(private) for private in PRIVATE_NETWORKS):
        allowed = f"a range inside {', '.join(map(str, PRIVATE_NETWORKS))}"
        yield Problem("network.cidr", network.cidr, "not a private range", allowed)
    taps = {environment.content.tap_address.network: "the tap network of openQA's tests"}
    inside = {**taps, **RESERVED_NETWORKS}
    for reserved, use in inside.items():
        if network.cidr.overlaps(reserved):
            allowed = f"a range clear of {', '.join(map(str, inside))}"
            yield Problem("network.cidr", network.cidr, f"overlaps {reserved}, {use}", allowed)


def _zone_problems(environment: Environment) -> Iterator[Problem]:
    network = environment.network
    zones = network.availability_zones
    of_region = [environment.region + letter for letter in ZONE_LETTERS]
    for zone in zones:
        if zone not in of_region:
            allowed = f"zones of the region: {of_region[0]} to {of_region[-1]}"
            yield Problem("network.availability_zones", zone, f"not in {environment.region}", allowed)
    if len(zones) < 2 or len(set(zones)) < len(zones):
        yield Problem(
            "network.availability_zones", zones, "too few or one of them twice", "two or more different zones"
        )
    usable = [zone for zone in zones if zone in of_region]
    if usable and network.zone not in zones:
        yield Problem("network.zone", network.zone, "not in availability_zones", ", ".join(usable))


def _address_problems(environment: Environment) -> Iterator[Problem]:
    subnet = environment.network.subnets.private[environment.network.zone]
    first, last = subnet[4], subnet[-2]
    for role, host in environment.hosts.items():
        if not first <= host.address <= last:
            wrong = f"not free for hosts in {subnet}, the private subnet of {environment.network.zone}"
            yield Problem(f"{role}.address", host.address, wrong, f"{first} to {last}")
    if environment.database.address == environment.webui.address:
        allowed = "two different addresses"
        yield Problem("webui.address", environment.webui.address, "the database host's address too", allowed)


def _room_problems(environment: Environment) -> Iterator[Problem]:
    """Whether the subnets of all zones have room for the hosts and for a load balancer in each."""
    network = environment.network
    # AWS keeps five addresses of each subnet for itself, and a load balancer wants eight free:
    # docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html
    parts = network.subnets.public.values()
    room = sum(part.num_addresses - 5 - 8 for part in parts)
    hosts = sum(fleet.max for fleet in environment.fleets) + len(environment.builders)
    hosts += 2 * len(environment.hosts)  # with their fixed interfaces
    if hosts > room:
        wrong = f"its zones have addresses for {room} hosts, but all fleets at their max need {hosts}"
        yield Problem("network.cidr", network.cidr, wrong, "a larger range, or smaller fleets")


def _database_problems(environment: Environment) -> Iterator[Problem]:
    database = environment.database
    container = {key: getattr(database, key) for key in ("instance_type", "address", "volume_gib")}
    missing = [key for key, value in container.items() if value is None]
    if database.engine == "container" or len(missing) < len(container):
        for key in missing:
            yield Problem(f"database.{key}", None, "", allowed(Database.model_fields[key]))
    if database.engine == "rds" and database.rds is None:
        yield Problem("database.rds", None, "", "a table [database.rds] with instance_class, volume_gib")
    if database.rds is None:
        return
    if environment.kind == "local":
        yield Problem("database.rds", database.rds.model_dump(), "one machine has no RDS", "no such table")
    if environment.region.startswith(("cn-", "us-gov-")):
        wrong = f"it is not known where RDS's certificates for {environment.region} are"
        yield Problem("database.rds", database.rds.model_dump(), wrong, "no such table")
    kept = environment.backups.keep_days
    if kept > RDS_DAYS:
        wrong = "longer than RDS keeps its own backups"
        yield Problem("backups.keep_days", kept, wrong, f"1 to {RDS_DAYS}, or no [database.rds]")


def _host_problems(environment: Environment) -> Iterator[Problem]:
    for role, host in environment.hosts.items():
        key = f"{role}.instance_type"
        yield from unknown_types(key, host.instance_type)
        facts = catalogue.find(host.instance_type)
        if facts and environment.image.of(facts.architecture) is None:
            wrong = f"an {facts.architecture} type, but image.{facts.architecture} is not set"
            yield Problem(key, host.instance_type, wrong, f"another type, or set image.{facts.architecture}")


def _access_problems(environment: Environment) -> Iterator[Problem]:
    if environment.public and environment.domain is None:
        yield Problem("public", True, "without a domain there is no HTTPS", "false, or add a [domain]")
    if not environment.public and not environment.trusted:
        allowed = "at least one range, or public = true"
        given = environment.trusted if "trusted" in environment.model_fields_set else None
        yield Problem("trusted", given, "nobody could reach the web UI", allowed)
    for key in ("trusted", "developers"):
        cidrs = getattr(environment, key)
        yield from twice(key, cidrs, "each range once")
        ports = 2 if key == "trusted" and environment.domain else 1
        if len(cidrs) * ports > GROUP_RULES and not (key == "trusted" and environment.public):
            wrong = f"{len(cidrs)} ranges are {len(cidrs) * ports} rules, more than a security group takes"
            yield Problem(key, cidrs, wrong, f"up to {GROUP_RULES // ports} ranges")
    for cidr in environment.trusted:
        if cidr.prefixlen < 8 and not environment.public:
            allowed = "ranges of /8 or smaller, or public = true instead"
            yield Problem("trusted", cidr, "trusts a large part of the internet", allowed)
    for cidr in environment.developers:
        if cidr.prefixlen < 8:
            wrong = "opens VNC to a large part of the internet"
            yield Problem("developers", cidr, wrong, "ranges of /8 or smaller")
    domain = environment.domain
    certified = environment.kind != "local"
    if domain and certified and (len(domain.name) > 64 or "." not in domain.name):
        # docs.aws.amazon.com/acm/latest/APIReference/API_RequestCertificate.html
        wrong = "no certificate can be issued for it"
        yield Problem("domain.name", domain.name, wrong, "up to 64 characters with a dot among them")
    if domain and domain.name != domain.hosted_zone and not domain.name.endswith(f".{domain.hosted_zone}"):
        wrong = f"outside its hosted zone {domain.hosted_zone}"
        allowed = f"{domain.hosted_zone} or a name that ends in .{domain.hosted_zone}"
        yield Problem("domain.name", domain.name, wrong, allowed)


def _sign_in_problems(environment: Environment) -> Iterator[Problem]:
    sign_in = environment.sign_in
    if sign_in.method == "Fake" and environment.kind != "local":
        wrong = "lets everybody in as administrator"
        yield Problem("sign_in.method", "Fake", wrong, '"OAuth2", or kind = "local"')
    if sign_in.method != "OAuth2" and sign_in.administrators:
        wrong = f"with {shown(sign_in.method)} anybody can sign in as administrator"
        yield Problem("sign_in.administrators", sign_in.administrators, wrong, 'none, or method = "OAuth2"')
    if sign_in.method == "OAuth2" and sign_in.provider is None:
        yield Problem("sign_in.provider", None, "", '"fedora" or "custom"')
    if sign_in.method == "OAuth2" and sign_in.provider == "custom":
        for key in FEDORA_ACCOUNTS:
            if getattr(sign_in, key) is None:
                choice = allowed(SignIn.model_fields[key])
                yield Problem(f"sign_in.{key}", None, "", f'{choice}; provider = "custom" has no defaults')


def _backup_problems(environment: Environment) -> Iterator[Problem]:
    backups = environment.backups
    locked = backups.object_lock_days
    if locked is not None and locked > backups.keep_days:
        wrong = f"more than backups.keep_days = {backups.keep_days}, after which nothing is needed"
        yield Problem("backups.object_lock_days", locked, wrong, f"1 to {backups.keep_days}")


def texts(environment: Environment) -> dict[str, object]:
    """Collect, by key, the settings that share `TEXTS_BYTES` of the web UI host's user data."""
    tables = environment.model_dump(
        mode="json",
        include={"content": True, "sign_in": True, "schedule": True, "timetable": True},
        exclude={"content": {"worker_packages"}},  # in workers' user data, which has none of the others
    )
    return {"timetable": tables.pop("timetable")} | {
        f"{table}.{key}": value for table, values in tables.items() for key, value in (values or {}).items()
    }


def _size_problems(environment: Environment) -> Iterator[Problem]:
    sizes = {key: len(json.dumps(value)) for key, value in texts(environment).items()}
    largest, total = max(sizes, key=lambda key: sizes[key]), sum(sizes.values())
    if total > TEXTS_BYTES:
        whole = f"the {total} bytes of [content], [sign_in], [schedule] and timetable"
        wrong = f"takes {sizes[largest]} of {whole}, more than user data has room for"
        yield Problem(largest, texts(environment)[largest], wrong, f"{TEXTS_BYTES} bytes in all")
    for fleet in environment.fleets:
        lists = fleet.model_dump(mode="json", include={"classes", "instance_types", "warm"})
        size = len(json.dumps(lists))
        if size > FLEET_BYTES:
            wrong = f"{size} bytes with instance_types and warm, more than an SSM parameter has room for"
            yield Problem(f"fleets.{fleet.name}.classes", fleet.classes, wrong, f"{FLEET_BYTES} bytes")


def _arn_problems(environment: Environment) -> Iterator[Problem]:
    region, part = environment.region, partition(environment)
    topic, topics = environment.alarm_topic, f"arn:{part}:sns:{region}:"
    if topic and not topic.startswith(topics):
        wrong = f"not in {region}, and an alarm cannot reach a topic in another region"
        yield Problem("alarm_topic", topic, wrong, f"a topic of {region}, which begins with {topics}")
    bucket, buckets = environment.backups.replicate_to, f"arn:{part}:s3:::"
    if bucket and not bucket.startswith(buckets):
        wrong = f"not in the AWS partition of {region}, and S3 copies nothing to others"
        yield Problem("backups.replicate_to", bucket, wrong, f"a bucket that begins with {buckets}")


def _content_problems(content: Content, *, local: bool) -> Iterator[Problem]:
    for key in ("tests", "needles", "templates_repository"):
        address = getattr(content, key)
        if address and address.startswith("http://") and not local:
            wrong = "anyone on the way could change what is run"
            yield Problem(f"content.{key}", address, wrong, 'an https:// address, or kind = "local"')
    yield from openqa_ini.problems(content.openqa)
    if content.profile == "custom":
        for key in ("distri", "tests"):
            if not getattr(content, key):
                choice = allowed(Content.model_fields[key])
                yield Problem(f"content.{key}", None, "", f'{choice}; profile = "custom" has no defaults')
    for name in content.more_distris:
        if not content.tests:
            wrong = "the sample's tests are only for itself"
            yield Problem("content.more_distris", name, wrong, "nothing without content.tests")
        elif name in (content.distri, SAMPLE):
            wrong = "it has tests already"
            yield Problem("content.more_distris", name, wrong, f"any but {content.distri} and {SAMPLE}")
    yield from twice("content.more_distris", content.more_distris, "each once")
    if content.needles and not content.tests:
        wrong = "the sample's needles come with it"
        yield Problem("content.needles", content.needles, wrong, "nothing without content.tests")
    if content.templates_repository and content.loader != "openqa":
        wrong = f"loader {shown(content.loader)} takes them from the tests' repository"
        yield Problem(
            "content.templates_repository", content.templates_repository, wrong, 'loader = "openqa"'
        )
    yield from _group_name_problems(content)
    if content.templates and not content.tests:
        wrong = "there is no repository to take them from"
        yield Problem("content.templates", content.templates, wrong, "nothing without content.tests")
    if not content.templates and content.loader != "scenarios":
        wrong = f"loader {shown(content.loader)} has nothing to load"
        yield Problem("content.templates", content.templates, wrong, "one file or more")
    suffixes = {"fifloader": (".json",), "openqa": (".json", ".yaml"), "scenarios": (".yaml",)}
    ends = suffixes[content.loader]
    for name in content.templates:
        if not name.endswith(ends):
            wrong = f"not a file for loader {shown(content.loader)}"
            yield Problem("content.templates", name, wrong, f"files that end in {' or '.join(ends)}")
        elif content.loader == "openqa" and name.endswith(".fif.json"):
            wrong = "named like a file in Fedora's format, which openQA does not read"
            yield Problem(
                "content.templates", name, wrong, 'loader = "fifloader", or files in openQA\'s format'
            )


def _group_name_problems(content: Content) -> Iterator[Problem]:
    files: dict[str, str] = {}
    for file, name in content.group_names.items():
        key = f"content.group_names.{shown(file)}"
        if content.loader != "openqa":
            wrong = f"loader {shown(content.loader)} makes no job groups from files"
            yield Problem(key, name, wrong, 'loader = "openqa"')
        elif not file.endswith(".yaml"):
            wrong = "a file of another kind names its job groups itself"
            yield Problem(key, name, wrong, "files that end in .yaml")
        elif not any(_is_of(pattern, file) for pattern in content.templates):
            wrong = "not a file of content.templates"
            yield Problem(key, name, wrong, f"files of {shown(content.templates)}")
        if other := files.get(name):
            wrong = f"{other} has it too, and a group keeps the job templates of one file only"
            yield Problem(key, name, wrong, "a group for each file")
        files[name] = file


def _is_of(pattern: str, file: str) -> bool:
    """Tell whether a pattern matches a file, by the hosts' rules."""
    parts = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(parts, file) is not None


def _tap_problems(address: IPv4Interface) -> Iterator[Problem]:
    key = "content.tap_address"
    network = address.network
    if not any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        allowed = f"an address of a network inside {', '.join(map(str, PRIVATE_NETWORKS))}"
        yield Problem(key, address, "not in a private network", allowed)
    if network.prefixlen != TAP_PREFIX:
        wrong = (
            "half of the network is for the addresses by which the host knows guests, which vary in 16 bits"
        )
        yield Problem(key, address, wrong, f"an address with prefix {TAP_PREFIX}")
        return
    lower, upper = network.subnets()
    if not lower[1] <= address.ip <= lower[-1]:
        wrong = f"{lower[0]} is not a host's address, and the host knows guests by those of {upper}"
        yield Problem(key, address, wrong, f"{lower[1]} to {lower[-1]} with prefix {TAP_PREFIX}")
