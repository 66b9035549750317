"""What is made of messages: rules, memory, the archive, openQA's answers, what the consumer is given."""

from __future__ import annotations

import configparser
import fcntl
import hmac
import importlib
import json
import re
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from tests.userdata import machine
from tests.userdata.answers import NO_HTTP, Server
from userdata.host import figures, messages, roles
from userdata.host.errors import HostError
from userdata.messages import archive, fedora, rules
from userdata.messages.archive import ArchiveError
from userdata.messages.memory import KEEP_SECONDS, SAVE_SECONDS, Memory
from userdata.messages.openqa import OpenQa, Posted, RefusedError, UnavailableError, posted
from userdata.messages.rules import Message, Rule, RuleError
from userdata.messages.scheduler import TRIES, Scheduler

BODY = {"status": "FINISHED_INCOMPLETE", "compose": {"id": "F-1", "final": True, "number": 7, "arches": []}}
POST = {"DISTRI": "fedora", "VERSION": "Rawhide", "FLAVOR": "cd", "ARCH": "x86_64", "BUILD": "{compose.id}"}


def message(*, identifier: str = "1", topic: str = "a.b", body: Mapping[str, Any] = BODY) -> Message:
    return Message(id=identifier, topic=topic, body=body)


def rule(*, topic: str = "#", post: Mapping[str, str] = POST, **patterns: str) -> Rule:
    return Rule(topic=topic, filter=patterns, post=post)


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("*.b", "a.b", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#.d", "a.b.c.d", True),
        ("a.#.d", "a.b.c", False),
        ("#.b.#", "a.b.c", True),
    ],
)
def test_topics(pattern: str, topic: str, expected: bool) -> None:
    assert rules.topic_matches(pattern, topic) is expected


def test_a_rule_is_for_its_own_topics_alone() -> None:
    assert [rule(topic="a.*").matches(message(topic=topic)) for topic in ("a.b", "b.a")] == [True, False]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({}, True),
        ({"status": "FINISHED*"}, True),
        ({"status": "FINISHED"}, False),
        ({"compose.final": "true", "compose.number": "7"}, True),
        ({"compose.final": "True"}, False),
        ({"compose.arches": "*"}, False),
        ({"compose": "*"}, False),
        ({"absent": "*"}, False),
        ({"status.deeper": "*"}, False),
    ],
)
def test_filters(patterns: dict[str, str], expected: bool) -> None:
    assert Rule(topic="#", filter=patterns, post=POST).matches(message()) is expected


def test_a_build_of_each_combination() -> None:
    post = {"DISTRI": "a", "BUILD": "{compose.id}", "ISO": "{FLAVOR}-{ARCH}-{compose.id}.iso"}
    made = rules.builds(post, {"FLAVOR": ["cd", "dvd"], "ARCH": ["x86_64", "aarch64"]})
    assert [(one["FLAVOR"], one["ARCH"], one["ISO"]) for one in made] == [
        ("cd", "x86_64", "cd-x86_64-{compose.id}.iso"),
        ("cd", "aarch64", "cd-aarch64-{compose.id}.iso"),
        ("dvd", "x86_64", "dvd-x86_64-{compose.id}.iso"),
        ("dvd", "aarch64", "dvd-aarch64-{compose.id}.iso"),
    ]
    assert {one["BUILD"] for one in made} == {"{compose.id}"}
    assert rules.builds(post, {}) == [post]


def test_tables_are_taken_one_by_one() -> None:
    tables = [
        {"topic": "a", "post": {"B": "{A}"}, "each": {"A": ["1", "2"]}},
        {"topic": "b", "post": POST, "each": {}},
    ]
    assert list(rules.one_by_one(tables)) == [
        {"topic": "a", "post": {"B": "1", "A": "1"}},
        {"topic": "a", "post": {"B": "2", "A": "2"}},
        {"topic": "b", "post": POST},
    ]


def test_parameters_are_filled_in() -> None:
    made = rule(post=POST | {"BUILD": "{compose.id}-{compose.number}"}).parameters(message())
    assert made == POST | {"BUILD": "F-1-7"}


