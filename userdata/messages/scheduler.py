"""What happens with a message: nothing, or a build is scheduled once."""

from __future__ import annotations

import fcntl
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from userdata.messages.memory import Memory
from userdata.messages.openqa import Posted, RefusedError, UnavailableError
from userdata.messages.rules import IDENTITY, Message, Rule, RuleError

log = logging.getLogger(__name__)

TRIES = 3  # if nothing of a build was scheduled: openQA's database may have been down


class Api(Protocol):
    """openQA's API, as `userdata.messages.openqa.OpenQa` has it."""

    def job_of(self, parameters: dict[str, str]) -> int | None:
        """Return a job of a build; None: it has none."""

    def post(self, parameters: dict[str, str]) -> Posted:
        """Schedule a build."""


class Scheduler:
    """Schedules what rules make of messages.

    Args:
        rules: The rules; all that match are followed.
        openqa: openQA's API.
        memory: Remembers which messages were handled.
        templates_lock: A file that is locked exclusively while openQA's templates change.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        openqa: Api,
        memory: Memory,
        *,
        templates_lock: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._openqa = openqa
        self._memory = memory
        self._templates_lock = templates_lock
        self._clock = clock
        self._tries: Counter[tuple[str, str]] = Counter()  # of a message's builds

    def handle(self, message: Message) -> bool:
        """Handle a message for good.

        Returns:
            Whether openQA has jobs of every build that it announces.

        Raises:
            UnavailableError: openQA does not answer at the moment, or its templates are changing; the message
                is still to be handled.
        """
        if self._memory.knows(message.id):
            log.info("message %s: already handled", message.id)
            return False
        rules = [rule for rule in self._rules if rule.matches(message)]
        if not rules:
            log.info("message %s on %s: no rule matches it", message.id, message.topic)
        made = bool(rules)
        for rule in rules:
            try:
                with self._unchanged():
                    made &= self._follow(rule, message)
            except (RuleError, RefusedError) as error:
                made = False
                log.warning("message %s on %s: nothing is scheduled: %s", message.id, message.topic, error)
        self._memory.add(message.id, now=self._clock())
        return made

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Keeps openQA's templates from being changed."""
        with self._templates_lock.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UnavailableError("openQA's templates are being loaded") from error
            yield

    def _follow(self, rule: Rule, message: Message) -> bool:
        """Schedules a build; returns whether it has jobs."""
        parameters = rule.parameters(message)
        build = " ".join(parameters[name] for name in IDENTITY)
        tried = (message.id, build)
        if self._tries[tried] == TRIES:
            return False
        if job := self._openqa.job_of(parameters):
            log.info("message %s: %s has jobs already, such as %d", message.id, build, job)
            return True
        posted = self._openqa.post(parameters)
        if not posted.ids and (reason := posted.error or next(iter(posted.failed), "")):
            self._tries[tried] += 1
            if self._tries[tried] < TRIES:
                raise UnavailableError(f"{build}: nothing was scheduled: {reason}")
            raise RefusedError(f"{build}, {TRIES} times: {reason}")
        log.info("message %s: %s: scheduled %s", message.id, build, _listed(posted.ids))
        for failure in posted.failed:
            log.warning("message %s: %s: not scheduled: %s", message.id, build, failure)
        return bool(posted.ids)


def _listed(ids: Sequence[int]) -> str:
    return f"{len(ids)} jobs: {', '.join(map(str, ids))}" if ids else "no jobs: no job template matches it"
