"""Being ended as a command: what was begun is put back, however impatient somebody is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.userdata import machine
from userdata.host import __main__ as main
from userdata.host.layout import Layout

# What runs the tests may ignore Ctrl-C, as shells have their background jobs do.
ENDED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from userdata.host.commands import ended_in_order, run
with ended_in_order():
    try:
        print("began", flush=True)
        time.sleep(60)
    except BaseException:
        print("puts back", flush=True)
        run(["sleep", "1"])
        print("put back", flush=True)
        raise
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_ended_twice_puts_back_what_was_begun(number: signal.Signals) -> None:
    """As by Ctrl-C, which all programs of a terminal get."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDED],
        cwd=machine.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in ("began\n", "puts back\n"):
            assert process.stdout.readline() == line
            time.sleep(0.2)
            os.killpg(process.pid, number)
        rest, said = process.communicate(timeout=30)
    assert (process.returncode, rest, said) == (128 + number, "put back\n", "")


def test_who_is_interrupted_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "this_host", interrupt)
    assert main.main(["backup"], Layout()) == 130
    assert capsys.readouterr().err == "openqa-on-aws: interrupted\n"
