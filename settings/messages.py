"""What schedules openQA's jobs automatically: a broker's messages, and rules for them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from settings.fields import UNSEEN, DnsName, Settings
from settings.problem import Problem, shown
from userdata.messages import rules

PORT = 5671
# Fedora's broker for everyone, and its archive (fedora-infra/fedora-messaging; apps.fedoraproject.org).
FEDORA_BROKER = "amqps://fedora@rabbitmq.fedoraproject.org/%2Fpublic_pubsub"
FEDORA_ARCHIVE = "https://apps.fedoraproject.org/datagrepper/v2/search"
# What may be scheduled by hand: addresses of Fedora's composes, and ids of Bodhi's updates.
COMPOSE = r"https://[A-Za-z0-9.-]+(:[0-9]+)?/[A-Za-z0-9._~/+-]*"
UPDATE = r"FEDORA-(EPEL-)?[0-9]{4}-[0-9a-f]{10}"
BUILDS = 100  # of one table; more are probably a mistake
_FIELD = Annotated[str, Field(pattern=rf"^{rules.FIELD}$")]
Parameter = Annotated[str, Field(pattern=r"^[A-Z0-9_]+$")]


class Build(Settings):
    """What openQA is told of a build, or of a build for each combination of values."""

    post: Mapping[Parameter, str]
    each: Annotated[
        Mapping[Parameter, Annotated[list[str], Field(min_length=1)]],
        Field(
            description="a table: openQA's settings in capitals, and a list of one value or more for each, "
            'such as { ARCH = ["x86_64", "aarch64"] }; {ARCH} in post stands for the build\'s own'
        ),
    ] = {}

    @property
    def posts(self) -> list[dict[str, str]]:
        """What openQA is told of each build."""
        return rules.builds(self.post, self.each)

    def place(self, name: str) -> str:
        """Tell where a parameter is set."""
        return f"{'each' if name in self.each else 'post'}.{name}"


class Rule(Build):
    """Which messages mean a build, and what openQA is told of it."""

    topic: Annotated[
        str,
        Field(
            pattern=rf"^{rules.TOPIC}$",
            description="an AMQP topic pattern: words separated by dots, * for one word, # for any number",
        ),
    ]
    filter: Annotated[
        Mapping[_FIELD, str],
        Field(description="a table: fields of the message's body and their patterns with * and ?, in quotes"),
    ] = {}
    post: Annotated[
        Mapping[Parameter, str],
        Field(
            description="a table: openQA's settings in capitals and their values, in quotes; {field} stands "
            "for a field of the message's body"
        ),
    ]


class Schedule(Settings):
    """A broker whose messages schedule jobs. Program ``fedora_openqa`` has its own broker and archive."""

    # rules: those below. fedora_openqa: Fedora's own program, which knows Fedora's composes and updates.
    program: Literal["rules", "fedora_openqa"] = "rules"
    broker: Annotated[
        str,
        Field(
            pattern=rf"^amqps://[^{UNSEEN}/@:]+@[A-Za-z0-9.-]+(:[0-9]{{1,5}})?/[^{UNSEEN}/?#]+$",
            description="amqps://USER@HOST/VIRTUAL_HOST, with / in its name as %2F (%2F alone is a broker's "
            "default), without the password, which belongs in the secret openqa/NAME/broker",
        ),
    ]
    # The topic exchange that messages come from.
    exchange: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_.:-]{1,127}$",
            description="an exchange's name: up to 127 letters, digits and any of _ . : -",
        ),
    ] = "amq.topic"
    # None: derived from account, region and name, so that it never changes. Empty: the broker chooses one for
    # each connection.
    queue: Annotated[
        str | None,
        Field(
            pattern=r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$",
            description='a UUID in lowercase, such as uuidgen prints, or "" where the broker chooses',
        ),
    ] = None
    # Where to ask for missed messages; None: what is published while nobody listens is lost.
    archive: Annotated[
        str | None,
        Field(
            # The host's security group lets 80 and 443 out.
            pattern=r"^https?://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/-]*)?$",
            description="the http(s):// address of a search like datagrepper's, without a port, such as "
            f"{FEDORA_ARCHIVE}",
        ),
    ] = None
    rules: Annotated[
        tuple[Rule, ...], Field(description="a [[schedule.rules]] table with topic and post for each")
    ] = ()
    # Where fedora_openqa reports results to. Fedora's own services take them only from Fedora's own openQA.
    report_resultsdb: Annotated[
        str | None,
        Field(
            pattern=rf"^https?://[^{UNSEEN}/:\"\\]+(:(80|443))?/[^{UNSEEN}\"\\]*$",
            description="the http(s):// address of ResultsDB's API, without a port",
        ),
    ] = None
    report_wiki: Annotated[
        DnsName | None, Field(description="a DNS name in lowercase, such as wiki.example.org")
    ] = None
    reports_are_fedoras_own: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("program") == "fedora_openqa":
            return {"broker": FEDORA_BROKER, "archive": FEDORA_ARCHIVE} | data
        return data

    @property
    def reports(self) -> Mapping[str, str]:
        """Where results are reported to, by setting."""
        said = {"report_resultsdb": self.report_resultsdb, "report_wiki": self.report_wiki}
        return {name: target for name, target in said.items() if target is not None}

    @property
    def port(self) -> int:
        """The broker's TCP port."""
        return urlsplit(self.broker).port or PORT


