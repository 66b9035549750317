"""What is allowed, but probably a mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fleet import catalogue
from settings.content import ARCHITECTURES, KNOWN_CLASSES, SAMPLE
from settings.messages import Build
from settings.model import FETCH_GBPS, PRIVATE_NETWORKS, Environment
from settings.problem import shown
from userdata.messages.rules import fields
from userdata.messages.sources import FETCHED

# What the names of AWS's public parameters for Debian's images begin with.
DEBIAN_IMAGES = "/aws/service/debian/"
# Of openQA's volume; the rest is for results, needles, fixed assets, and the space that jobs need.
ASSETS_SHARE = 0.75


def warnings(environment: Environment) -> tuple[str, ...]:
    """Returns one line for each setting that is allowed, but probably a mistake.

    Args:
        environment: a valid one.
    """
    found = (
        *_ranges_without_use(environment),
        *_refs_without_use(environment),
        *_emulation_on_hosts_with_kvm(environment),
        *_developers_without_a_way(environment),
        *_alarms_that_nobody_hears(environment),
        *_unknown_classes(environment),
        *_clusters_apart(environment),
        *_networks_without_clusters(environment),
        *_slow_fetches(environment),
        *_images_to_fill_in(environment),
        *_images_that_do_not_fit(environment),
        *_assets_without_room(environment),
        *_ids_that_are_not_read(environment),
        *_sign_ins_that_are_refused(environment),
        *_fetches_that_are_refused(environment),
        *_fetches_without_a_way(environment),
        *_fetches_of_the_first_build(environment),
        *_builds_without_scenarios(environment),
        *_builds_of_other_tests(environment),
        *_builds_without_hosts(environment),
    )
    return tuple(dict.fromkeys(found))  # builds of one table often share a mistake


def _ranges_without_use(environment: Environment) -> Iterator[str]:
    if environment.public and environment.trusted:
        trusted = shown(environment.trusted)
        yield (
            f"{environment.name}: trusted = {trusted}: has no effect, as with public = true everybody "
            "reaches the web UI; wanted: one of the two"
        )


def _refs_without_use(environment: Environment) -> Iterator[str]:
    content = environment.content
    for key, there in {
        "needles": content.needles,
        "templates_repository": content.templates_repository,
    }.items():
        ref = f"{key.partition('_')[0]}_ref"
        if ref in content.model_fields_set and not there:
            yield (
                f"{environment.name}: content.{ref} = {shown(getattr(content, ref))}: has no effect "
                f"without content.{key}, as they are in the tests' repository; wanted: tests_ref, or "
                f"content.{key} as well"
            )


def _emulation_on_hosts_with_kvm(environment: Environment) -> Iterator[str]:
    for fleet in environment.fleets:
        if not fleet.kvm and fleet.virtualization != "none":
            yield (
                f"{environment.name}: fleets.{fleet.name}.kvm = false: jobs run in software emulation, many "
                f"times slower, on hosts that have KVM with virtualization = {shown(fleet.virtualization)}; "
                'wanted: true, or virtualization = "none"'
            )


def _developers_without_a_way(environment: Environment) -> Iterator[str]:
    for cidr in environment.developers:
        private = any(cidr.subnet_of(network) for network in PRIVATE_NETWORKS)
        if environment.network.egress == "nat" and not private:
            yield (
                f"{environment.name}: developers = {shown(cidr)}: not a private range, but worker hosts have "
                "private addresses only; wanted: the range of a VPN or a peered network, or network.egress = "
                '"public-ip"'
            )


def _alarms_that_nobody_hears(environment: Environment) -> Iterator[str]:
    if environment.kind == "production" and environment.alarm_topic is None:
        yield (
            f"{environment.name}: alarm_topic is missing: nobody is told when an alarm rings; wanted: the "
            "ARN of an SNS topic"
        )


def _unknown_classes(environment: Environment) -> Iterator[str]:
    profile = environment.content.profile
    for fleet in environment.fleets:
        known = KNOWN_CLASSES[fleet.architecture] | environment.content.known_classes
        for name in fleet.classes:
            if name not in known:
                yield (
                    f"{environment.name}: fleets.{fleet.name}.classes = {shown(name)}: no job of content "
                    f"{shown(profile)} asks for it; known: {', '.join(sorted(known))}; others go into "
                    "content.classes, each with the number of jobs of its largest cluster"
                )


def _clusters_apart(environment: Environment) -> Iterator[str]:
    for fleet in environment.fleets:
        for name, jobs in environment.content.clusters(fleet.architecture).items():
            if fleet.network == "user" and name in fleet.classes:
                yield (
                    f"{environment.name}: fleets.{fleet.name}.classes = {shown(name)}: clusters of up to "
                    f"{jobs} jobs ask for it, but their guests cannot reach each other with "
                    'network = "user"; wanted: network = "tap" or "vde"'
                )


def _networks_without_clusters(environment: Environment) -> Iterator[str]:
    for fleet in environment.fleets:
        asked = ("tap", "tap2", *environment.content.clusters(fleet.architecture))
        if fleet.network == "tap" and not set(asked) & set(fleet.classes):
            yield (
                f'{environment.name}: fleets.{fleet.name}.network = "tap": no cluster runs on a fleet '
                f"without a class of clusters; wanted in classes: one of {', '.join(dict.fromkeys(asked))}"
            )


def _slow_fetches(environment: Environment) -> Iterator[str]:
    webui = environment.webui
    hosts = sum(fleet.max for fleet in environment.fleets)
    given = {
        "instance_type": (webui.instance_type, catalogue.load()[webui.instance_type].network_gbps),
        "volume_mibps": (webui.volume_mibps, webui.volume_gbps),
    }
    for key, (value, gbps) in given.items():
        if gbps < FETCH_GBPS * hosts:
            yield (
                f"{environment.name}: webui.{key} = {shown(value)}: {gbps:.3g} Gbit/s for {hosts} hosts that "
                f"may fetch assets at once; wanted: {FETCH_GBPS * hosts:g} Gbit/s, {FETCH_GBPS:g} for each"
            )


def _images_to_fill_in(environment: Environment) -> Iterator[str]:
    for key, (image, _) in _images(environment).items():
        if not image.removeprefix("ami-").strip("0"):
            yield (
                f"{environment.name}: {key} = {shown(image)}: a placeholder, to be filled in; EC2 has no "
                "image with this id, so the deployment fails at its first host"
            )


def _images(environment: Environment) -> Mapping[str, tuple[str, str]]:
    """Collect the machine images that are set, by key, each with the operating system it must have."""
    all_hosts = {
        f"image.{architecture}": (environment.image.of(architecture), environment.os)
        for architecture in ARCHITECTURES
    }
    builders = {
        f"builders.{builder.architecture}.image": (builder.image, environment.os_of(builder))
        for builder in environment.builders
    }
    return {key: (image, os) for key, (image, os) in {**all_hosts, **builders}.items() if image}


def _images_that_do_not_fit(environment: Environment) -> Iterator[str]:
    for key, (image, os) in _images(environment).items():
        if image.startswith(DEBIAN_IMAGES) and os != "debian":
            yield (
                f"{environment.name}: {key} = {shown(image)}: Debian's, but "
                f'os = "{os}"; wanted: an image of {os}'
            )
    for architecture in ARCHITECTURES:
        own = environment.image.of(architecture)
        if own and own.startswith("/aws/service/") and environment.image.golden:
            yield (
                f"{environment.name}: image.golden = true: hosts would install nothing, but "
                f"{shown(own)} does not contain openQA; wanted: false, or an image of your own"
            )


def _assets_without_room(environment: Environment) -> Iterator[str]:
    limits = environment.content.asset_limits
    room = int(ASSETS_SHARE * environment.webui.volume_gib)
    if sum(limits.values()) > room:
        yield (
            f"{environment.name}: content.asset_limits = {shown(limits)}: openQA removes nothing below them, "
            f"and with results and images that fills webui.volume_gib = {environment.webui.volume_gib}; "
            f"wanted: {room} in all, or a larger volume"
        )


def _ids_that_are_not_read(environment: Environment) -> Iterator[str]:
    """Debian 13's openQA reads the field ``id`` and no other (lib/OpenQA/WebAPI/Auth/OAuth2.pm)."""
    field = environment.sign_in.id_from
    if environment.os == "debian" and field not in (None, "id"):
        yield (
            f"{environment.name}: sign_in.id_from = {shown(field)}: Debian's openQA knows people by the "
            'provider\'s field "id" and lets in nobody without one; wanted: "id", or os = "fedora"'
        )


