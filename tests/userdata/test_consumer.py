"""The consumer of messages where broker, openQA or archive are away; its AMQP library only hosts have."""

from __future__ import annotations

import importlib
import json
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.userdata.answers import Server
from userdata.messages import archive
from userdata.messages.archive import ArchiveError
from userdata.messages.memory import OVERLAP_SECONDS, Memory
from userdata.messages.openqa import POST_SECONDS, UnavailableError
from userdata.messages.rules import Message

NOW = 1e6


class Away:
    """A scheduler whose openQA does not answer."""

    def handle(self, message: Message) -> None:
        raise UnavailableError("openQA is away")


class Handled:
    """A scheduler that deals with all, and whose openQA does not answer at first."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.asked: list[str] = []

    def handle(self, message: Message) -> None:
        self.asked.append(message.id)
        if len(self.asked) <= self.away:
            raise UnavailableError("openQA is away")


class Channel:
    """A broker's channel that notes what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def basic_ack(self, tag: int) -> None:
        self.acknowledged.append(tag)


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pika, exceptions = ModuleType("pika"), ModuleType("pika.exceptions")
    for name in ("ConnectionParameters", "PlainCredentials", "SSLOptions"):
        setattr(pika, name, lambda *given, **named: SimpleNamespace(given=given, **named))
    vars(exceptions)["AMQPError"] = type("AMQPError", (Exception,), {})
    vars(exceptions)["ChannelClosedByBroker"] = type("ChannelClosedByBroker", (exceptions.AMQPError,), {})
    monkeypatch.setitem(sys.modules, "pika", pika)
    monkeypatch.setitem(sys.modules, "pika.exceptions", exceptions)
    yield importlib.import_module("userdata.messages.consumer")
    del sys.modules["userdata.messages.consumer"]


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "state.json", now=0)


def settings(consumer: Any, archive: str | None = None) -> Any:
    nothing = dict.fromkeys(("authority", "certificate", "key"))
    broker = "amqps://user@broker.example/"
    return consumer.Settings(broker=broker, password="p", queue="q", exchange="e", archive=archive, **nothing)


def listening(consumer: Any, memory: Memory, archive: str | None = None) -> Any:
    asked = settings(consumer, archive)
    return consumer.Consumer(asked, topics=("#",), scheduler=Away(), memory=memory, clock=lambda: NOW)


def deliver(made: Any, channel: Channel, body: bytes) -> None:
    method = SimpleNamespace(routing_key="a.b", delivery_tag=7)
    made._receive(channel, method, SimpleNamespace(message_id="1"), body)


def test_the_broker_must_be_who_its_certificate_says(consumer: Any) -> None:
    context, name = consumer.parameters(settings(consumer)).ssl_options.given
    assert name == "broker.example"
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_broker_is_found_and_told_who_asks(consumer: Any) -> None:
    asked = replace(settings(consumer), broker="amqps://us%2Fer@broker.example:5672/%2Fpublic")
    found = consumer.parameters(asked)
    assert (found.host, found.port, found.virtual_host) == ("broker.example", 5672, "/public")
    assert found.credentials.given == ("us/er", "p")
    assert consumer.parameters(settings(consumer)).port == consumer.PORT


def test_a_client_certificate_says_who_asks_where_there_is_one(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, ...]] = []
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda self, *files: loaded.append(files))
    credentials = SimpleNamespace(ExternalCredentials=lambda: "external")
    monkeypatch.setattr(consumer.pika, "credentials", credentials, raising=False)
    asked = replace(settings(consumer), certificate="cert.pem", key="key.pem")
    assert consumer.parameters(asked).credentials == "external"
    assert loaded == [("cert.pem", "key.pem")]


def test_only_the_settings_authorities_are_asked_about_the_broker(consumer: Any) -> None:
    with pytest.raises(FileNotFoundError):
        consumer.parameters(replace(settings(consumer), authority="/nowhere/ca.pem"))


def test_a_brokers_own_authority_may_lack_what_newer_pythons_ask_for(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = ssl.create_default_context()
    before = newer.verify_flags
    newer.verify_flags |= ssl.VERIFY_X509_STRICT
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: newer)
    context, _ = consumer.parameters(settings(consumer)).ssl_options.given
    assert context.verify_flags == before & ~ssl.VERIFY_X509_STRICT