def queue(schedule: Schedule, *, account: str, region: str, name: str, purpose: str = "scheduler") -> str:
    """Return the name of an environment's queue: a UUID, as Fedora's broker wants, that never changes.

    Args:
        schedule: The settings, which may name the scheduler's queue.
        account: The AWS account.
        region: The region.
        name: The environment's name.
        purpose: What the queue is for.
    """
    if schedule.queue is not None and purpose == "scheduler":
        return schedule.queue
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"openqa:{account}/{region}/{name}/{purpose}"))


def problems(schedule: Schedule, *, profile: str) -> Iterator[Problem]:
    """Find what no single field shows.

    Args:
        schedule: The settings.
        profile: The content's.
    """
    if schedule.program == "rules" and not schedule.rules:
        wrong = 'program = "rules" has none to follow'
        yield Problem("schedule.rules", (), wrong, "one [[schedule.rules]] table or more")
    if schedule.program != "rules" and schedule.rules:
        wrong = f"program = {shown(schedule.program)} has its own"
        yield Problem("schedule.rules", [rule.topic for rule in schedule.rules], wrong, 'program = "rules"')
    if schedule.program == "fedora_openqa" and profile != "fedora":
        wrong = f"content {shown(profile)} has no jobs for Fedora's composes and updates"
        yield Problem("schedule.program", schedule.program, wrong, '"rules", or content.profile = "fedora"')
    if schedule.program == "fedora_openqa" and schedule.queue == "":
        wrong = "Fedora's program and broker need a queue's name"
        yield Problem("schedule.queue", "", wrong, "a UUID in lowercase, such as uuidgen prints, or none")
    if not _has_port(schedule.broker):
        yield Problem("schedule.broker", schedule.broker, "there is no such port", "ports from 1 to 65535")
    yield from _report_problems(schedule)
    for number, rule in enumerate(schedule.rules, 1):
        key = f"schedule.rules.{number}"
        found = [*build_problems(key, rule, fields="{field} or {object.field}")]
        yield from found
        for build in () if found else dict.fromkeys(post["BUILD"] for post in rule.posts):
            if not rules.fields(build):
                wrong = "the same for every message, so only the first would be scheduled"
                yield Problem(f"{key}.{rule.place('BUILD')}", build, wrong, "a value with {field} in it")


def build_problems(key: str, build: Build, *, fields: str) -> Iterator[Problem]:
    """Find what is wrong with parameters of ``isos post``.

    Args:
        key: The build's place in the file.
        build: The build, or several.
        fields: The placeholders that it may have, in words.
    """
    for name in sorted(build.each.keys() & build.post.keys()):
        yield Problem(f"{key}.post.{name}", build.post[name], "it is in each too", "one of the two")
    if (number := prod(map(len, build.each.values()))) > BUILDS:
        yield Problem(f"{key}.each", dict(build.each), f"{number} builds at once", f"up to {BUILDS}")
        return
    found = [problem for post in build.posts for problem in _post_problems(key, build, post, fields)]
    yield from dict.fromkeys(found)
    known = {tuple(post.get(name) for name in rules.IDENTITY) for post in build.posts}
    if len(known) < len(build.posts):
        wrong = "openQA would take several of these builds for one"
        allowed = f"values with which no two builds have the same {', '.join(rules.IDENTITY)}"
        yield Problem(f"{key}.each", dict(build.each), wrong, allowed)


def _post_problems(key: str, build: Build, post: Mapping[str, str], fields: str) -> Iterator[Problem]:
    for name in rules.IDENTITY:
        if not post.get(name):
            wrong, allowed = "openQA knows a build by it", f"a value, or {fields} in it"
            yield Problem(f"{key}.{build.place(name)}", post.get(name), wrong, allowed)
    for name, template in post.items():
        if brace := rules.malformed(template):
            wrong = f"no field in braces at {shown(brace)}"
            yield Problem(f"{key}.{build.place(name)}", template, wrong, fields)
        if not template.isprintable():
            wrong = "not printable in one line"
            yield Problem(f"{key}.{build.place(name)}", template, wrong, "one line of text")


def _has_port(broker: str) -> bool:
    try:
        return urlsplit(broker).port != 0
    except ValueError:  # above 65535
        return False


def _report_problems(schedule: Schedule) -> Iterator[Problem]:
    for name, target in schedule.reports.items():
        if schedule.program != "fedora_openqa":
            wrong = f"program = {shown(schedule.program)} reports nothing"
            yield Problem(f"schedule.{name}", target, wrong, 'program = "fedora_openqa"')
        elif not schedule.reports_are_fedoras_own:
            wrong = "Fedora takes results only from its own openQA"
            allowed = "none, or reports_are_fedoras_own = true as well, which only Fedora may say"
            yield Problem(f"schedule.{name}", target, wrong, allowed)
    if schedule.reports_are_fedoras_own and not schedule.reports:
        wrong = "there is nothing to report to"
        allowed = "false, or report_resultsdb or report_wiki as well"
        yield Problem("schedule.reports_are_fedoras_own", True, wrong, allowed)
