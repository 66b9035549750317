"""Messages of a real broker schedule jobs, each build once, whatever is away meanwhile."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcloud.addresses import OUTSIDE
from settings import messages
from tests.localcloud.content.broker import PASSWORD, PORT, VIRTUAL_HOST, Outside
from tests.localcloud.content.templates import load_templates
from tests.localcloud.deployed import Deployment, until
from userdata.messages.memory import SAVE_SECONDS

pytestmark = pytest.mark.schedule

TOPIC = "org.example.prod.compose.status.change"
VERSION = "messages"
UNIT = "openqa-messages.service"
SECONDS = 60
# Runs on the web UI's host, which has the library. Reads the address, what signs in, and messages.
PUBLISH = f"""
import json, pathlib, ssl, sys, tempfile
import pika
broker, secret, messages = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as folder:
    for name, text in secret.items():
        pathlib.Path(folder, name).write_text(text)
    context = ssl.create_default_context(cafile=f"{{folder}}/ca")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(f"{{folder}}/certificate", f"{{folder}}/key")
where = pika.ConnectionParameters(
    "{OUTSIDE}", {PORT}, "{VIRTUAL_HOST}",
    credentials=pika.credentials.ExternalCredentials(), ssl_options=pika.SSLOptions(context, "{OUTSIDE}"),
)
channel = pika.BlockingConnection(where).channel()
channel.confirm_delivery()
for message in messages:
    properties = pika.BasicProperties(message_id=message["id"], content_type="application/json")
    channel.basic_publish("amq.topic", message["topic"], message["body"].encode(), properties)
channel.connection.close()
"""
# Has the consumer, which is stopped, think that it was away for thirteen hours.
AWAY = """
import json, pathlib
path = pathlib.Path("/srv/data/schedule/state.json")
state = json.loads(path.read_text())
path.write_text(json.dumps(state | {"since": state["since"] - 13 * 3600}))
"""


def message(build: str, **more: Any) -> dict[str, Any]:
    """A message that means a build, as the archive has it."""
    body = {"status": "FINISHED", "compose": {"id": build, "version": VERSION}} | more
    return {"id": str(uuid.uuid4()), "topic": TOPIC, "body": body, "at": time.time()}


@dataclass(frozen=True)
class Scheduling:
    """The deployment and what it listens to."""

    made: Deployment
    webui: str
    outside: Outside

    def publish(self, *published: dict[str, Any]) -> None:
        """Publishes messages; a body that is no text becomes JSON."""
        texts = [
            m | {"body": m["body"] if isinstance(m["body"], str) else json.dumps(m["body"])}
            for m in published
        ]
        stdin = json.dumps([None, self.outside.secret("publisher"), texts])
        self.made.run(self.webui, "python3", "-c", PUBLISH, stdin=stdin)

    def jobs(self, build: str) -> list[dict[str, Any]]:
        query = {"distri": "sample", "version": VERSION, "build": build}
        found: list[dict[str, Any]] = self.made.openqa.request("GET", "jobs", params=query)["jobs"]
        return found

    def scheduled(self, build: str) -> int:
        """Waits for a build's job: there is one and only one."""
        found = until(f"a job of {build}", lambda: self.jobs(build) or None, seconds=SECONDS)
        assert len(found) == 1, found
        return int(found[0]["id"])

    def cancel(self, job: int) -> None:
        """No test waits for this job: others need the worker."""
        self.made.openqa.request("POST", f"jobs/{job}/cancel")

    def journal(self) -> str:
        done = self.made.run(self.webui, "journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager")
        return done.stdout

    def says(self, text: str, *, seconds: float = SECONDS) -> None:
        until(f"{UNIT} says {text!r}", lambda: text in self.journal() or None, seconds=seconds)


@pytest.fixture(scope="module")
def scheduling(content: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduling]:
    outside = Outside(content.cloud, tmp_path_factory.mktemp("broker"))
    outside.prepare()
    try:
        outside.start_archive()
        outside.start_broker()
        (webui,) = content.serving("webui")
        load_templates(content, VERSION)
        made = Scheduling(content, webui, outside)
        content.enter_secret("broker", outside.secret("fedora"))
        made.says(f"listening on {OUTSIDE}")
        yield made
    finally:
        outside.stop()


@pytest.fixture(scope="module")
def first(scheduling: Scheduling) -> int:
    """The job of the first build, whose message came twice, among messages that mean nothing."""
    once = message("first")
    nothing = [
        message("first", status="STARTED"),
        message("first") | {"topic": "org.example.prod.other"},
        message("first") | {"body": "{not JSON"},
        message("first") | {"body": "[]"},
        message("first") | {"id": ""},
        message("first") | {"body": {"status": "FINISHED", "compose": {"id": "first"}}},
    ]
    scheduling.publish(*nothing, once, once, message("first"), message("last", status="DOOMED"))
    return scheduling.scheduled("first")


def test_a_message_schedules_a_build_once(scheduling: Scheduling, first: int) -> None:
    # The last message: all before it have been dealt with.
    scheduling.says("no rule matches it")
    until("all is acknowledged", lambda: not scheduling.outside.queues()[0]["messages"] or None, seconds=30)
    assert [job["id"] for job in scheduling.jobs("first")] == [first]
    said = scheduling.journal()
    for text in (
        "already handled",
        f"has jobs already, such as {first}",
        f"skipping a message on {TOPIC}: its body is not JSON",
        f"skipping a message on {TOPIC}: its body is not a JSON object",
        "nothing is scheduled: the body has no value at compose.version",
    ):
        assert text in said, text
    assert "prod.other" not in said


