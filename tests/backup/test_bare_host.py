"""The host that these tests have goes with them, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backup.bare_host import ROOT, wait_until
from tests.prerequisites import missing

pytestmark = pytest.mark.backup

HOLD = """
import time
from pathlib import Path
from tests.backup.bare_host import running
with running(Path("/"), "webui") as host:
    print(host.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_made_it(end: signal.Signals) -> None:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("a mount needs root and /dev/fuse")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        host = Path(f"/proc/{int(process.stdout.readline())}")
        process.send_signal(end)
    wait_until(lambda: not host.exists(), seconds=10)
