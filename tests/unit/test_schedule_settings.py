"""``[schedule]`` in an environment file."""

from __future__ import annotations

from pathlib import Path

import pytest

import settings
from settings import SettingsError, messages

LOCAL = (settings.ENVIRONMENTS / "local.toml").read_text()
BROKER = 'broker = "amqps://fedora@rabbitmq.example.org/%2Fpublic_pubsub"\n'
POST = 'DISTRI = "sample"\nVERSION = "1"\nFLAVOR = "b"\nARCH = "x86_64"\nBUILD = "{id}"\n'
RULE = f'[[schedule.rules]]\ntopic = "org.example.#"\n[schedule.rules.post]\n{POST}'


def load(directory: Path, text: str) -> messages.Schedule:
    before, fleets, after = LOCAL.partition("[[fleets]]")
    (directory / "x.toml").write_text(f"{before}[schedule]\n{text}\n{fleets}{after}")
    found = settings.load("x", directory).schedule
    assert found is not None
    return found


def test_a_schedule(tmp_path: Path) -> None:
    schedule = load(tmp_path, BROKER + RULE)
    assert (schedule.port, schedule.archive, schedule.rules[0].filter) == (5671, None, {})
    assert load(tmp_path, BROKER.replace("org/", "org:5673/") + RULE).port == 5673


def test_an_environment_has_one_queue_for_ever(tmp_path: Path) -> None:
    schedule = load(tmp_path, BROKER + RULE)
    place = {"account": "123456789012", "region": "us-east-1", "name": "x"}
    assert messages.queue(schedule, **place) == "5fdf074d-6e0a-539e-b5ba-dfa83736a2d4"
    assert messages.queue(schedule, **place | {"name": "y"}) != messages.queue(schedule, **place)
    chosen = "12345678-1234-5678-1234-567812345678"
    assert messages.queue(load(tmp_path, f'{BROKER}queue = "{chosen}"\n{RULE}'), **place) == chosen


def test_another_exchange_and_a_queue_of_the_brokers_choice(tmp_path: Path) -> None:
    schedule = load(tmp_path, f'{BROKER}exchange = "pubsub"\nqueue = ""\n{RULE}')
    queue = messages.queue(schedule, account="123456789012", region="us-east-1", name="x")
    assert (schedule.exchange, queue) == ("pubsub", "")
    assert load(tmp_path, BROKER + RULE).exchange == "amq.topic"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RULE, "schedule.broker is missing"),
        (BROKER.replace("amqps", "amqp") + RULE, "allowed: amqps://USER@HOST/VIRTUAL_HOST"),
        (BROKER.replace("%2Fpublic_pubsub", "") + RULE, "%2F alone is a broker's default"),
        (BROKER.replace("fedora@", "fedora:secret@") + RULE, "without the password"),
        (BROKER.replace(".org/", ".org:0/") + RULE, "allowed: ports from 1 to 65535"),
        (BROKER.replace(".org/", ".org:65536/") + RULE, "allowed: ports from 1 to 65535"),
        (f'{BROKER}queue = "mine"\n{RULE}', "a UUID in lowercase"),
        (f'{BROKER}exchange = "a b"\n{RULE}', "an exchange's name"),
        (f'{BROKER}archive = "http://a:8080/search"\n{RULE}', "without a port"),
        (BROKER, 'program = "rules" has none to follow'),
        ('program = "fedora_openqa"', 'content "sample" has no jobs for Fedora'),
        (f'{BROKER}report_wiki = "wiki.example.org"\n{RULE}', 'program = "rules" reports nothing'),
        (BROKER + RULE.replace("org.example.#", "org..b"), 'schedule.rules.1.topic = "org..b"'),
        (BROKER + RULE.replace('"{id}"', '"1"'), "the same for every message"),
        (BROKER + RULE.replace('"{id}"', '"{id"'), 'no field in braces at "{id"'),
        (BROKER + RULE.replace('"{id}"', '"{i d}"'), 'no field in braces at "{i d}"'),
        (BROKER + RULE.replace('FLAVOR = "b"\n', ""), "schedule.rules.1.post.FLAVOR is missing"),
        (
            BROKER + RULE + 'iso = "a"\n',
            'schedule.rules.1.post.iso = "a": the table takes no such key; allowed: a table: openQA',
        ),
        (
            BROKER + RULE + f'ISO = "{"x" * 10_000}"\n',
            "[schedule] and timetable, more than user data has room for",
        ),
        (
            BROKER + RULE + f'ISO = "{"é" * 1700}"\n',
            "[schedule] and timetable, more than user data has room for",
        ),
        (
            BROKER.replace("pubsub", "x" * 10_000) + RULE,
            "[schedule] and timetable, more than user data has room for",
        ),
        (
            BROKER + RULE.replace("topic", "topics"),
            "unknown key, perhaps topic; allowed: post, each, topic, filter",
        ),
        (
            BROKER + RULE.replace("[schedule.rules.post]", "filter.topic = 5\n[schedule.rules.post]"),
            "schedule.rules.1.filter.topic = 5; allowed: a table: fields of the message's body",
        ),
    ],
)
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(tmp_path, text)
    assert reason in str(refusal.value)