def _sign_ins_that_are_refused(environment: Environment) -> Iterator[str]:
    """openQA adds all that OAuth2 wants in this address except the response type (RFC 6749, 4.1.1)."""
    address = environment.sign_in.authorize_url
    if address and "response_type=" not in address:
        yield (
            f"{environment.name}: sign_in.authorize_url = {shown(address)}: openQA adds no response_type by "
            "itself, and most providers refuse without it; wanted: ?response_type=code at its end"
        )


class Fetch(NamedTuple):
    """A file that openQA fetches for a build."""

    key: str  # the setting that holds its address
    address: str
    asset: str  # the parameter that names it
    file: str


def _fetches(environment: Environment) -> Iterator[Fetch]:
    for key, build, post in _posts(environment):
        for name, address in post.items():
            if FETCHED.fullmatch(name):
                asset = name.removesuffix("_URL").removesuffix("_DECOMPRESS")
                file = post.get(asset) or address.partition("?")[0].rpartition("/")[2]
                yield Fetch(f"{key}.{build.place(name)}", address, asset, file)


def _fetches_that_are_refused(environment: Environment) -> Iterator[str]:
    domains = environment.content.download_domains
    for fetch in _fetches(environment):
        where = _source(fetch.address)
        if not any(f".{where}".endswith(f".{domain}") for domain in domains):
            if domains and (where is None or "{" in where):
                continue  # the host is in the message, or this is not an address
            source = "nowhere" if not domains else f"{', '.join(domains)} and below only"
            yield (
                f"{environment.name}: {fetch.key} = {shown(fetch.address)}: openQA "
                f"may fetch from {source}, and refuses the whole build; wanted: content.download_domains"
            )


