"""VDE: the command that os-autoinst gives the switch, and the switch's ports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from userdata.host import vde, vdecmd

DONE = "1000 Success\n\n"
MISSING = "1006 No such device or address\n\n"
THERE = "1017 File exists\n\n"


def switch(answers: dict[str, list[str]], asked: list[str]) -> Callable[[str], str]:
    """A switch that answers each line with the next of its answers, else with success."""

    def ask(line: str) -> str:
        asked.append(line)
        return answers[line].pop(0) if answers.get(line) else DONE

    return ask


@pytest.mark.parametrize(
    ("command", "answer", "wrong"),
    [
        ("port/create 42", DONE, None),
        ("port/create 42", THERE, None),
        ("port/remove 42", MISSING, None),
        ("vlan/create 7", THERE, None),
        ("port/create 42", "1022 Invalid argument\n", "port/create 42: 1022 Invalid argument"),
        ("port/remove 42", "1098 Address already in use\n", "1098 Address already in use"),
        ("vlan/create 7", MISSING, "vlan/create 7: 1006"),
        ("port/showinfo", "0000 DATA END WITH '.'\nNumports=4\n.\n1000 Success\n\n", None),
        ("port/create 42", "", "port/create 42: no answer"),
    ],
)
def test_what_is_as_it_should_be_is_no_error(command: str, answer: str, wrong: str | None) -> None:
    asked: list[str] = []
    said = vdecmd.perform(command.split(), switch({command: [answer]}, asked))
    assert (said is None) if wrong is None else (said is not None and wrong in said)
    assert asked == [command]


def test_a_port_that_is_not_there_yet_is_made_for_its_vlan() -> None:
    asked: list[str] = []
    command = ["port/setvlan", "43", "7"]
    assert vdecmd.perform(command, switch({"port/setvlan 43 7": [MISSING]}, asked)) is None
    assert asked == ["port/setvlan 43 7", "port/create 43", "port/setvlan 43 7"]
    refused = vdecmd.perform(command, switch({"port/setvlan 43 7": [MISSING, MISSING]}, []))
    assert refused == "port/setvlan 43 7: 1006 No such device or address"


def test_the_command_speaks_to_the_switch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mgmt"
    heard: list[bytes] = []

    def serve(server: socket.socket) -> None:
        for answer in (b"1000 Success\n\nvde$ ", b"1038 Function not implemented\n\nvde$ "):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"VDE switch V.2.3.2\n\n")
                connection.sendall(b"vde$ ")
                heard.append(connection.recv(100))
                connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        assert vdecmd.main(["-s", str(path), "vlan/create", "7"]) == 0
        assert vdecmd.main(["-s", str(path), "nonsense"]) == 1
        thread.join()
    assert heard == [b"vlan/create 7\n", b"nonsense\n"]
    assert vdecmd.main(["-s", str(tmp_path / "none"), "vlan/create", "7"]) == 1
    assert vdecmd.main(["vlan/create"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "vdecmd: nonsense: 1038 Function not implemented"
    assert said[1].endswith("No such file or directory")
    assert said[2].startswith("usage: vdecmd")


def test_the_switch_has_a_port_for_every_worker() -> None:
    last = 2**16 - 1
    assert 2 * last + 2 + 1 < vde.PORTS


def test_the_command_can_be_run_where_it_is_mounted() -> None:
    file = Path(vdecmd.__file__)
    assert file.stat().st_mode & 0o111 == 0o111
    assert "userdata" not in file.read_text().split('"""', 2)[2]
