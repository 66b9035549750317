"""What systemd makes of units that timers start for a service; on a real machine without that service."""

from __future__ import annotations

import shlex

import pytest

from tests.localcloud.lab import Lab
from tests.userdata.test_configuration import GOLDEN

pytestmark = pytest.mark.machine

FOLDER = "/run/systemd/system"
SLOW = "[Service]\nExecStart=sleep infinity\nExecStop=sleep 2\n"


@pytest.mark.parametrize(
    ("path", "unit", "service"),
    [
        ("database", "backup.service", "openqa-database"),
        ("database", "backup-figures.service", "openqa-database"),
        ("database", "openqa-certificate.service", "openqa-database"),
        ("webui", "minion-figures.service", "openqa-webui"),
        ("webui", "openqa-enqueue@.service", "openqa-gru"),
        ("webui-fedora-messages", "openqa-fedora-catch-up.service", "openqa-fedora-scheduler"),
    ],
)
def test_a_unit_that_is_due_calls_off_no_stop(
    lab: Lab, pair: tuple[str, str], path: str, unit: str, service: str
) -> None:
    """A restore stops the database, whatever timers want of it just then."""
    host, _ = pair
    text = (GOLDEN / path / "etc/systemd/system" / unit).read_text()
    for name, content in ((unit, text), (f"{service}.service", SLOW)):
        lab.output(host, f"printf %s {shlex.quote(content)} >{FOLDER}/{name}")
    lab.output(host, f"systemctl daemon-reload; systemctl start {service}")
    due = unit.replace("@", "@due")
    lab.output(host, f"systemctl stop {service} & stop=$!; sleep 0.5; systemctl start {due}; wait $stop")
    assert lab.run(host, f"systemctl is-active --quiet {service}").returncode != 0
