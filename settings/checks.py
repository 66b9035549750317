"""What no single field shows: whether the settings of an environment fit together."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface
from itertools import islice

from fleet import catalogue, warm
from fleet.reading import WORKERS
from settings import messages, openqa_ini, timetable
from settings.builder import Builder
from settings.content import ARCHITECTURES, SAMPLE, Content, Need
from settings.fields import GP3_GIB, Architecture
from settings.model import (
    FEDORA_ACCOUNTS,
    LOCAL_ACCOUNT,
    LOCAL_REGION,
    MESH_HOSTS,
    PRIVATE_NETWORKS,
    RDS_DAYS,
    RESERVED_NETWORKS,
    SYSTEM_GIB,
    ZONE_LETTERS,
    Database,
    Environment,
    Fleet,
    SignIn,
)
from settings.naming import partition
from settings.problem import Problem, allowed, shown
from userdata.host.document import TAP_PREFIX

# What [content], [sign_in], [schedule] and the timetable share of the web UI host's user data: EC2 takes
# 16 KiB, and all else is below six.
TEXTS_BYTES = 10_000
# What a fleet's lists share of its SSM parameter, which takes 4 KiB and names each type twice.
FLEET_BYTES = 2_400
# Of the 60 rules that a security group takes, if AWS grants no more, what its own traffic leaves:
# docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html
GROUP_RULES = 55


def problems(environment: Environment) -> Iterator[Problem]:
    """Find what no single field shows."""
    yield from _local_problems(environment)
    # One about the range is enough to choose another.
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
    unknown = []
    for fleet in environment.fleets:
        unknown += list(_unknown_types(f"fleets.{fleet.name}.instance_types", *fleet.instance_types))
    for builder in environment.builders:
        unknown += list(
            _unknown_types(f"builders.{builder.architecture}.instance_types", *builder.instance_types)
        )
    yield from unknown
    yield from _fleet_names(environment)
    if not unknown:
        for fleet in environment.fleets:
            yield from _fleet_problems(environment, fleet)
    # Behind what is wrong with a fleet itself, from which it may follow.
    yield from _coverage_problems(environment)
    if not unknown:
        yield from _builder_problems(environment)
        yield from _quota_problems(environment)
        yield from _count_problems(environment)


def _local_problems(environment: Environment) -> Iterator[Problem]:
    for key, there in {"account": LOCAL_ACCOUNT, "region": LOCAL_REGION}.items():
        given = getattr(environment, key)
        if environment.kind == "local" and given != there:
            wrong = "the local cloud has one alone"
            yield Problem(key, given, wrong, f'{shown(there)}, or another kind than "local"')


def _cidr_problems(environment: Environment) -> Iterator[Problem]:
    network = environment.network
    if not 16 <= network.cidr.prefixlen <= 23:
        wrong = "a VPC is no larger than /16, and load balancers want subnets of /27, of which it has sixteen"
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
            "network.availability_zones", zones, "too few or twice the same", "two or more different zones"
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
    """Hosts in the subnets of all zones, beside what a load balancer takes in each."""
    network = environment.network
    # Of each subnet AWS keeps five addresses, and a load balancer wants eight free:
    # docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html
    parts = network.subnets.public.values()
    room = sum(part.num_addresses - 5 - 8 for part in parts)
    hosts = sum(fleet.max for fleet in environment.fleets) + len(environment.builders)
    hosts += 2 * len(environment.hosts)  # with their fixed interfaces
    if hosts > room:
        wrong = f"its zones have addresses for {room} hosts, and all fleets at their max need {hosts}"
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
        wrong = f"where RDS's certificates of {environment.region} are is not known"
        yield Problem("database.rds", database.rds.model_dump(), wrong, "no such table")
    kept = environment.backups.keep_days
    if kept > RDS_DAYS:
        wrong = "more than RDS keeps its own backups"
        yield Problem("backups.keep_days", kept, wrong, f"1 to {RDS_DAYS}, or no [database.rds]")


def _host_problems(environment: Environment) -> Iterator[Problem]:
    for role, host in environment.hosts.items():
        key = f"{role}.instance_type"
        yield from _unknown_types(key, host.instance_type)
        facts = catalogue.find(host.instance_type)
        if facts and environment.image.of(facts.architecture) is None:
            wrong = f"an {facts.architecture} type, but image.{facts.architecture} is not set"
            yield Problem(key, host.instance_type, wrong, f"another type, or set image.{facts.architecture}")


def _unknown_types(key: str, *instance_types: str) -> Iterator[Problem]:
    for name in instance_types:
        if catalogue.find(name) is None:
            near = difflib.get_close_matches(name, catalogue.load(), n=4, cutoff=0)
            allowed = f"a type of fleet/catalogue.toml, such as {', '.join(near)}"
            yield Problem(key, name, "unknown instance type", allowed)


def _access_problems(environment: Environment) -> Iterator[Problem]:
    if environment.public and environment.domain is None:
        yield Problem("public", True, "without a domain there is no HTTPS", "false, or add a [domain]")
    if not environment.public and not environment.trusted:
        allowed = "at least one range, or public = true"
        given = environment.trusted if "trusted" in environment.model_fields_set else None
        yield Problem("trusted", given, "nobody could reach the web UI", allowed)
    for key in ("trusted", "developers"):
        cidrs = getattr(environment, key)
        yield from _twice(key, cidrs, "each range once")
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
        wrong = "no certificate can be had for it"
        yield Problem("domain.name", domain.name, wrong, "up to 64 characters with a dot among them")
    if domain and domain.name != domain.hosted_zone and not domain.name.endswith(f".{domain.hosted_zone}"):
        wrong = f"outside its hosted zone {domain.hosted_zone}"
        allowed = f"{domain.hosted_zone} or a name that ends in .{domain.hosted_zone}"
        yield Problem("domain.name", domain.name, wrong, allowed)


def _twice(key: str, values: Sequence[object], allowed: str) -> Iterator[Problem]:
    for value in dict.fromkeys(value for value in values if values.count(value) > 1):
        yield Problem(key, value, "is there twice", allowed)


def _sign_in_problems(environment: Environment) -> Iterator[Problem]:
    sign_in = environment.sign_in
    if sign_in.method == "Fake" and environment.kind != "local":
        wrong = "lets everybody in as administrator"
        yield Problem("sign_in.method", "Fake", wrong, '"OAuth2", or kind = "local"')
    if sign_in.method != "OAuth2" and sign_in.administrators:
        wrong = f"with {shown(sign_in.method)} everybody is one who says so"
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
        wrong = f"more than backups.keep_days = {backups.keep_days}, after which nothing is wanted"
        yield Problem("backups.object_lock_days", locked, wrong, f"1 to {backups.keep_days}")


def texts(environment: Environment) -> dict[str, object]:
    """Collect, by key, what shares `TEXTS_BYTES` of the web UI host's user data."""
    tables = environment.model_dump(
        mode="json",
        include={"content": True, "sign_in": True, "schedule": True, "timetable": True},
        exclude={"content": {"worker_packages"}},  # of workers' user data, which has none of the others
    )
    return {"timetable": tables.pop("timetable")} | {
        f"{table}.{key}": value for table, values in tables.items() for key, value in (values or {}).items()
    }


