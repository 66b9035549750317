"""Consumes a broker's messages forever: each is acknowledged only once it is handled."""

from __future__ import annotations

import logging
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from userdata.messages import archive, rules
from userdata.messages.archive import ArchiveError
from userdata.messages.memory import OVERLAP_SECONDS, Memory
from userdata.messages.openqa import POST_SECONDS, UnavailableError
from userdata.messages.rules import Message, RuleError
from userdata.messages.scheduler import Scheduler

log = logging.getLogger(__name__)

PORT = 5671  # AMQP with TLS
RESOURCE_LOCKED = 405  # AMQP 0-9-1: another connection has the queue exclusively
PREFETCH = 25  # messages, as Fedora's own consumers
POLL_SECONDS = 1.0
AGAIN_SECONDS = 5.0  # until openQA is asked again if it did not answer
RECONNECT_SECONDS = (2.0, 60.0)  # at first, and at most
ARCHIVE_SECONDS = 60.0  # until an archive is asked again if it did not answer
SPAN_SECONDS = 6 * 3600.0  # asked of it at once; new messages are handled in between
# Longer than openQA may take to answer, as nothing else happens meanwhile.
_HEARTBEAT_SECONDS = int(POST_SECONDS) + 300
_PATIENCE_SECONDS = 20
FILES = ("authority", "certificate", "key")
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the consumer listens to.

    Attributes:
        broker: ``amqps://USER@HOST[:PORT]/VIRTUAL_HOST``, without a password.
        password: The user's password; None: the client certificate identifies the user.
        authority: The file with the broker's certificate authorities; None: the system's.
        certificate: The file with the client certificate; None: there is none.
        key: The file with its private key.
        queue: The queue's name; empty: the broker chooses one.
        exchange: What the queue gets its messages from.
        archive: Where to ask for missed messages; None: nowhere.
    """

    broker: str
    password: str | None
    authority: str | None
    certificate: str | None
    key: str | None
    queue: str
    exchange: str
    archive: str | None


@dataclass(kw_only=True)
class _Waiting:
    """A message that is still to be handled.

    Attributes:
        message: The message.
        tag: The broker's delivery tag; None: the broker does not know the message (any more).
    """

    message: Message
    tag: int | None


class Consumer:
    """Keeps a queue at the broker and handles messages one after another.

    Args:
        settings: What to listen to.
        topics: The topic patterns to ask for.
        scheduler: Handles messages.
        memory: Remembers which were handled.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        topics: tuple[str, ...],
        scheduler: Scheduler,
        memory: Memory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._scheduler = scheduler
        self._memory = memory
        self._clock = clock
        # Messages outlive their connection: the broker may have dropped them along with its queue.
        self._waiting: deque[_Waiting] = deque()
        self._not_before = 0.0
        self._pause = RECONNECT_SECONDS[0]
        self._queue = settings.queue
        self._caught_up = settings.archive is None
        self._archive_due = 0.0
        self._archive_from = 0.0

    def run(self) -> None:
        """Consume; does not return."""
        while True:
            try:
                self._consume()
            except (AMQPError, OSError) as error:
                log.warning("the broker is unreachable: %s", _words(error))
                # A lost host holds its queue for as long as the broker waits for its heartbeats. Nobody else
                # can use it; brokers that prescribe the form of names want a UUID.
                locked = isinstance(error, ChannelClosedByBroker) and error.reply_code == RESOURCE_LOCKED
                self._queue = str(uuid.uuid4()) if locked else self._settings.queue
            for waiting in self._waiting:
                waiting.tag = None
            until = self._clock() + self._pause
            while self._clock() < until:
                self._work(None)
                time.sleep(POLL_SECONDS)
            self._pause = min(2 * self._pause, RECONNECT_SECONDS[1])

    def _consume(self) -> None:
        connection = pika.BlockingConnection(parameters(self._settings))
        try:
            channel = connection.channel()
            # What public brokers allow: an exclusive queue that ends with its consumer.
            declared = channel.queue_declare(self._queue, durable=False, exclusive=True, auto_delete=True)
            queue = declared.method.queue
            for topic in self._topics:
                channel.queue_bind(queue, self._settings.exchange, routing_key=topic)
            channel.basic_qos(prefetch_count=PREFETCH)
            channel.basic_consume(queue, on_message_callback=self._receive)
            log.info("listening on %s", urlsplit(self._settings.broker).hostname)
            self._pause = RECONNECT_SECONDS[0]
            # From now on nothing can be missed. What comes both ways is handled only once.
            self._caught_up, self._archive_due = self._settings.archive is None, 0.0
            self._archive_from = self._memory.since - OVERLAP_SECONDS
            while True:
                connection.process_data_events(time_limit=0 if self._ready() else POLL_SECONDS)
                # The broker may end the queue, or the channel if a message is held for half an hour, yet
                # leave the connection open. pika does not tell those who only listen.
                if not channel.is_open or not channel.consumer_tags:
                    raise AMQPError("it closed the queue or its channel")
                self._catch_up()
                self._work(channel)
        finally:
            if connection.is_open:
                connection.close()

    def _receive(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        try:
            message = rules.parse(method.routing_key, properties.message_id, body)
        except RuleError as error:
            log.warning("skipping a message on %s: %s", method.routing_key, error)
            channel.basic_ack(method.delivery_tag)
            return
        self._waiting.append(_Waiting(message=message, tag=method.delivery_tag))

    def _catch_up(self) -> None:
        url, now = self._settings.archive, self._clock()
        if url is None or self._caught_up or now < self._archive_due:
            return
        end = min(now, self._archive_from + SPAN_SECONDS)
        found = []
        try:
            for message in archive.read(url, topics=self._topics, start=self._archive_from, end=end):
                try:
                    found.append(rules.of(message.get("topic"), message.get("id"), message.get("body")))
                except RuleError as error:
                    log.warning("skipping a message of the archive: %s", error)
        except ArchiveError as error:
            log.warning("cannot tell yet what was missed: %s", error)
            self._archive_due = self._clock() + ARCHIVE_SECONDS
            return
        here = {waiting.message.id for waiting in self._waiting}
        wanted = [
            message
            for message in found
            if any(rules.topic_matches(topic, message.topic) for topic in self._topics)
            and not self._memory.knows(message.id)
            and message.id not in here
        ]
        log.info("the archive has %d messages that were missed", len(wanted))
        self._waiting.extend(_Waiting(message=message, tag=None) for message in wanted)
        self._archive_from, self._caught_up = end, end == now

    def _ready(self) -> bool:
        return bool(self._waiting) and self._clock() >= self._not_before

    def _work(self, channel: Any | None) -> None:
        """Handle one message; if none is left and none was missed, remember that."""
        if not self._waiting:
            if channel is not None and self._caught_up:
                self._memory.all_done(now=self._clock())
            return
        if not self._ready():
            return
        waiting = self._waiting[0]
        try:
            self._scheduler.handle(waiting.message)
        except UnavailableError as error:
            log.warning("message %s waits: %s", waiting.message.id, error)
            self._not_before = self._clock() + AGAIN_SECONDS
            return
        self._waiting.popleft()
        if channel is not None and waiting.tag is not None:
            channel.basic_ack(waiting.tag)


def parameters(settings: Settings) -> pika.ConnectionParameters:
    """Return how to connect: verified TLS, with a client certificate or a password."""
    parts = urlsplit(settings.broker)
    context = ssl.create_default_context(cafile=settings.authority)
    # Brokers' own authorities rarely have all that RFC 5280 requires and newer Pythons insist on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    credentials = pika.PlainCredentials(unquote(parts.username or ""), settings.password or "")
    if settings.certificate and settings.key:
        context.load_cert_chain(settings.certificate, settings.key)
        credentials = pika.credentials.ExternalCredentials()
    return pika.ConnectionParameters(
        host=parts.hostname,
        port=parts.port or PORT,
        virtual_host=unquote(parts.path.removeprefix("/")),
        credentials=credentials,
        ssl_options=pika.SSLOptions(context, parts.hostname),
        heartbeat=_HEARTBEAT_SECONDS,
        socket_timeout=_PATIENCE_SECONDS,
        stack_timeout=_PATIENCE_SECONDS,
        blocked_connection_timeout=_PATIENCE_SECONDS,
        tcp_options=_KEEPALIVE,
        client_properties={"app": "openQA on AWS"},
    )


def read(data: Mapping[str, Any], folder: Path) -> Settings:
    """Make the settings from decoded JSON, which names files in a folder."""
    files = {name: str(folder / data[name]) if data[name] else None for name in FILES}
    return Settings(**{**data, **files})


def _words(error: BaseException) -> str:
    """Returns an error's text; pika hides causes in exceptions without one."""
    return str(error) or "; ".join(str(part) or repr(part) for part in error.args) or repr(error)