@pytest.mark.parametrize("template", ["{absent}", "{compose}", "{compose.arches}"])
def test_a_field_without_a_value_is_told(template: str) -> None:
    with pytest.raises(RuleError, match=f"no value at {template.strip('{}')}"):
        rule(post=POST | {"BUILD": template}).parameters(message())


@pytest.mark.parametrize(
    ("topic", "identifier", "raw", "reason"),
    [
        ("a", "1", b"{", "not JSON"),
        ("a", "1", b"\xff", "not JSON"),
        ("a", "1", b"[" * 100_000, "not JSON"),
        ("a", "1", b"[]", "not a JSON object"),
        ("", "1", b"{}", "no topic"),
        (5, "1", b"{}", "no topic"),
    ],
)
def test_what_is_no_message(topic: object, identifier: object, raw: bytes, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        rules.parse(topic, identifier, raw)


def test_a_message_is_known_by_the_id_that_its_sender_gave() -> None:
    assert rules.parse("a.b", "sender's", b"{}").id == "sender's"


def test_a_message_without_an_id_is_known_by_what_it_says() -> None:
    first, again, other, elsewhere = (
        rules.parse(topic, identifier, body).id
        for topic, identifier, body in (
            ("a.b", None, b'{"build": 1}'),
            ("a.b", "", b'{"build": 1}'),
            ("a.b", None, b'{"build": 2}'),
            ("a.c", None, b'{"build": 1}'),
        )
    )
    assert first == again
    assert len({first, other, elsewhere}) == 3
    for identifier in (None, "", 5):
        with pytest.raises(RuleError, match="no id"):
            rules.of("a.b", identifier, {"build": 1})  # an archive's


def test_memory_outlives_the_consumer(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = Memory(path, now=1000)
    assert first.since == 1000
    first.add("m", now=1001)
    assert Memory(path, now=5000).knows("m"), "at once"
    first.note("source", "stamp")
    first.all_done(now=1010)
    again = Memory(path, now=5000)
    assert again.knows("m")
    assert again.last("source") == "stamp"
    assert again.since == 1000, "not written more often than every half minute"
    first.all_done(now=1000 + SAVE_SECONDS)
    assert Memory(path, now=5000).since == 1000 + SAVE_SECONDS
    first.all_done(now=1002 + KEEP_SECONDS)
    assert not Memory(path, now=5000).knows("m")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"since": 1}', '{"since": 1, "ids": []}', '{"since": null, "ids": {}}']
)
def test_a_memory_of_no_use_begins_anew_and_says_so(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.json").write_text(text)
    memory = Memory(tmp_path / "state.json", now=7)
    assert (memory.since, memory.knows("m")) == (7, False)
    # And once, however soon its service ends.
    assert Memory(tmp_path / "state.json", now=8).since == 7
    assert len(caplog.messages) == 1


@dataclass
class FakeOpenQa:
    """Has the builds that were posted to it, but of the first ones it can make nothing."""

    jobs: dict[str, int] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    nothing: int = 0

    def job_of(self, parameters: dict[str, str]) -> int | None:
        return self.jobs.get(parameters["BUILD"])

    def post(self, parameters: dict[str, str]) -> Posted:
        self.asked.append(parameters)
        if self.errors:
            raise self.errors.pop(0)
        if len(self.asked) <= self.nothing:
            return Posted(ids=(), failed=(), error="the database is away")
        self.jobs[parameters["BUILD"]] = len(self.asked)
        return Posted(ids=(len(self.asked),), failed=("a: no worker",))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "state.json", now=0)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "templates.lock"
    path.touch()
    return path


