"""Having hosts run their commands: what the operator sees of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from constructs import host_commands

import settings
from ops import __main__ as main
from ops import hosts, restore

OUTPUTS = {
    "DatabaseGroup": "openqa-dev-database",
    "WebUiGroup": "openqa-dev-webui",
    **{
        f"{name}Command": name.lower()
        for name in ("Backup", "Content", "Progress", "Reconcile", "Restart", "Restore", "Schedule")
    },
}


@dataclass
class Ssm:
    """Systems Manager with a host that runs one command at a time, a line more at each question."""

    lines: list[str]
    error: str = ""
    agent: bool = True
    sent: list[tuple[str, Mapping[str, list[str]]]] = field(default_factory=list)
    versions: set[str | None] = field(default_factory=set)
    asked: int = 0
    kept: int = 24_000

    class exceptions:  # noqa: N801
        InvocationDoesNotExist = KeyError

    def send_command(self, **p: Any) -> Any:
        if not self.agent:
            raise ClientError({"Error": {"Code": "InvalidInstanceId", "Message": "none"}}, "SendCommand")
        self.versions.add(p.get("DocumentVersion"))
        self.sent.append((p["DocumentName"], p["Parameters"]))
        return {"Command": {"CommandId": str(len(self.sent) - 1)}}

    def get_command_invocation(self, *, CommandId: str, InstanceId: str) -> Any:  # noqa: N803
        document, parameters = self.sent[int(CommandId)]
        if document == "progress":
            self.asked += 1
            return self._answer(self.lines[int(parameters["After"][0]) : self.asked])
        if self.asked < len(self.lines) - 1:
            return {"Status": "InProgress", "StandardOutputContent": ""}
        return self._answer([f"openqa-on-aws: {line}" for line in self.lines], error=self.error)

    def _answer(self, lines: list[str], error: str = "") -> Any:
        status = "Failed" if error else "Success"
        return {
            "Status": status,
            "StatusDetails": status,
            "StandardOutputContent": "".join(f"{line}\n" for line in lines)[: self.kept],
            "StandardErrorContent": error,
        }


class Groups:
    """Auto Scaling with a host in service in each group."""

    def describe_auto_scaling_groups(self, AutoScalingGroupNames: list[str]) -> Any:  # noqa: N803
        instances = [
            {"InstanceId": "i-old", "LifecycleState": "Terminating:Wait"},
            {"InstanceId": f"i-{AutoScalingGroupNames[0]}", "LifecycleState": "InService"},
        ]
        return {"AutoScalingGroups": [{"Instances": instances}]}


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Ssm:
    made = Ssm(lines=["unpacking", "replaying", "done"])
    monkeypatch.setattr(hosts, "stack_outputs", lambda *_: OUTPUTS)
    monkeypatch.setattr(hosts, "POLL_SECONDS", 0)
    monkeypatch.setattr(hosts, "client", lambda _, service: made if service == "ssm" else Groups())
    return made


def test_progress_is_shown_once_as_it_comes(ssm: Ssm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--env=dev", "backups", "now"]) == 0
    assert capsys.readouterr().out.splitlines() == ["unpacking", "replaying", "done"]
    assert ssm.asked == 3
    names = {parameters["Run"][0] for _, parameters in ssm.sent}
    assert len(names) == 1


def test_commands_are_as_the_stack_has_them_now(ssm: Ssm) -> None:
    assert main.main(["--env=dev", "backups", "now"]) == 0
    assert ssm.versions == {"$LATEST"}


def test_the_end_of_a_long_output_is_shown(ssm: Ssm, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where the old database is kept; of the whole, Systems Manager keeps the beginning."""
    ssm.kept = 40
    assert main.main(["--env=dev", "backups", "now"]) == 0
    assert capsys.readouterr().out.splitlines() == ["unpacking", "replaying", "done"]