def _size_problems(environment: Environment) -> Iterator[Problem]:
    sizes = {key: len(json.dumps(value)) for key, value in texts(environment).items()}
    largest, total = max(sizes, key=lambda key: sizes[key]), sum(sizes.values())
    if total > TEXTS_BYTES:
        whole = f"the {total} bytes of [content], [sign_in], [schedule] and timetable"
        wrong = f"has {sizes[largest]} of {whole}, for which user data has no room"
        yield Problem(largest, texts(environment)[largest], wrong, f"{TEXTS_BYTES} bytes in all")
    for fleet in environment.fleets:
        lists = fleet.model_dump(mode="json", include={"classes", "instance_types", "warm"})
        size = len(json.dumps(lists))
        if size > FLEET_BYTES:
            wrong = f"{size} bytes with instance_types and warm, for which an SSM parameter has no room"
            yield Problem(f"fleets.{fleet.name}.classes", fleet.classes, wrong, f"{FLEET_BYTES} bytes")


def _arn_problems(environment: Environment) -> Iterator[Problem]:
    region, part = environment.region, partition(environment)
    topic, topics = environment.alarm_topic, f"arn:{part}:sns:{region}:"
    if topic and not topic.startswith(topics):
        wrong = f"not in {region}, and an alarm reaches no topic of another region"
        yield Problem("alarm_topic", topic, wrong, f"a topic of {region}, which begins with {topics}")
    bucket, buckets = environment.backups.replicate_to, f"arn:{part}:s3:::"
    if bucket and not bucket.startswith(buckets):
        wrong = f"not in the part of AWS that has {region}, and S3 copies nothing to others"
        yield Problem("backups.replicate_to", bucket, wrong, f"a bucket that begins with {buckets}")


