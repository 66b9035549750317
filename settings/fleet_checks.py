"""What no single field shows of fleets and builders: whether they fit their instance types and each other."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from fleet import catalogue, warm
from fleet.openqa_api import WORKERS
from settings.builder import Builder
from settings.content import ARCHITECTURES, Need
from settings.fields import GP3_GIB, Architecture
from settings.model import MESH_HOSTS, SYSTEM_GIB, Environment, Fleet
from settings.problem import Problem, shown, twice


def problems(environment: Environment) -> Iterator[Problem]:
    """Find what is wrong with fleets and builders."""
    unknown = []
    for fleet in environment.fleets:
        unknown += list(unknown_types(f"fleets.{fleet.name}.instance_types", *fleet.instance_types))
    for builder in environment.builders:
        unknown += list(
            unknown_types(f"builders.{builder.architecture}.instance_types", *builder.instance_types)
        )
    yield from unknown
    yield from _fleet_names(environment)
    if not unknown:
        for fleet in environment.fleets:
            yield from _fleet_problems(environment, fleet)
    # After what is wrong with a fleet itself, which may be the cause.
    yield from _coverage_problems(environment)
    if not unknown:
        yield from _builder_problems(environment)
        yield from _quota_problems(environment)
        yield from _count_problems(environment)


def unknown_types(key: str, *instance_types: str) -> Iterator[Problem]:
    """Find the instance types that the catalogue does not have."""
    for name in instance_types:
        if catalogue.find(name) is None:
            near = difflib.get_close_matches(name, catalogue.load(), n=4, cutoff=0)
            allowed = f"a type of fleet/catalogue.toml, such as {', '.join(near)}"
            yield Problem(key, name, "unknown instance type", allowed)


def _fleet_names(environment: Environment) -> Iterator[Problem]:
    fleet_names = [fleet.name for fleet in environment.fleets]
    for name in sorted({name for name in fleet_names if fleet_names.count(name) > 1}):
        yield Problem("fleets.name", name, "two fleets have this name", "a name of its own for each fleet")
    spelled = {name.replace("-", ""): name for name in reversed(fleet_names)}
    for name in fleet_names:
        if (other := spelled[name.replace("-", "")]) != name:
            wrong = f"differs from the name of fleet {other} only in hyphens"
            yield Problem("fleets.name", name, wrong, "names that differ in more than hyphens")


def _fleet_problems(environment: Environment, fleet: Fleet) -> Iterator[Problem]:
    key = f"fleets.{fleet.name}"
    if fleet.min > fleet.max:
        yield Problem(f"{key}.min", fleet.min, f"more than max = {fleet.max}", f"0 to {fleet.max}")
    for text in fleet.warm:
        if warm.parse(text).hosts > fleet.max:
            allowed = f"times with up to {fleet.max} hosts"
            yield Problem(f"{key}.warm", text, f"more hosts than max = {fleet.max}", allowed)
    yield from twice(f"{key}.classes", fleet.classes, "each class once")
    yield from _machine_problems(environment, fleet, key)
    if fleet.virtualization == "none" and fleet.kvm:
        wrong = "no KVM without virtualization"
        yield Problem(f"{key}.virtualization", "none", wrong, '"metal" or "nested", or kvm = false')
    foreign = "qemu_x86_64" if fleet.architecture == "aarch64" else "qemu_aarch64"
    if foreign in fleet.classes:
        wrong = f"promises an architecture other than {fleet.architecture}"
        yield Problem(f"{key}.classes", foreign, wrong, f"qemu_{fleet.architecture}")
    for name in sorted({"tap", "tap2"} & set(fleet.classes)):
        if fleet.network != "tap":
            wrong = f'the fleet\'s network is "{fleet.network}"'
            yield Problem(f"{key}.classes", name, wrong, f'classes other than {name}, or network = "tap"')
    if fleet.network in ("tap", "vde") and fleet.spot_share > 0 and fleet.spot_reason is None:
        wrong = "an interrupted spot host ends all jobs of its clusters"
        yield Problem(f"{key}.spot_share", fleet.spot_share, wrong, "0, or say why in spot_reason")
    if fleet.spot_share > 0 and 0 < fleet.max == fleet.on_demand_max:
        wrong = f"no spot host with max = {fleet.max}, as Auto Scaling rounds the on-demand hosts up"
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
                wrong = f"fleet {other.name} has it too, and no tunnel joins a cluster split between them"
                yield Problem(f"{key}.classes", name, wrong, "a class that no other fleet has")
    if fleet.mesh and fleet.max > MESH_HOSTS:
        wrong = "every host has a tunnel to every other, and looks the others up in EC2 every 10 s"
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
            wrong = f"{workers} workers per host, {together}"
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
    yield from twice(key, hosts.instance_types, "each type once")
    for name in hosts.instance_types:
        facts = catalogue.load()[name]
        if facts.architecture != hosts.architecture:
            wrong = f"its architecture is {facts.architecture}, but the {kind}'s is {hosts.architecture}"
            yield Problem(key, name, wrong, f"types with architecture {hosts.architecture}")
        if hosts.virtualization == "metal" and not facts.metal:
            wrong = 'not a metal type, but virtualization = "metal"'
            yield Problem(key, name, wrong, f"metal types, such as {_metal_like(name, hosts.architecture)}")
        if hosts.virtualization == "nested" and facts.metal:
            wrong = 'a metal type, but virtualization = "nested"'
            yield Problem(key, name, wrong, 'types that are not metal, or virtualization = "metal"')
        # No aarch64 type has it, as is said above.
        x86 = hosts.architecture == "x86_64"
        if hosts.virtualization == "nested" and x86 and not facts.metal and not facts.nested:
            allowed = "a family with nested virtualization, such as c8i, m8i, r8i or their flex variants"
            yield Problem(key, name, "no nested virtualization", allowed)


def _metal_like(name: str, architecture: Architecture) -> str:
    """Name the metal types of an architecture whose names are nearest to that of a type."""
    metal = [
        one for one, facts in catalogue.load().items() if facts.metal and facts.architecture == architecture
    ]
    return ", ".join(difflib.get_close_matches(name, metal, n=3, cutoff=0))


def _other(architecture: Architecture) -> Architecture:
    return next(one for one in ARCHITECTURES if one != architecture)


def _volume_problems(environment: Environment, hosts: Fleet | Builder, key: str) -> Iterator[Problem]:
    least, wrong = SYSTEM_GIB, "no room for the machine image and what is installed on it"
    tight: frozenset[str] = frozenset()
    if isinstance(hosts, Fleet):
        pools = f"the system and {catalogue.DISK_GIB_PER_WORKER} GiB for each worker"
        if (over := hosts.needed_gib - GP3_GIB) > 0:
            wrong = f"with {pools} it takes {hosts.needed_gib} GiB, more than any EBS volume has"
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
    """Find the types that would carry a worker if the fleet's volume had room for one."""
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
                wrong = "createhdds installs systems in guests, which needs KVM"
                yield Problem(f"{key}.virtualization", "none", wrong, '"metal" or "nested"')
            for name in ("git", "ref"):
                if getattr(builder, name) is None:
                    wrong = ""
                    allowed = "where createhdds is: an https:// address and a branch, tag or commit"
                    yield Problem(f"{key}.{name}", None, wrong, allowed)


def _coverage_problems(environment: Environment) -> Iterator[Problem]:
    fleets = [fleet for fleet in environment.fleets if fleet.max > 0]
    profile = environment.content.profile
    served = {fleet.architecture for fleet in fleets}
    if profile != "custom" or not served:  # which ones custom tests need is not known
        served.add("x86_64")

    def serves(classes: frozenset[str], architecture: str) -> bool:
        wanted = classes | {f"qemu_{architecture}"}
        return any(fleet.architecture == architecture and wanted <= set(fleet.classes) for fleet in fleets)

    names = [fleet.name for fleet in environment.fleets]
    told: set[Need] = set()
    for architecture in (name for name in sorted(ARCHITECTURES) if name in served):
        for need in environment.content.needs(architecture):
            # Fedora's jobs ask for their classes on every processor; whether others' do is not known.
            anywhere = bool(need.classes) and profile != "fedora" and len(served) > 1
            if need in told or any(
                serves(need.classes, one) for one in (served if anywhere else {architecture})
            ):
                continue
            wrong = f"content {shown(profile)} has {architecture} jobs that no fleet serves"
            if profile == "custom" and not need.classes:
                wrong = f"no fleet serves {architecture} jobs that ask for no other class"
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