def _fetches_without_a_way(environment: Environment) -> Iterator[str]:
    for fetch in _fetches(environment):
        port = re.match(r"https?://[^/?#]*:(\d+)(?=[/?#]|$)", fetch.address)
        if port and int(port[1]) not in (80, 443):
            yield (
                f"{environment.name}: {fetch.key} = {shown(fetch.address)}: the web UI's host cannot "
                f"reach port {port[1]}, and the build's jobs fail; wanted: an address without a port"
            )


def _fetches_of_the_first_build(environment: Environment) -> Iterator[str]:
    """openQA does not fetch a file whose name it has already (lib/OpenQA/Utils.pm, create_downloads_list)."""
    first: dict[tuple[str, str], str] = {}
    for fetch in _fetches(environment):
        same = first.setdefault((fetch.key, fetch.file), fetch.address) == fetch.address
        if same and fields(fetch.file):
            continue
        builds = "every build" if same else "another build at the same time"
        yield (
            f"{environment.name}: {fetch.key} = {shown(fetch.address)}: openQA fetches no file whose name it "
            f"has already, and {shown(fetch.file)} is that of {builds}; wanted: {fetch.asset} with a "
            "{field} that differs for each"
        )


def _builds_without_scenarios(environment: Environment) -> Iterator[str]:
    content = environment.content
    if content.loader != "scenarios":
        return
    for key, _, post in _posts(environment):
        if not any(name.startswith("SCENARIO_DEFINITIONS_YAML") for name in post):
            yield (
                f"{environment.name}: {key}.post has no SCENARIO_DEFINITIONS_YAML_FILE: with content.loader "
                '"scenarios" openQA has only job templates made by hand, and makes no jobs without any; '
                f"wanted: /var/lib/openqa/share/tests/{content.distri}/ and the file's name"
            )


def _builds_of_other_tests(environment: Environment) -> Iterator[str]:
    content = environment.content
    there = dict.fromkeys((content.distri, *content.more_distris, SAMPLE))
    for key, build, post in _posts(environment):
        distri = post["DISTRI"]
        # A build with CASEDIR brings its own tests.
        if "{" not in distri and distri not in there and "CASEDIR" not in post:
            yield (
                f"{environment.name}: {key}.{build.place('DISTRI')} = {shown(distri)}: openQA has tests only "
                f"of {' and '.join(there)}, and jobs of others cannot run; wanted: "
                "content.distri, or content.more_distris where the tests are the same"
            )


def _builds_without_hosts(environment: Environment) -> Iterator[str]:
    offered = {name for fleet in environment.fleets if fleet.max for name in fleet.classes}
    for key, build, post in _posts(environment):
        wanted = f"qemu_{post['ARCH']}"
        if "{" not in wanted and wanted not in offered:
            yield (
                f"{environment.name}: {key}.{build.place('ARCH')} = {shown(post['ARCH'])}: no fleet has "
                f"{wanted}, which jobs ask for unless their machines say otherwise: they would wait for ever;"
                " wanted: a fleet with max above 0 that has it in its classes"
            )


def _posts(environment: Environment) -> Iterator[tuple[str, Build, Mapping[str, str]]]:
    """Go through what openQA is told of each build, with the setting that says so."""
    rules = environment.schedule.rules if environment.schedule else ()
    said: dict[str, Build] = {f"schedule.rules.{number}": rule for number, rule in enumerate(rules, 1)}
    said |= {f"timetable.{number}": entry for number, entry in enumerate(environment.timetable, 1)}
    return ((key, build, post) for key, build in said.items() for post in build.posts)


def _source(template: str) -> str | None:
    """The host of an address; None: this is not an address."""
    found = re.match(r"https?://([^/:?#]+)", template)
    return found[1].lower() if found else None