def test_fetches_that_openqa_refuses_are_told(tmp_path: Path) -> None:
    load(tmp_path, f'{BROKER}{RULE}ISO_URL = "{{location}}"\nMIRROR_URL = "http://a"\n__ISO_URL = "b"\n')
    made = settings.load("x", tmp_path)
    content = made.content.model_copy(update={"loader": "openqa"})
    environment = made.model_copy(update={"content": content})
    (line,) = settings.warnings(environment)
    assert line == (
        'x: schedule.rules.1.post.ISO_URL = "{location}": openQA may fetch from nowhere, and refuses the '
        "whole build; wanted: content.download_domains"
    )
    content = environment.content.model_copy(update={"download_domains": ("example.org",)})
    assert settings.warnings(environment.model_copy(update={"content": content})) == ()


FEDORA = (settings.ENVIRONMENTS / "fedora.toml").read_text()


def fedora(directory: Path, text: str) -> messages.Schedule:
    program = 'program = "fedora_openqa"\n'
    assert program in FEDORA
    (directory / "f.toml").write_text(FEDORA.replace(program, program + text))
    found = settings.load("f", directory).schedule
    assert found is not None
    return found


def test_fedoras_program_knows_its_broker(tmp_path: Path) -> None:
    schedule = fedora(tmp_path, "")
    assert (schedule.broker, schedule.archive) == (messages.FEDORA_BROKER, messages.FEDORA_ARCHIVE)
    assert schedule.reports == {}


TARGETS = {"report_wiki": "fedoraproject.org", "report_resultsdb": "https://resultsdb.example.org/api/v2.0/"}


@pytest.mark.parametrize(("name", "target"), TARGETS.items())
def test_results_are_reported_only_where_two_settings_say_so(tmp_path: Path, name: str, target: str) -> None:
    said = f'{name} = "{target}"\n'
    for text, reason in (
        (said, "Fedora takes results only from its own openQA"),
        (said + "reports_are_fedoras_own = false\n", "Fedora takes results only from its own openQA"),
        ("reports_are_fedoras_own = true\n", "there is nothing to report to"),
    ):
        with pytest.raises(SettingsError, match=reason):
            fedora(tmp_path, text)
    assert fedora(tmp_path, said + "reports_are_fedoras_own = true\n").reports == {name: target}


def test_fedoras_program_knows_its_queue_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'schedule\.queue = "": Fedora'):
        fedora(tmp_path, 'queue = ""\n')


def test_fedoras_program_takes_no_rules(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has its own"):
        fedora(tmp_path, RULE)