def test_a_build_is_scheduled_once(memory: Memory, lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    openqa = FakeOpenQa()
    scheduler = Scheduler(
        [rule(), rule(status="OTHER")], openqa, memory, templates_lock=lock, clock=lambda: 1.0
    )
    for identifier in ("1", "1", "2"):
        scheduler.handle(message(identifier=identifier))
    assert openqa.asked == [POST | {"BUILD": "F-1"}]
    assert "message 1: fedora Rawhide cd x86_64 F-1: scheduled 1 jobs: 1" in caplog.messages
    assert "message 1: fedora Rawhide cd x86_64 F-1: not scheduled: a: no worker" in caplog.messages
    assert "message 1: already handled" in caplog.messages
    assert "message 2: fedora Rawhide cd x86_64 F-1 has jobs already, such as 1" in caplog.messages


def test_whether_a_message_has_its_jobs_is_told(memory: Memory, lock: Path) -> None:
    """The timetable remembers files of a source as tested by this."""
    scheduler = Scheduler([rule()], FakeOpenQa(), memory, templates_lock=lock)
    assert scheduler.handle(message())
    assert scheduler.handle(message(identifier="2")), "its build has jobs already"
    assert not scheduler.handle(message(identifier="2")), "already handled"
    assert not Scheduler([], FakeOpenQa(), memory, templates_lock=lock).handle(message(identifier="3"))


def test_every_rule_that_matches_is_followed(memory: Memory, lock: Path) -> None:
    openqa = FakeOpenQa()
    other = rule(post=POST | {"BUILD": "{compose.number}"})
    Scheduler(
        [rule(post=POST | {"BUILD": "{absent}"}), rule(), other], openqa, memory, templates_lock=lock
    ).handle(message())
    assert [asked["BUILD"] for asked in openqa.asked] == ["F-1", "7"]


def test_a_message_waits_while_openqa_is_away(memory: Memory, lock: Path) -> None:
    openqa = FakeOpenQa(errors=[UnavailableError("HTTP 502")])
    scheduler = Scheduler([rule()], openqa, memory, templates_lock=lock)
    with pytest.raises(UnavailableError):
        scheduler.handle(message())
    assert not memory.knows("1")
    scheduler.handle(message())
    assert memory.knows("1")
    assert len(openqa.asked) == 2


def test_nothing_is_scheduled_while_templates_change(memory: Memory, lock: Path) -> None:
    openqa = FakeOpenQa()
    scheduler = Scheduler([rule()], openqa, memory, templates_lock=lock)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="templates are being loaded"):
            scheduler.handle(message())
    assert openqa.asked == []
    scheduler.handle(message())
    assert len(openqa.asked) == 1


def test_what_openqa_refuses_is_not_tried_again(memory: Memory, lock: Path) -> None:
    openqa = FakeOpenQa(errors=[RefusedError("HTTP 400")])
    scheduler = Scheduler([rule()], openqa, memory, templates_lock=lock)
    scheduler.handle(message())
    scheduler.handle(message())
    assert len(openqa.asked) == 1


def test_a_build_of_which_openqa_could_make_nothing_is_tried_again(memory: Memory, lock: Path) -> None:
    class Failing(FakeOpenQa):
        def post(self, parameters: dict[str, str]) -> Posted:
            self.asked.append(parameters)
            if len(self.asked) in self.fails:
                return Posted(ids=(), failed=("a: the database is away",))
            return Posted(ids=(1,), failed=())

        fails = range(1, 3)

    openqa = Failing()
    scheduler = Scheduler([rule()], openqa, memory, templates_lock=lock)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="the database is away"):
            scheduler.handle(message())
    scheduler.handle(message())
    assert memory.knows("1")
    # Not for ever.
    openqa.fails = range(100)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            scheduler.handle(message(identifier="2"))
    scheduler.handle(message(identifier="2"))
    assert memory.knows("2")


def test_each_build_of_a_message_has_its_own_tries(memory: Memory, lock: Path) -> None:
    openqa = FakeOpenQa(nothing=4)
    scheduler = Scheduler(
        [rule(), rule(post=POST | {"BUILD": "{compose.number}"})], openqa, memory, templates_lock=lock
    )
    for _ in range(3):
        with pytest.raises(UnavailableError):
            scheduler.handle(message())
    assert not scheduler.handle(message()), "one of its builds has no jobs"
    assert [asked["BUILD"] for asked in openqa.asked] == ["F-1", "F-1", "F-1", "7", "7"]
    assert openqa.jobs == {"7": 5}


@pytest.mark.parametrize("text", ["\ud800", "a\nb", "a\x00"])
def test_what_is_no_text_for_openqa_is_told(text: str) -> None:
    found = Message(id="1", topic="a.b", body={"compose_id": text})
    with pytest.raises(RuleError, match="no printable text at compose_id"):
        Rule(topic="a.b", filter={}, post={"BUILD": "{compose_id}"}).parameters(found)