def test_a_last_question_that_is_refused_takes_no_success_away(
    ssm: Ssm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send = ssm.send_command

    def refuse(**p: Any) -> Any:
        ssm.agent = ssm.asked < 2
        return send(**p)

    monkeypatch.setattr(ssm, "send_command", refuse)
    assert main.main(["--env=dev", "backups", "now"]) == 0
    assert capsys.readouterr().out.splitlines() == ["unpacking", "replaying", "done"]


def test_a_restore_is_followed_by_the_web_ui(ssm: Ssm) -> None:
    time = "2026-01-31T04:00:00.5+01:00"
    assert main.main(["--env=dev", "restore", "--to", time, "--timeline=3", "--yes-overwrite"]) == 0
    commands = [(document, parameters) for document, parameters in ssm.sent if document != "progress"]
    assert [document for document, _ in commands] == ["restore", "reconcile"]
    given = dict(commands[0][1])
    assert given.pop("Run")
    assert given == {
        "To": ["2026-01-31T03:00:00.500000+00:00"],
        "Timeline": ["--timeline=3"],
        "Overwrite": ["--yes-overwrite"],
    }


@pytest.mark.parametrize("part", ["database", "webui"])
def test_a_host_starts_its_services_anew(ssm: Ssm, part: str) -> None:
    assert main.main(["--env=dev", "restart", part]) == 0
    assert ssm.sent[0][0] == "restart"


def test_words_that_were_not_said_are_not_sent(ssm: Ssm) -> None:
    assert main.main(["--env=dev", "restore", "--to=latest", "--database-only"]) == 0
    documents = [document for document, _ in ssm.sent]
    assert "reconcile" not in documents
    assert set(ssm.sent[0][1]) == {"Run", "To"}


@pytest.mark.parametrize("words", [["backups", "now"], ["restore", "--to=latest"]])
def test_rds_has_no_host_to_ask(
    ssm: Ssm, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings.load("dev")
    database = asked.database.model_copy(update={"engine": "rds"})
    monkeypatch.setattr(settings, "load", lambda *_: asked.model_copy(update={"database": database}))
    assert main.main(["--env=dev", *words]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        "dev's database is RDS, which takes its own backups and restores one as a new server: "
        "aws rds restore-db-instance-to-point-in-time"
    )
    assert not ssm.sent


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to=yesterday"], "--to yesterday: neither 'latest' nor a time with its zone"),
        (["--to=2026-01-31T03:00:00"], "neither 'latest' nor a time"),
    ],
)
def test_a_time_that_is_none_is_not_sent(
    ssm: Ssm, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert main.main(["--env=dev", "restore", *arguments]) == 1
    assert reason in capsys.readouterr().err
    assert not ssm.sent


@pytest.mark.parametrize("number", ["99999999999", "0", "-3", "one"])
def test_a_timeline_that_the_document_does_not_take_is_not_sent(ssm: Ssm, number: str) -> None:
    pattern = host_commands.RESTORE.parameters["Timeline"].pattern
    assert re.search(pattern, f"--timeline={restore.LAST_TIMELINE}")
    assert not re.search(pattern, f"--timeline={restore.LAST_TIMELINE + 1}")
    with pytest.raises(SystemExit):
        main.main(["--env=dev", "restore", "--to=latest", f"--timeline={number}"])
    assert not ssm.sent


def test_a_failure_is_the_hosts_own_sentence(ssm: Ssm, capsys: pytest.CaptureFixture[str]) -> None:
    ssm.error = "openqa-on-aws: holds a healthy database with 3 jobs: to replace it, pass --yes-overwrite\n\n"
    assert main.main(["--env=dev", "restore", "--to=latest"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        "restore on the database host i-openqa-dev-database: holds a healthy database with 3 jobs: "
        "to replace it, pass --yes-overwrite"
    )
    assert "reconcile" not in [document for document, _ in ssm.sent]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("compose", "https://kojipkgs.example.org/compose/44/Fedora-44-20261101.n.0/compose"),
        ("update", "FEDORA-2026-0123456789"),
    ],
)
def test_fedoras_own_by_hand(ssm: Ssm, kind: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--env=fedora", "schedule", kind, what]) == 0
    document, parameters = ssm.sent[0]
    assert (document, parameters["Kind"], parameters["What"]) == ("schedule", [kind], [what])
    assert capsys.readouterr().out.splitlines() == ["unpacking", "replaying", "done"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--rewritten"], {"Rewritten": ["--rewritten"]}),
        (["--rewritten", "--again"], {"Rewritten": ["--rewritten"], "Again": ["--again"]}),
    ],
)
def test_content_now(
    ssm: Ssm, words: list[str], expected: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--env=fedora", "content", *words]) == 0
    (document, parameters), *_ = ssm.sent
    assert document == "content"
    assert {name: value for name, value in parameters.items() if name != "Run"} == expected
    assert capsys.readouterr().out.splitlines() == ["unpacking", "replaying", "done"]


def test_who_follows_no_repository_has_nothing_brought_up_to_date(
    ssm: Ssm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--env=local", "content"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("local follows no repository: its [content] needs tests")
    assert not ssm.sent


@pytest.mark.parametrize(
    ("environment", "kind", "what", "reason"),
    [
        ("fedora", "compose", "https://example.org/a b", "is not a compose; allowed: the https:// address"),
        ("fedora", "compose", "FEDORA-2026-0123456789", "is not a compose"),
        (
            "fedora",
            "update",
            "FEDORA-2026-0123456789; reboot",
            "is not an update; allowed: the id of an update",
        ),
        ("dev", "update", "FEDORA-2026-0123456789", "dev does not schedule with fedora_openqa"),
    ],
)
def test_what_is_none_of_fedoras_is_not_sent(
    ssm: Ssm, environment: str, kind: str, what: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([f"--env={environment}", "schedule", kind, what]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert reason in said
    assert not ssm.sent


def test_a_command_takes_a_moment_to_appear(ssm: Ssm, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, late = ssm.get_command_invocation, [True]

    def get(**asked: str) -> Any:
        if late:
            late.pop()
            raise ssm.exceptions.InvocationDoesNotExist
        return answer(**asked)

    monkeypatch.setattr(ssm, "get_command_invocation", get)
    assert main.main(["--env=dev", "backups", "now"]) == 0


@pytest.mark.parametrize(
    ("status", "details", "output", "reason"),
    [
        ("TimedOut", "DeliveryTimedOut", "", "it ended as DeliveryTimedOut, without any output"),
        ("Cancelled", "Cancelled", "openqa-on-aws: unpacking\n", "unpacking"),
    ],
)
def test_a_command_that_was_ended_is_not_waited_for(
    ssm: Ssm,
    status: str,
    details: str,
    output: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {"StandardOutputContent": output, "StandardErrorContent": ""}
    answers = iter([{"Status": status, "StatusDetails": details, **said}])
    monkeypatch.setattr(ssm, "get_command_invocation", lambda **_: next(answers))
    assert main.main(["--env=dev", "backups", "now"]) == 1
    assert capsys.readouterr().err.endswith(f": {reason}\n")


def test_a_host_that_is_gone_is_not_waited_for(
    ssm: Ssm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Systems Manager would for two days."""
    there = iter(["i-1"])
    monkeypatch.setattr(hosts, "LOOK_SECONDS", 0)
    monkeypatch.setattr(ssm, "get_command_invocation", lambda **_: {"Status": "InProgress"})
    monkeypatch.setattr(hosts.StatefulHost, "instance", lambda self: next(there, None))
    assert main.main(["--env=dev", "backups", "now"]) == 1
    assert capsys.readouterr().err == (
        "the database host i-1 is no longer in service and will not finish the command\n"
    )


def test_a_restore_waits_for_a_web_ui(
    ssm: Ssm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = iter(["i-1", None, None, "i-2"])
    monkeypatch.setattr(hosts.StatefulHost, "instance", lambda self: next(there, None))
    assert main.main(["--env=dev", "restore", "--to=latest"]) == 0
    assert "reconcile" in [document for document, _ in ssm.sent]
    assert main.main(["--env=dev", "backups", "now"]) == 1
    assert capsys.readouterr().err == "dev has no database host in service\n"


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://ssm"),
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "any"),
    ],
)
@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("send_command", "cannot run backup on i-openqa-dev-database: "),
        ("get_command_invocation", "cannot follow the command on i-openqa-dev-database, where it goes on: "),
    ],
)
def test_an_aws_that_does_not_answer_is_one_sentence(
    ssm: Ssm,
    call: str,
    words: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ssm, call, Mock(side_effect=error))
    assert main.main(["--env=dev", "backups", "now"]) == 1
    assert capsys.readouterr().err == f"{words}{error}\n"


def test_a_host_without_an_agent(ssm: Ssm, capsys: pytest.CaptureFixture[str]) -> None:
    ssm.agent = False
    assert main.main(["--env=dev", "backups", "now"]) == 1
    assert "session_manager = true" in capsys.readouterr().err