def test_the_queue_is_what_public_brokers_allow(scheduling: Scheduling, first: int) -> None:
    schedule = messages.Schedule(broker=f"amqps://fedora@{OUTSIDE}/%2F")
    name = messages.queue(schedule, account="123456789012", region="us-east-1", name=scheduling.made.name)
    (queue,) = scheduling.outside.queues()
    kept = {key: queue[key] for key in ("name", "durable", "auto_delete", "exclusive", "policy", "consumers")}
    assert kept == {
        **{"name": name, "durable": False, "auto_delete": True, "exclusive": True},
        **{"policy": "bounded", "consumers": 1},
    }


def test_the_broker_goes_and_comes_back(scheduling: Scheduling, first: int) -> None:
    away = "the broker is unreachable"
    before = scheduling.journal().count(away)
    scheduling.outside.stop_broker()
    until("the broker is missed", lambda: scheduling.journal().count(away) > before or None, seconds=SECONDS)
    scheduling.outside.start_broker()
    until("the queue is there again", lambda: scheduling.outside.queues() or None, seconds=SECONDS)
    scheduling.publish(message("after-the-broker"))
    scheduling.cancel(scheduling.scheduled("after-the-broker"))


def test_a_queue_that_the_broker_ends_is_made_again(scheduling: Scheduling, first: int) -> None:
    listening = f"listening on {OUTSIDE}"
    before = scheduling.journal().count(listening)
    (queue,) = scheduling.outside.queues()
    scheduling.outside.end_queue(queue["name"])
    until("it listens again", lambda: scheduling.journal().count(listening) > before or None, seconds=SECONDS)
    scheduling.publish(message("after-the-queue"))
    scheduling.cancel(scheduling.scheduled("after-the-queue"))


def test_a_message_waits_for_the_web_ui(scheduling: Scheduling, first: int) -> None:
    sent = message("after-the-web-ui")
    scheduling.made.run(scheduling.webui, "systemctl", "stop", "openqa-webui.service")
    try:
        scheduling.publish(sent)
        scheduling.says(f"message {sent['id']} waits")
        assert scheduling.outside.queues()[0]["messages"] == 1
    finally:
        scheduling.made.run(scheduling.webui, "systemctl", "start", "openqa-webui", "openqa-proxy")
    scheduling.cancel(scheduling.scheduled("after-the-web-ui"))


def test_what_was_missed_is_in_the_archive(scheduling: Scheduling, first: int) -> None:
    """Half a day was, which is asked for in spans of six hours."""
    made, missed = scheduling.made, "the archive has 1 messages that were missed"
    made.run(scheduling.webui, "systemctl", "stop", UNIT)
    made.run(scheduling.webui, "python3", "-c", AWAY)
    published = [message("missed"), message("first"), message("missed", status="STARTED")]
    for sent, hours in zip(published, (12, 4, 0), strict=True):
        sent["at"] -= hours * 3600
    scheduling.outside.archive(published)
    before = scheduling.journal().count(missed)
    made.run(scheduling.webui, "systemctl", "start", UNIT)
    job = scheduling.scheduled("missed")
    until(
        "all was caught up", lambda: scheduling.journal().count(missed) == before + 3 or None, seconds=SECONDS
    )
    made.run(scheduling.webui, "systemctl", "restart", UNIT)
    scheduling.says("the archive has 0 messages that were missed")
    assert [found["id"] for found in scheduling.jobs("missed")] == [job]
    assert [found["id"] for found in scheduling.jobs("first")] == [first]
    scheduling.cancel(job)


def test_how_far_it_lags_behind_is_told(scheduling: Scheduling, first: int) -> None:
    def lag() -> float:
        scheduling.made.run(scheduling.webui, "systemctl", "start", "schedule-figures.service")
        return min(scheduling.made.told("ScheduleLagSeconds", "Minimum"))

    until("a consumer that keeps up", lambda: lag() < 2 * SAVE_SECONDS or None, seconds=SECONDS)


def test_the_consumer_has_no_more_than_it_needs(scheduling: Scheduling, first: int) -> None:
    made, folder = scheduling.made, Path("/run/openqa-on-aws")
    done = made.run(scheduling.webui, "systemctl", "show", "--property=MainPID", "--value", UNIT)
    process = done.stdout.strip()
    inside = (
        "nsenter",
        f"--target={process}",
        "--mount",
        "setpriv",
        "--reuid=604",
        "--regid=604",
        "--clear-groups",
    )
    for forbidden in (
        f"cat {folder}/secrets/api_key",
        f"cat {folder}/config/openqa.ini",
        "touch /srv/data/x",
    ):
        assert made.run(scheduling.webui, *inside, "sh", "-c", forbidden, check=False).returncode, forbidden
    token = (
        "curl -sm 2 -X PUT -H X-aws-ec2-metadata-token-ttl-seconds:60 http://169.254.169.254/latest/api/token"
    )
    assert made.run(scheduling.webui, *inside, "sh", "-c", token, check=False).returncode == 28


def test_a_password_signs_in_as_well(scheduling: Scheduling, first: int) -> None:
    authority = scheduling.outside.secret("fedora")["ca"]
    scheduling.made.enter_secret("broker", {"ca": authority, "password": "not the fedora user's"})
    scheduling.says("ACCESS_REFUSED")
    scheduling.made.enter_secret("broker", {"ca": authority, "password": PASSWORD})
    until("the queue is there again", lambda: scheduling.outside.queues() or None, seconds=SECONDS)
    scheduling.publish(message("by-password"))
    scheduling.cancel(scheduling.scheduled("by-password"))


def test_the_job_passes(scheduling: Scheduling, first: int) -> None:
    (job,) = scheduling.made.passed([first])
    assert job["settings"]["FROM_MESSAGE"] == "FINISHED"