def test_openqas_answer() -> None:
    answer = {
        "ids": [7, 5],
        "failed": [{"job_name": "a", "error_message": "cycle"}, {"job_id": 5, "error_messages": ["b", "c"]}],
    }
    assert posted(answer) == Posted(ids=(5, 7), failed=("a: cycle", "job 5: b; c"))
    assert posted({}) == Posted(ids=(), failed=())
    assert posted({"error": "it is away"}) == Posted(ids=(), failed=(), error="it is away")


def test_openqa_is_asked_with_a_signature(server: Server) -> None:
    openqa = OpenQa(url=server.url, key="KEY", secret="SECRET")
    server.answers = [(200, b'{"jobs": [{"id": 3}]}'), (200, b'{"ids": [4]}')]
    assert openqa.job_of(POST | {"ISO": "x"}) == 3
    assert openqa.post({"BUILD": "a b"}).ids == (4,)
    (first, headers), (second, _) = server.asked
    asked = parse_qs(urlsplit(first).query)
    assert asked == {name.lower(): [value] for name, value in (POST | {"LIMIT": "1"}).items()}
    assert second == "/api/v1/isos BUILD=a+b"
    assert headers["X-Api-Key"] == "KEY"
    signed = f"{first}{headers['X-Api-Microtime']}".encode()
    assert headers["X-Api-Hash"] == hmac.new(b"SECRET", signed, "sha1").hexdigest()


def test_a_builds_jobs_are_awaited_as_long_as_nginx_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def urlopen(request: Any, *, timeout: float) -> Any:
        waits.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(UnavailableError):
        OpenQa(url="http://127.0.0.1", key="KEY", secret="SECRET").post(POST)
    nginx = (machine.REPOSITORY / "userdata/roles/webui/config/nginx.conf.j2").read_text()
    # The server's own, which the locations of API requests leave as it is.
    (patience,) = re.findall(r"^    proxy_read_timeout (\d+);", nginx, re.MULTILINE)
    assert waits == [float(patience)]


def test_jobs_are_found_whose_distri_openqa_wrote_in_lowercase(server: Server) -> None:
    openqa = OpenQa(url=server.url, key="KEY", secret="SECRET")
    server.answers = [(200, b'{"jobs": []}')]
    assert openqa.job_of(POST | {"DISTRI": "openSUSE", "VERSION": "Tumbleweed"}) is None
    asked = parse_qs(urlsplit(server.asked[0][0]).query)
    assert (asked["distri"], asked["version"]) == (["opensuse"], ["Tumbleweed"])


def test_what_openqa_fails_with_keeps_no_other_message_waiting_for_ever(
    server: Server, memory: Memory, lock: Path
) -> None:
    openqa = OpenQa(url=server.url, key="K", secret="S")
    scheduler = Scheduler([rule()], openqa, memory, templates_lock=lock)
    server.answers = [(200, b'{"jobs": []}'), (500, b"")] * TRIES
    for _ in range(TRIES - 1):
        with pytest.raises(UnavailableError, match="nothing was scheduled: POST /api/v1/isos: HTTP 500"):
            scheduler.handle(message())
    scheduler.handle(message())
    assert memory.knows("1")


@pytest.mark.parametrize(
    ("code", "answer", "expected", "reason"),
    [
        (502, b"", UnavailableError, "HTTP 502"),
        (403, b'{"error": "no api key"}', UnavailableError, r"HTTP 403 \(no api key\)"),
        (403, b"Asset download requested from non-passlisted host a.", RefusedError, "from non-passlisted"),
        (400, b'{"error": "DISTRI is missing"}', RefusedError, r"HTTP 400 \(DISTRI is missing\)"),
        (400, b"{}", RefusedError, "HTTP 400"),
        (400, b"[]", RefusedError, "HTTP 400"),
        (414, b"<html>", RefusedError, "HTTP 414"),  # what a message says may be long
        (NO_HTTP, b"hello", UnavailableError, "isos: hello"),
        (200, b"<html>", UnavailableError, "isos"),
        (200, b"[]", UnavailableError, "not a JSON object"),
    ],
)
def test_openqas_refusals(
    server: Server, code: int, answer: bytes, expected: type[Exception], reason: str
) -> None:
    server.answers = [(code, answer)]
    with pytest.raises(expected, match=reason):
        OpenQa(url=server.url, key="K", secret="S").post(POST)