def test_files_of_the_settings_are_in_their_folder(consumer: Any) -> None:
    data = asdict(settings(consumer)) | {"authority": "ca.pem"}
    assert consumer.read(data, Path("/etc/messages")) == replace(
        settings(consumer), authority="/etc/messages/ca.pem"
    )


@pytest.mark.parametrize(
    ("causes", "words"),
    [
        (["it is away"], "it is away"),
        ([OSError("refused"), ValueError()], "refused; ValueError()"),
        ([], "SilentError()"),
    ],
)
def test_an_error_without_a_text_is_told_by_its_causes(consumer: Any, causes: list[Any], words: str) -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            return self.args[0] if self.args and isinstance(self.args[0], str) else ""

    assert consumer._words(SilentError(*causes)) == words


def test_the_broker_waits_while_openqa_makes_a_builds_jobs(consumer: Any) -> None:
    """Heartbeats are that seldom; that the broker has vanished is noticed sooner."""
    found = consumer.parameters(settings(consumer))
    assert found.heartbeat > POST_SECONDS
    idle, pause, count = (found.tcp_options[f"TCP_KEEP{name}"] for name in ("IDLE", "INTVL", "CNT"))
    assert idle + pause * count <= 180


def test_until_the_archive_has_answered_nothing_counts_as_heard(
    consumer: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        raise ArchiveError("it is away")

    monkeypatch.setattr(archive, "read", away)
    made = listening(consumer, memory, archive="http://archive.example")
    made._catch_up()
    made._work(Channel())
    assert memory.since == 0
    listening(consumer, memory)._work(Channel())
    assert memory.since == NOW


def test_what_openqa_has_not_got_is_not_acknowledged(consumer: Any, memory: Memory) -> None:
    made, channel = listening(consumer, memory), Channel()
    deliver(made, channel, b"{}")
    made._work(channel)
    assert (channel.acknowledged, len(made._waiting)) == ([], 1)


def test_what_openqa_has_got_is_acknowledged_and_done_with(consumer: Any, memory: Memory) -> None:
    made, channel = listening(consumer, memory), Channel()
    made._scheduler = Handled()
    deliver(made, channel, b"{}")
    for _ in range(2):
        made._work(channel)
    assert (made._scheduler.asked, channel.acknowledged) == (["1"], [7])


def test_an_openqa_that_is_away_is_asked_again_after_a_pause(consumer: Any, memory: Memory) -> None:
    made, channel = listening(consumer, memory), Channel()
    made._scheduler = Handled(away=1)
    deliver(made, channel, b"{}")
    asked = []
    for later in (0, consumer.AGAIN_SECONDS - 1, consumer.AGAIN_SECONDS):
        made._clock = lambda later=later: NOW + later
        made._work(channel)
        asked.append(len(made._scheduler.asked))
    assert asked == [1, 1, 2]
    assert channel.acknowledged == [7]


def test_while_the_broker_is_away_nothing_counts_as_heard(consumer: Any, memory: Memory) -> None:
    """Else what it sent meanwhile would never be asked for."""
    listening(consumer, memory)._work(None)
    assert memory.since == 0


def test_of_the_archive_comes_what_neither_was_dealt_with_nor_waits(
    consumer: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        asked.append("archive")
        for id, topic in (("1", "a.b"), ("2", "a.b"), ("3", "a.b"), ("4", "other"), (5, "a.b")):
            yield {"id": id, "topic": topic, "body": {}}

    monkeypatch.setattr(archive, "read", read)
    made = listening(consumer, memory, archive="http://archive.example")
    made._topics, made._archive_from = ("a.*", "b.*"), NOW - 60
    deliver(made, Channel(), b"{}")
    memory.add("2", now=NOW)
    for _ in range(2):
        made._catch_up()
    assert [(waiting.message.id, waiting.tag) for waiting in made._waiting] == [("1", 7), ("3", None)]
    assert len(asked) == 1
    made._scheduler, channel = Handled(), Channel()
    for _ in range(2):
        made._work(channel)
    assert channel.acknowledged == [7]


def test_an_archive_that_was_away_is_asked_again_after_a_pause(
    consumer: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away(*_: Any, start: float, **__: Any) -> Iterator[dict[str, Any]]:
        asked.append((made._clock(), start))
        raise ArchiveError("it is away")

    monkeypatch.setattr(archive, "read", away)
    made = listening(consumer, memory, archive="http://archive.example")
    made._archive_from = 5.0
    for later in (0, consumer.ARCHIVE_SECONDS - 1, consumer.ARCHIVE_SECONDS):
        made._clock = lambda later=later: NOW + later
        made._catch_up()
    assert asked == [(NOW, 5.0), (NOW + consumer.ARCHIVE_SECONDS, 5.0)]


def test_what_makes_no_sense_is_acknowledged(consumer: Any, memory: Memory) -> None:
    made, channel = listening(consumer, memory), Channel()
    deliver(made, channel, b"{")
    assert (channel.acknowledged, len(made._waiting)) == ([7], 0)


def test_a_message_outlives_its_connection_and_its_tag_does_not(
    consumer: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the broker deals with it meanwhile, and asks ever more seldom, but each minute."""
    made = listening(consumer, memory)
    made._scheduler, seconds = Handled(), [NOW]
    moments: list[float] = []
    tags: list[int | None] = []

    def consume() -> None:
        moments.append(seconds[0])
        if len(moments) == 8:
            raise StopIteration
        deliver(made, Channel(), b"{}")
        raise OSError("the broker is gone")

    def work(channel: None) -> None:
        tags.extend(waiting.tag for waiting in made._waiting)
        dealt_with(channel)

    def sleep(pause: float) -> None:
        seconds[0] += pause

    dealt_with, made._clock = made._work, lambda: seconds[0]
    monkeypatch.setattr(made, "_consume", consume)
    monkeypatch.setattr(made, "_work", work)
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(StopIteration):
        made.run()
    assert tags == [None] * 7
    assert not made._waiting
    assert [later - sooner for sooner, later in pairwise(moments)] == [2, 4, 8, 16, 32, 60, 60]


@pytest.fixture
def broker(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A channel of a broker that chooses its queues' names, and ends the queue at once."""
    calls: list[tuple[Any, ...]] = []
    events = iter([None])

    def note(name: str) -> Any:
        return lambda *given, **named: calls.append((name, *given, *named.values()))

    channel = SimpleNamespace(
        is_open=True,
        consumer_tags=[],
        calls=calls,
        queue_declare=lambda *_, **__: SimpleNamespace(method=SimpleNamespace(queue="chosen")),
        **{name: note(name) for name in ("queue_bind", "basic_qos", "basic_consume", "basic_ack")},
    )
    connection = SimpleNamespace(
        is_open=True,
        channel=lambda: channel,
        process_data_events=lambda **_: next(events),
        close=note("close"),
    )
    monkeypatch.setattr(consumer.pika, "BlockingConnection", lambda _: connection, raising=False)
    return channel


def test_messages_come_through_the_queue_that_the_broker_made(
    consumer: Any, memory: Memory, broker: SimpleNamespace
) -> None:
    made = listening(consumer, memory)
    with pytest.raises(consumer.AMQPError):
        made._consume()
    assert broker.calls == [
        ("queue_bind", "chosen", "e", "#"),
        ("basic_qos", consumer.PREFETCH),
        ("basic_consume", "chosen", made._receive),
        ("close",),
    ]


def test_what_comes_is_dealt_with_while_the_broker_is_there(
    consumer: Any, memory: Memory, broker: SimpleNamespace
) -> None:
    broker.consumer_tags = ["tag"]
    made = listening(consumer, memory)
    made._scheduler = Handled()
    deliver(made, Channel(), b"{}")
    with pytest.raises(StopIteration):
        made._consume()
    assert ("basic_ack", 7) in broker.calls


def test_the_archive_is_asked_for_what_came_since_all_was_heard(
    consumer: Any, memory: Memory, broker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for some before: it may show messages late. Not in one question: it has a limit."""
    spans = []

    def read(*_: Any, start: float, end: float, **__: Any) -> Iterator[dict[str, Any]]:
        spans.append((start, end))
        return iter(())

    monkeypatch.setattr(archive, "read", read)
    broker.consumer_tags = ["tag"]
    memory.since = NOW - 8 * 3600
    made = listening(consumer, memory, archive="http://archive.example")
    made._caught_up = True  # before the broker was away
    with pytest.raises(StopIteration):
        made._consume()
    made._catch_up()
    begin = NOW - 8 * 3600 - OVERLAP_SECONDS
    assert spans == [(begin, begin + consumer.SPAN_SECONDS), (begin + consumer.SPAN_SECONDS, NOW)]


def test_a_queue_that_a_lost_host_holds_keeps_nobody_waiting(
    consumer: Any, memory: Memory, broker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ misses that host after two heartbeats, which are long here."""
    asked: list[str] = []
    reasons = iter([consumer.RESOURCE_LOCKED, 403])

    def declare(name: str, **_: Any) -> None:
        asked.append(name)
        error = consumer.ChannelClosedByBroker()
        error.reply_code = next(reasons)
        raise error

    broker.queue_declare = declare
    made = listening(consumer, memory)
    made._clock = iter(range(0, 10**6, 1000)).__next__
    with pytest.raises(StopIteration):
        made.run()
    before, other, after = asked
    assert (before, after) == ("q", "q")
    assert str(uuid.UUID(other)) == other


@pytest.mark.parametrize(("is_open", "tags"), [(False, ["tag"]), (True, [])])
def test_a_broker_that_ends_the_queue_or_the_channel_is_away(
    consumer: Any, memory: Memory, broker: SimpleNamespace, is_open: bool, tags: list[str]
) -> None:
    broker.is_open, broker.consumer_tags = is_open, tags
    made = listening(consumer, memory)
    with pytest.raises(consumer.AMQPError, match="it closed the queue or its channel"):
        made._consume()
    assert memory.since == 0, "what came since then was not heard"


class EndedError(Exception):
    """A service, which runs for ever, is ended."""


@pytest.fixture
def program(consumer: Any) -> Iterator[Any]:
    """``python3 -m userdata.messages``."""
    yield importlib.import_module("userdata.messages.__main__")
    del sys.modules["userdata.messages.__main__"]


BUILD = {"DISTRI": "d", "VERSION": "{V}", "FLAVOR": "f", "ARCH": "x86_64"}
NOTHING, MADE = (200, b'{"jobs": []}'), (200, b'{"ids": [4]}')


def run(program: Any, folder: Path, server: Server, data: dict[str, Any]) -> int:
    """Runs the program with settings such as hosts write, for one build of each of two versions."""
    server.answers = [NOTHING, MADE] * 2
    (folder / "settings").mkdir()
    (folder / "templates.lock").touch()
    openqa = {"url": server.url, "key": "K", "secret": "S"}
    text = json.dumps({**data, "openqa": openqa, "templates_lock": "../templates.lock"})
    (folder / "settings/settings.json").write_text(text)
    returned: int = program.main([str(folder / "settings"), str(folder)])
    return returned


def posted(server: Server) -> list[str]:
    return [asked.partition(" ")[2] for asked, _ in server.asked if asked.startswith("/api/v1/isos")]


def expected(build: str) -> list[str]:
    return [f"DISTRI=d&VERSION={number}&FLAVOR=f&ARCH=x86_64&BUILD={build}" for number in (1, 2)]


def test_the_program_keeps_a_timetable(
    program: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(seconds: float) -> None:
        raise EndedError

    monkeypatch.setattr(time, "sleep", end)
    Memory(tmp_path / "state.json", now=time.time() - 180)
    missed = datetime.now(UTC) - timedelta(seconds=90)
    entry = {"at": [f"mon-sun {missed:%H:%M}"], "only_new": False, "each": {"V": ["1", "2"]}}
    with pytest.raises(EndedError):
        run(
            program,
            tmp_path,
            server,
            {"timetable": [entry | {"post": BUILD | {"BUILD": "{date}"}}]},
        )
    built = [f"{words}&V={number}" for number, words in enumerate(expected(f"{missed:%Y%m%d}"), 1)]
    assert posted(server) == built


def test_the_program_follows_rules(
    program: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(service: Any) -> None:
        assert service._topics == ("a.#",)
        channel = Channel()
        deliver(service, channel, b'{"id": "b"}')
        service._work(channel)
        assert channel.acknowledged == [7]

    monkeypatch.setattr(program.Consumer, "run", receive)
    rule = {"topic": "a.#", "filter": {"id": "b"}, "each": {"V": ["1", "2"]}}
    data = {
        "listen": asdict(settings(program.consumer)),
        "rules": [rule | {"post": BUILD | {"BUILD": "{id}"}}],
    }
    assert run(program, tmp_path, server, data) == 0
    assert posted(server) == [f"{words}&V={number}" for number, words in enumerate(expected("b"), 1)]


def test_a_program_without_settings_says_where_they_are_missing(
    program: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert program.main([str(tmp_path), str(tmp_path)]) == 1
    assert caplog.messages == [f"{tmp_path}/settings.json: No such file or directory"]
