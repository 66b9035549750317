"""The overview of an environment's fleets."""

from __future__ import annotations

from pathlib import Path

import pytest

import settings
from fleet import catalogue
from ops import fleets
from ops.__main__ import main
from settings import Environment


def test_what_production_is_at_its_largest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env", "production", "fleets"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["fleet", "hosts", "type", "workers", "$/hour"]
    assert said[1].split() == ["x86-nested", "0", "to", "20", "m8i.4xlarge", "8", "0.847"]
    assert said[2].split() == ["m8i-flex.4xlarge", "8", "0.804"]
    assert said[5] == ("  at max: 160 workers on 20 hosts (20 on demand, 0 spot), at most $22.23 an hour")
    tap = said.index(next(line for line in said if line.startswith("tap ")))
    assert said[tap + 2] == (
        "  at max: 16 to 32 workers on 2 hosts (2 on demand, 0 spot), at most $3.39 an hour"
    )
    assert said[-1].startswith("All fleets at their max: at most ")


def test_spot_hosts_are_counted_apart() -> None:
    asked = settings.load("staging")
    fleet = asked.fleets[0].model_copy(update={"max": 20, "spot_share": 0.75})
    lines = fleets.overview(asked.model_copy(update={"fleets": (fleet,)}))
    assert any("on 20 hosts (5 on demand, 15 spot)" in line for line in lines)


@pytest.mark.parametrize("name", settings.names())
def test_every_fleet_and_type_is_shown_once(name: str) -> None:
    environment: Environment = settings.load(name)
    lines = fleets.overview(environment)
    assert len(lines) == 2 + sum(1 + len(fleet.instance_types) for fleet in environment.fleets)
    total = sum(
        fleet.max * max(catalogue.load()[kind].price or 0 for kind in fleet.instance_types)
        for fleet in environment.fleets
    )
    assert lines[-1].startswith(f"All fleets at their max: at most ${total:.2f} an hour")


@pytest.mark.parametrize(
    "words",
    [["--env", "local", "fleets"], ["fleets", "--env", "local"], ["--env=dev", "fleets", "--env=local"]],
)
def test_the_environment_stands_before_or_after_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == fleets.overview(settings.load("local"))


def test_an_environment_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fleets"])
    assert capsys.readouterr().err.endswith("error: the following arguments are required: --env\n")


def test_options_stand_after_the_words_of_a_command_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["schedule", "iso", "DISTRI=a", "--env", "here", "--environments", str(tmp_path)]
    assert main(words) == 1
    assert "holds no *.toml" in capsys.readouterr().err


def test_it_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asks somebody"))
    assert main(["--env", "local", "fleets"]) == 0