@pytest.mark.parametrize("answer", [b"{}", b'{"jobs": null}', b'{"jobs": [{"id": "x"}]}'])
def test_an_answer_that_lists_no_jobs_is_none(server: Server, answer: bytes) -> None:
    """Else what is scheduled already would be scheduled again."""
    server.answers = [(200, answer)]
    with pytest.raises(UnavailableError, match="lists no jobs"):
        OpenQa(url=server.url, key="K", secret="S").job_of(POST)


def test_an_archive_is_read_page_by_page(server: Server) -> None:
    pages = [{"raw_messages": [{"id": str(number)}, 5], "pages": 2} for number in (1, 2)]
    server.answers = [(200, json.dumps(page).encode()) for page in pages]
    found = list(archive.read(f"{server.url}/search", topics=["a.b", "c"], start=1.6, end=9))
    assert found == [{"id": "1"}, {"id": "2"}]
    queries = [parse_qs(urlsplit(path).query) for path, _ in server.asked]
    kept = {"start": ["2"], "end": ["9"], "order": ["asc"], "rows_per_page": ["100"], "topic": ["a.b", "c"]}
    assert queries == [kept | {"page": ["1"]}, kept | {"page": ["2"]}]


def test_an_archive_knows_no_patterns(server: Server) -> None:
    server.answers = [(200, b'{"raw_messages": [], "pages": 0}')]
    assert list(archive.read(server.url, topics=["a.*", "c"], start=1, end=9)) == []
    assert "topic" not in parse_qs(urlsplit(server.asked[0][0]).query)


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""),
        (NO_HTTP, b"hello"),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"raw_messages": []}'),
        (200, b"[" * 100_000),
    ],
)
def test_an_archive_that_is_none(server: Server, answer: tuple[int, bytes]) -> None:
    server.answers = [answer]
    with pytest.raises(ArchiveError):
        list(archive.read(server.url, topics=["a"], start=1, end=9))


def configured(tmp_path: Path, secret: str) -> dict[str, Any]:
    host = machine.host(tmp_path, "webui-messages")
    machine.store_secrets("test")
    machine.publish_certificate("test")
    machine.keep_sample(host)
    boto3.client("secretsmanager", region_name=machine.REGION).put_secret_value(
        SecretId="openqa/test/broker", SecretString=secret
    )
    roles.configure(host)
    found = json.loads((host.layout.runtime / "messages/settings.json").read_text())
    listen: dict[str, Any] = found["listen"]
    return listen


@pytest.mark.parametrize("secret", ["", "no JSON", "[]", '{"ca": 5}'])
def test_a_secret_of_no_use_does_not_keep_the_web_ui_down(tmp_path: Path, aws: None, secret: str) -> None:
    listen = configured(tmp_path, secret or "{}")
    assert [listen[name] for name in ("password", "authority", "certificate", "key")] == [None] * 4


def test_a_client_certificate(tmp_path: Path, aws: None) -> None:
    listen = configured(tmp_path, json.dumps({"ca": "A", "certificate": "B", "key": "C", "password": "p"}))
    folder = tmp_path / "run/openqa-on-aws/messages"
    texts = [(folder / listen[name]).read_text() for name in ("authority", "certificate", "key")]
    assert texts == ["A", "B", "C"]
    assert listen["password"] == "p"


def test_how_far_messages_lag_behind_is_told(
    tmp_path: Path, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "webui-messages")
    for name, since in (("schedule", 1000.0), ("timetable", 1060.0)):
        (host.layout.data / name).mkdir(parents=True)
        Memory(host.layout.data / name / "state.json", now=since)
    told: list[dict[str, float]] = []
    monkeypatch.setattr(figures, "put", lambda host, **values: told.append(values))
    monkeypatch.setattr(time, "time", lambda: 1090.0)
    messages.tell(host)
    assert told == [{"ScheduleLagSeconds": 90.0}, {"TimetableLagSeconds": 30.0}]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"since": null}'])