def _fleet_names(environment: Environment) -> Iterator[Problem]:
    fleet_names = [fleet.name for fleet in environment.fleets]
    for name in sorted({name for name in fleet_names if fleet_names.count(name) > 1}):
        yield Problem("fleets.name", name, "two fleets have this name", "a name of its own for each fleet")
    spelled = {name.replace("-", ""): name for name in reversed(fleet_names)}
    for name in fleet_names:
        if (other := spelled[name.replace("-", "")]) != name:
            wrong = f"all but its hyphens is the name of fleet {other}"
            yield Problem("fleets.name", name, wrong, "names that differ by more than hyphens")


def _fleet_problems(environment: Environment, fleet: Fleet) -> Iterator[Problem]:
    key = f"fleets.{fleet.name}"
    if fleet.min > fleet.max:
        yield Problem(f"{key}.min", fleet.min, f"more than max = {fleet.max}", f"0 to {fleet.max}")
    for text in fleet.warm:
        if warm.parse(text).hosts > fleet.max:
            allowed = f"times with up to {fleet.max} hosts"
            yield Problem(f"{key}.warm", text, f"more hosts than max = {fleet.max}", allowed)
    yield from _twice(f"{key}.classes", fleet.classes, "each class once")
    yield from _machine_problems(environment, fleet, key)
    if fleet.virtualization == "none" and fleet.kvm:
        wrong = "no KVM without virtualization"
        yield Problem(f"{key}.virtualization", "none", wrong, '"metal" or "nested", or kvm = false')
    foreign = "qemu_x86_64" if fleet.architecture == "aarch64" else "qemu_aarch64"
    if foreign in fleet.classes:
        wrong = f"promises another architecture than {fleet.architecture}"
        yield Problem(f"{key}.classes", foreign, wrong, f"qemu_{fleet.architecture}")
    for name in sorted({"tap", "tap2"} & set(fleet.classes)):
        if fleet.network != "tap":
            wrong = f'the fleet\'s network is "{fleet.network}"'
            yield Problem(f"{key}.classes", name, wrong, f'classes other than {name}, or network = "tap"')
    if fleet.network in ("tap", "vde") and fleet.spot_share > 0 and fleet.spot_reason is None:
        wrong = "an interrupted spot host ends all jobs of its clusters"
        yield Problem(f"{key}.spot_share", fleet.spot_share, wrong, "0, or say why in spot_reason")
    if fleet.spot_share > 0 and 0 < fleet.max == fleet.on_demand_max:
        wrong = f"none of max = {fleet.max} hosts: Auto Scaling rounds those that are not spot up"
        least = -(-100 // fleet.max) / 100
        yield Problem(f"{key}.spot_share", fleet.spot_share, wrong, f"0, or at least {least:g}")
    if fleet.network == "vde" and environment.os != "debian":
        wrong = f"the worker image of {environment.os} has no VDE"
        yield Problem(f"{key}.network", "vde", wrong, '"user" or "tap", or os = "debian"')
    if fleet.mesh and fleet.network != "tap":
        wrong = f'the fleet\'s network is "{fleet.network}"'
        yield Problem(f"{key}.tap_topology", "mesh", wrong, '"host", or network = "tap"')
    together = {"tap", "tap2", *environment.content.clusters(fleet.architecture)}
    for other in environment.fleets:
        if fleet.mesh and other.name != fleet.name and other.architecture == fleet.architecture:
            for name in sorted(together & set(fleet.classes) & set(other.classes)):
                wrong = f"fleet {other.name} has it too, and no tunnels join a cluster split between them"
                yield Problem(f"{key}.classes", name, wrong, "a class that no other fleet has")
    if fleet.mesh and fleet.max > MESH_HOSTS:
        wrong = "every host has a tunnel to every other, and asks EC2 for them every 10 s"
        yield Problem(f"{key}.max", fleet.max, wrong, f"up to {MESH_HOSTS} hosts in a mesh")
    for name in fleet.instance_types:
        yield from _type_problems(environment, fleet, name)


def _type_problems(environment: Environment, fleet: Fleet, name: str) -> Iterator[Problem]:
    key = f"fleets.{fleet.name}.instance_types"
    workers = fleet.workers(name)
    if not workers and name not in _types_without_room(fleet):
        allowed = (
            f"{catalogue.VCPU_PER_WORKER} vCPU, {catalogue.MEMORY_GIB_PER_WORKER} GiB of memory and "
            f"{catalogue.DISK_GIB_PER_WORKER} GiB of disk for a worker, beside "
            f"cache_gib = {fleet.cache_gib}, or set workers_per_host"
        )
        yield Problem(key, name, "too small for one worker", allowed)
    for cluster, jobs in environment.content.clusters(fleet.architecture).items():
        if cluster not in fleet.classes:
            continue
        together = f"but {jobs} {cluster} jobs run together"
        if fleet.one_host and 0 < workers < jobs:
            wrong = f"{workers} workers a host, {together}"
            yield Problem(key, name, wrong, f"types that carry {jobs} workers or more")
        elif not fleet.one_host and 0 < workers * fleet.max < jobs:
            wrong = f"{workers} workers on each of up to {fleet.max} hosts, {together}"
            yield Problem(key, name, wrong, f"types and a max that carry {jobs} workers or more in all")


def _machine_problems(environment: Environment, hosts: Fleet | Builder, key: str) -> Iterator[Problem]:
    """Find what is wrong with the machines of a fleet or a builder, whatever they are for."""
    own = isinstance(hosts, Builder) and hosts.image
    if not own and environment.image.of(hosts.architecture) is None:
        wrong, other = f"image.{hosts.architecture} is not set", _other(hosts.architecture)
        allowed = f"{shown(other)}, or set image.{hosts.architecture}"
        yield Problem(f"{key}.architecture", hosts.architecture, wrong, allowed)
    if hosts.virtualization == "nested" and hosts.architecture == "aarch64":
        wrong = "aarch64 instances have no nested virtualization"
        yield Problem(f"{key}.virtualization", "nested", wrong, '"metal"')
    kind = "fleet" if isinstance(hosts, Fleet) else "builder"
    yield from _volume_problems(environment, hosts, key)
    key = f"{key}.instance_types"
    yield from _twice(key, hosts.instance_types, "each type once")
    for name in hosts.instance_types:
        facts = catalogue.load()[name]
        if facts.architecture != hosts.architecture:
            wrong = f"{facts.architecture}, but the {kind} is {hosts.architecture}"
            yield Problem(key, name, wrong, f"types with architecture {hosts.architecture}")
        if hosts.virtualization == "metal" and not facts.metal:
            wrong = 'not a metal type, but virtualization = "metal"'
            yield Problem(key, name, wrong, f"metal types, such as {_metal_like(name, hosts.architecture)}")
        if hosts.virtualization == "nested" and facts.metal:
            wrong = 'a metal type, but virtualization = "nested"'
            yield Problem(key, name, wrong, 'types that are not metal, or virtualization = "metal"')
        # Of aarch64 no type has it, which is told already.
        x86 = hosts.architecture == "x86_64"
        if hosts.virtualization == "nested" and x86 and not facts.metal and not facts.nested:
            allowed = "a family with nested virtualization, such as c8i, m8i, r8i and their flex variants"
            yield Problem(key, name, "no nested virtualization", allowed)


def _metal_like(name: str, architecture: Architecture) -> str:
    """Name the metal types of an architecture that are called most like a type."""
    metal = [
        one for one, facts in catalogue.load().items() if facts.metal and facts.architecture == architecture
    ]
    return ", ".join(difflib.get_close_matches(name, metal, n=3, cutoff=0))


def _other(architecture: Architecture) -> Architecture:
    return next(one for one in ARCHITECTURES if one != architecture)


def _volume_problems(environment: Environment, hosts: Fleet | Builder, key: str) -> Iterator[Problem]:
    least, wrong = SYSTEM_GIB, "no room for the machine image, and for what is installed beside it"
    tight: frozenset[str] = frozenset()
    if isinstance(hosts, Fleet):
        pools = f"the system and {catalogue.DISK_GIB_PER_WORKER} GiB for each worker"
        if (over := hosts.needed_gib - GP3_GIB) > 0:
            wrong = f"with {pools} a volume_gib of {hosts.needed_gib}, which no EBS volume has"
            yield Problem(f"{key}.cache_gib", hosts.cache_gib, wrong, f"1 to {hosts.cache_gib - over}")
            return
        if hosts.workers_per_host and hosts.needed_gib > SYSTEM_GIB:
            least = hosts.needed_gib
            wrong = f"no room for {pools} beside cache_gib = {hosts.cache_gib}"
        elif tight := _types_without_room(hosts):
            least += hosts.cache_gib + catalogue.DISK_GIB_PER_WORKER
            wrong = f"no room for {pools} beside cache_gib = {hosts.cache_gib}, not even for one"
    asked = environment.kind != "local" or tight
    if asked and hosts.volume_gib is not None and hosts.volume_gib < least:
        yield Problem(f"{key}.volume_gib", hosts.volume_gib, wrong, f"{least} to {GP3_GIB}")


def _types_without_room(fleet: Fleet) -> frozenset[str]:
    """Find the types that would carry a worker, if the fleet's volume had room for one."""
    types = catalogue.load()
    return frozenset(
        name
        for name in fleet.instance_types
        if not fleet.workers(name) and types[name].workers() and not types[name].disks
    )


def _builder_problems(environment: Environment) -> Iterator[Problem]:
    made = [builder.architecture for builder in environment.builders]
    for architecture in sorted({one for one in made if made.count(one) > 1}):
        wrong = "two builders have this architecture"
        yield Problem("builders.architecture", architecture, wrong, "one builder for each architecture")
    for builder in environment.builders:
        key = f"builders.{builder.architecture}"
        yield from _machine_problems(environment, builder, key)
        if environment.os_of(builder) != environment.os and builder.image is None:
            wrong, allowed = f"other hosts run {environment.os}", f"an AMI of {builder.os}"
            yield Problem(f"{key}.image", None, wrong, allowed)
        if builder.program == "createhdds":
            if environment.os_of(builder) != "fedora":
                wrong = f"it needs packages that {environment.os_of(builder)} does not have"
                allowed = '"sample", or for this builder os = "fedora" and image'
                yield Problem(f"{key}.program", "createhdds", wrong, allowed)
            if not builder.kvm:
                wrong = "createhdds installs systems in guests, which takes KVM"
                yield Problem(f"{key}.virtualization", "none", wrong, '"metal" or "nested"')
            for name in ("git", "ref"):
                if getattr(builder, name) is None:
                    wrong = ""
                    allowed = "where createhdds is: an https:// address and a branch, tag or commit"
                    yield Problem(f"{key}.{name}", None, wrong, allowed)


def _content_problems(content: Content, *, local: bool) -> Iterator[Problem]:
    for key in ("tests", "needles", "templates_repository"):
        address = getattr(content, key)
        if address and address.startswith("http://") and not local:
            wrong = "anyone on the way could change what is run"
            yield Problem(f"content.{key}", address, wrong, 'an https:// address, but with kind = "local"')
    yield from openqa_ini.problems(content.openqa)
    if content.profile == "custom":
        for key in ("distri", "tests"):
            if not getattr(content, key):
                choice = allowed(Content.model_fields[key])
                yield Problem(f"content.{key}", None, "", f'{choice}; profile = "custom" has no defaults')
    for name in content.more_distris:
        if not content.tests:
            yield Problem("content.more_distris", name, "the sample's tests are its own", "tests as well")
        elif name in (content.distri, SAMPLE):
            wrong = "it has tests already"
            yield Problem("content.more_distris", name, wrong, f"others than {content.distri} and {SAMPLE}")
    yield from _twice("content.more_distris", content.more_distris, "each once")
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
        wrong = "there is no repository that has them"
        yield Problem("content.templates", content.templates, wrong, "nothing without content.tests")
    if not content.templates and content.loader != "scenarios":
        wrong = f"loader {shown(content.loader)} has nothing to load"
        yield Problem("content.templates", content.templates, wrong, "one file or more")
    suffixes = {"fifloader": (".json",), "openqa": (".json", ".yaml"), "scenarios": (".yaml",)}
    ends = suffixes[content.loader]
    for name in content.templates:
        if not name.endswith(ends):
            wrong = f"no file for loader {shown(content.loader)}"
            yield Problem("content.templates", name, wrong, f"files that end in {' or '.join(ends)}")
        elif content.loader == "openqa" and name.endswith(".fif.json"):
            wrong = "named as Fedora's format, which openQA does not read"
            yield Problem(
                "content.templates", name, wrong, 'loader = "fifloader", or files in openQA\'s format'
            )


def _group_name_problems(content: Content) -> Iterator[Problem]:
    files: dict[str, str] = {}
    for file, name in content.group_names.items():
        key = f"content.group_names.{shown(file)}"
        if content.loader != "openqa":
            wrong = f"loader {shown(content.loader)} makes no job groups of files"
            yield Problem(key, name, wrong, 'loader = "openqa"')
        elif not file.endswith(".yaml"):
            wrong = "tables name the groups of their job templates themselves"
            yield Problem(key, name, wrong, "files that end in .yaml")
        elif not any(_is_of(pattern, file) for pattern in content.templates):
            wrong = "no file of content.templates"
            yield Problem(key, name, wrong, f"files of {shown(content.templates)}")
        if other := files.get(name):
            wrong = f"{other} has it, too, and the group keeps the job templates of one file"
            yield Problem(key, name, wrong, "a group for each file")
        files[name] = file


def _is_of(pattern: str, file: str) -> bool:
    """Tell whether a pattern means a file, as hosts take it."""
    parts = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(parts, file) is not None


def _tap_problems(address: IPv4Interface) -> Iterator[Problem]:
    key = "content.tap_address"
    network = address.network
    if not any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        allowed = f"an address of a network inside {', '.join(map(str, PRIVATE_NETWORKS))}"
        yield Problem(key, address, "not in a private network", allowed)
    if network.prefixlen != TAP_PREFIX:
        wrong = "half of the network is for the names by which the host knows guests, which have 16 bits"
        yield Problem(key, address, wrong, f"an address with prefix {TAP_PREFIX}")
        return
    lower, upper = network.subnets()
    if not lower[1] <= address.ip <= lower[-1]:
        wrong = f"{lower[0]} is no host's, and {upper} is what the host knows guests by"
        yield Problem(key, address, wrong, f"{lower[1]} to {lower[-1]} with prefix {TAP_PREFIX}")


def _coverage_problems(environment: Environment) -> Iterator[Problem]:
    fleets = [fleet for fleet in environment.fleets if fleet.max > 0]
    profile = environment.content.profile
    served = {fleet.architecture for fleet in fleets}
    if profile != "custom" or not served:  # of tests of one's own it is not known
        served.add("x86_64")

    def serves(classes: frozenset[str], architecture: str) -> bool:
        wanted = classes | {f"qemu_{architecture}"}
        return any(fleet.architecture == architecture and wanted <= set(fleet.classes) for fleet in fleets)

    names = [fleet.name for fleet in environment.fleets]
    told: set[Need] = set()
    for architecture in (name for name in sorted(ARCHITECTURES) if name in served):
        for need in environment.content.needs(architecture):
            # Fedora's jobs ask for their classes on every processor; of others' it is not known.
            anywhere = bool(need.classes) and profile != "fedora" and len(served) > 1
            if need in told or any(
                serves(need.classes, one) for one in (served if anywhere else {architecture})
            ):
                continue
            wrong = f"content {shown(profile)} has {architecture} jobs that no fleet serves"
            if profile == "custom" and not need.classes:
                wrong = f"no fleet serves the jobs of {architecture} that ask for nothing more"
            fleet, together = f"one {architecture} fleet", {*need.classes, f"qemu_{architecture}"}
            if anywhere:
                told.add(need)
                wrong = f"content {shown(profile)} has jobs that no fleet serves"
                fleet, together = "one fleet", {*need.classes, "the qemu_… of its architecture"}
            allowed = f"{fleet} with max above 0 whose classes hold {', '.join(sorted(together))}"
            yield Problem("fleets", names, wrong, allowed)


def _quota_problems(environment: Environment) -> Iterator[Problem]:
    if not all(catalogue.find(host.instance_type) for host in environment.hosts.values()):
        return
    on_demand, spot = _vcpus(environment)
    quotas = {
        "vcpu_quota": (environment.vcpu_quota, on_demand, "on-demand hosts"),
        "vcpu_spot_quota": (environment.vcpu_spot_quota, spot, "spot hosts"),
    }
    for key, (quota, vcpus, hosts) in quotas.items():
        if quota is not None and vcpus > quota:
            wrong = f"all {hosts} at their fleets' max have {vcpus} vCPUs"
            yield Problem(key, quota, wrong, f"{vcpus} or more if AWS grants it, or smaller fleets")


def _count_problems(environment: Environment) -> Iterator[Problem]:
    count = sum(fleet.max * max(map(fleet.workers, fleet.instance_types)) for fleet in environment.fleets)
    if count >= WORKERS:
        hosts = [fleet.max for fleet in environment.fleets]
        wrong = f"all hosts at their fleets' max have {count} workers"
        yield Problem("fleets.max", hosts, wrong, f"fewer than {WORKERS}, as openQA lists no more")


def _vcpus(environment: Environment) -> tuple[int, int]:
    """Count the vCPUs of on-demand and of spot hosts, every fleet at its maximum on its largest type."""
    types = catalogue.load()
    on_demand = sum(types[host.instance_type].vcpu for host in environment.hosts.values())
    spot = 0
    for fleet in environment.fleets:
        largest = max(types[name].vcpu for name in fleet.instance_types)
        on_demand += largest * fleet.on_demand_max
        spot += largest * (fleet.max - fleet.on_demand_max)
    for builder in environment.builders:
        on_demand += max(types[name].vcpu for name in builder.instance_types)
    return on_demand, spot