def test_nothing_is_told_of_messages_that_is_not_known(
    tmp_path: Path, text: str | None, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "webui-messages")
    told: list[dict[str, float]] = []
    monkeypatch.setattr(figures, "put", lambda host, **values: told.append(values))
    for name in ("schedule", "timetable"):
        (host.layout.data / name).mkdir(parents=True)
    Memory(host.layout.data / "timetable/state.json", now=1000.0)
    if text is not None:
        (host.layout.data / "schedule/state.json").write_text(text)
    with pytest.raises(HostError, match="does not say up to when everything was handled"):
        messages.tell(host)
    assert [list(values) for values in told] == [["TimetableLagSeconds"]]


def caught_up(server: Server, memory: Memory, *, now: float, jobs: tuple[str | None, ...] = ()) -> list[str]:
    consumed: list[str] = []
    fedora.catch_up(
        memory,
        server.url,
        topics=("a.b",),
        has_jobs=lambda build: build in jobs,
        consume=lambda message: consumed.append(message.id),
        now=now,
    )
    return consumed


def test_what_fedoras_consumer_missed(server: Server, memory: Memory) -> None:
    def listed(identifier: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": identifier, "topic": "a.b", "body": body}

    found = [
        {"id": "none"},
        listed("neither", {"stream": "stable"}),
        listed("compose", {"compose_id": "F-1"}),
        listed("compose that has jobs", {"compose_id": "F-2"}),
        listed("new", {"update": {"alias": "FEDORA-1"}}),
        listed("had", {"update": {"alias": "FEDORA-2"}}),
    ]
    assert caught_up(server, memory, now=fedora.YOUNG_SECONDS) == []
    assert server.asked == []
    server.answers = [(200, json.dumps({"raw_messages": found, "pages": 1}).encode())] * 2
    now = 5000.0
    # Asked for the jobs of no build, openQA tells of all that it has.
    jobs = ("Update-FEDORA-2", "F-2", None)
    assert caught_up(server, memory, now=now, jobs=jobs) == ["neither", "compose", "new"]
    assert "start=-900&" in server.asked[0][0]
    assert memory.since == now - fedora.YOUNG_SECONDS
    assert caught_up(server, memory, now=now + 60) == []


def test_what_fedoras_consumer_cannot_do_is_tried_again(server: Server, memory: Memory) -> None:
    asked: list[str] = []

    def consume(message: Message) -> None:
        asked.append(message.id)
        if message.id == "bad":
            raise KeyError("state")

    listed = [{"id": name, "topic": "a.b", "body": {"compose_id": "F-1"}} for name in ("bad", "good")]
    server.answers = [(200, json.dumps({"raw_messages": listed, "pages": 1}).encode())] * 3
    for now in (5000.0, 5600.0, 5000.0 + 2 * fedora.TRY_SECONDS):
        fedora.catch_up(
            memory, server.url, topics=("a.b",), has_jobs=lambda _: False, consume=consume, now=now
        )
        assert (memory.knows("good"), memory.knows("bad")) == (True, False)
    assert asked[:3] == ["bad", "good", "bad"]
    # For a day.
    assert memory.since == 5000.0 + fedora.TRY_SECONDS - fedora.YOUNG_SECONDS


def test_what_fedoras_consumer_cannot_do_is_no_reason_to_ask_for_what_came_earlier(
    server: Server, memory: Memory
) -> None:
    def fail(message: Message) -> None:
        raise KeyError("state")

    since = memory.since
    listed = [{"id": "bad", "topic": "a.b", "body": {}}]
    server.answers = [(200, json.dumps({"raw_messages": listed, "pages": 1}).encode())]
    now = since + 2 * fedora.YOUNG_SECONDS
    fedora.catch_up(memory, server.url, topics=("a.b",), has_jobs=lambda _: False, consume=fail, now=now)
    assert memory.since == since


def test_fedoras_consumer_waits_while_templates_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled: list[str] = []
    module = ModuleType("fedora_openqa.consumer")
    vars(module)["OpenQAScheduler"] = lambda: scheduled.append
    monkeypatch.setitem(sys.modules, "fedora_openqa", ModuleType("fedora_openqa"))
    monkeypatch.setitem(sys.modules, "fedora_openqa.consumer", module)
    monkeypatch.setattr(fedora, "TEMPLATES_LOCK", tmp_path / "lock")
    (tmp_path / "lock").touch()
    scheduler = fedora.Scheduler()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=scheduler, args=("message",))
        waiting.start()
        waiting.join(0.3)
        assert (waiting.is_alive(), scheduled) == (True, [])
    waiting.join(10)
    assert scheduled == ["message"]


def test_fedoras_files_say_what_fedora_says(tmp_path: Path) -> None:
    """Facts of fedora-infra/ansible's roles/openqa/dispatcher and of fedora_openqa's own samples."""
    folder = Path(__file__).parent / "golden/webui-fedora-messages/run/openqa-on-aws/config"
    scheduler, resultsdb, wiki = (
        tomllib.loads((folder / f"fedora-{name}.toml").read_text())
        for name in ("scheduler", "report-resultsdb", "report-wiki")
    )
    module, _, name = scheduler["callback"].partition(":")
    assert getattr(importlib.import_module(module), name) is fedora.Scheduler
    reporters = [file["callback"].removeprefix("fedora_openqa.consumer:") for file in (resultsdb, wiki)]
    assert reporters == ["OpenQAResultsDBReporter", "OpenQAWikiReporter"]
    loggers = [
        name
        for file in (scheduler, resultsdb, wiki)
        for name in file["log_config"]["loggers"]
        if name.startswith("OpenQA")
    ]
    assert loggers == ["OpenQAScheduler", *reporters]
    for file in (scheduler, resultsdb, wiki):
        assert file["amqp_url"] == "amqps://fedora:@rabbitmq.fedoraproject.org/%2Fpublic_pubsub"
        assert "passive_declares" not in file, "only for Fedora's own durable queues"
        place = "/etc/fedora-messaging"
        assert file["tls"] == {
            "ca_cert": f"{place}/cacert.pem",
            "keyfile": f"{place}/fedora-key.pem",
            "certfile": f"{place}/fedora-cert.pem",
        }
        ((name, queue),) = file["queues"].items()
        assert queue == {"durable": False, "auto_delete": True, "exclusive": True, "arguments": {}}
        assert file["qos"] == {"prefetch_size": 0, "prefetch_count": 25}
        (binding,) = file["bindings"]
        assert (binding["queue"], binding["exchange"]) == (name, "amq.topic")
    assert {
        key.removeprefix("org.fedoraproject.prod.") for key in scheduler["bindings"][0]["routing_keys"]
    } == {
        "pungi.compose.status.change",
        "bodhi.update.status.testing.koji-build-group.build.complete",
        "coreos.build.state.change",
    }
    assert scheduler["consumer_config"]["update_arches"] == ["aarch64", "x86_64"]
    assert resultsdb["consumer_config"]["resultsdb_url"] == "https://resultsdb.example.org/api/v2.0/"
    assert wiki["consumer_config"]["wiki_hostname"] == "wiki.example.org"
    conf = configparser.ConfigParser()
    conf.read(folder / "schedule.conf")
    assert conf["schedule"]["arches"] == "aarch64,x86_64"
    unit = (folder.parents[2] / "etc/containers/systemd/openqa-fedora-scheduler.container").read_text()
    assert "RestartSec=60" in unit


def test_fedoras_own_by_hand(tmp_path: Path, aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    host = machine.host(tmp_path, "webui-fedora-messages")
    host.layout.templates_lock.parent.mkdir(parents=True)
    host.layout.templates_lock.touch()

    def run(arguments: list[str], *, seconds: float) -> str:
        with host.layout.templates_lock.open("rb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # who loads templates waits for it
        ran.append(arguments)
        return "scheduled\n2 jobs\n"

    monkeypatch.setattr(messages, "run", run)
    said: list[str] = []
    messages.schedule_by_hand(host, "update", "FEDORA-2", said.append)
    assert ran == [
        [
            *("podman", "exec", "openqa-fedora-scheduler", "fedora-openqa", "update"),
            *("--openqa-hostname=http://webui.test.openqa.internal", "FEDORA-2"),
        ]
    ]
    assert said == ["scheduled", "2 jobs"]
    other = machine.host(tmp_path / "other", "webui")
    with pytest.raises(HostError, match="fedora_openqa does not run here"):
        messages.schedule_by_hand(other, "update", "FEDORA-2", said.append)
