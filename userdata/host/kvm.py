"""The proof that KVM works on this host: a guest of a few instructions that runs and says so.

The device's presence proves nothing: there are machines on which it opens but guests hang.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from userdata.host.commands import CommandError, run
from userdata.host.errors import HostError

DEVICE = Path("/dev/kvm")
SECONDS = 120  # a new volume still loads from its snapshot
MARK = "K"
_FAILED = "KVM does not work here, yet the environment says kvm = true"


@dataclass(frozen=True)
class Guest:
    """A guest that writes :data:`MARK` to QEMU's standard output and ends the machine.

    Attributes:
        program: what it executes.
        arguments: QEMU's arguments, with the program at ``{program}``.
        exit_code: QEMU's exit code when the guest ended it.
    """

    program: bytes
    arguments: tuple[str, ...]
    exit_code: int


# mov al,'K'; out 0xe9,al (QEMU's debug console);
# mov al,0x10; out 0xf4,al (isa-debug-exit: exit code 0x10*2+1); hlt
_BOOT_SECTOR = (
    bytes([0xB0, ord(MARK), 0xE6, 0xE9, 0xB0, 0x10, 0xE6, 0xF4, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"
)

# movz x1,#0x900,lsl#16 (the machine's UART); movz w2,#'K'; strb w2,[x1];
# movz w0,#8; movk w0,#0x8400,lsl#16 (PSCI SYSTEM_OFF); hvc #0; b .
_ARM_PROGRAM = struct.pack(
    "<7I", 0xD2A12001, 0x52800002 | ord(MARK) << 5, 0x39000022, 0x52800100, 0x72B08000, 0xD4000002, 0x14000000
)

GUESTS = {
    "x86_64": Guest(
        program=_BOOT_SECTOR,
        arguments=(
            *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "16"),
            *("-display", "none", "-nodefaults", "-debugcon", "stdio"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
            *("-drive", "file={program},format=raw,if=ide,snapshot=on"),
        ),
        exit_code=33,
    ),
    "aarch64": Guest(
        program=_ARM_PROGRAM,
        arguments=(
            # The machine of Fedora's tests.
            *("qemu-system-aarch64", "-accel", "kvm", "-cpu", "host", "-M", "virt,gic-version=max"),
            *("-m", "64", "-display", "none", "-nodefaults", "-serial", "stdio", "-kernel", "{program}"),
        ),
        exit_code=0,
    ),
}


def group() -> int:
    """Returns the ID of the group that may use the device: some systems do not allow everybody.

    Raises:
        HostError: there is no device.
    """
    try:
        return DEVICE.stat().st_gid
    except OSError as error:
        raise HostError(f"{_FAILED}: {DEVICE}: {error.strerror}") from error


def prove(image: str, *, architecture: str, folder: Path) -> None:
    """Runs the guest with the worker image's QEMU and a worker's rights.

    Args:
        image: the worker's container image.
        architecture: ``x86_64`` or ``aarch64``.
        folder: where to put the guest's program.

    Raises:
        HostError: the guest did not run; with the reason.
    """
    program = _write(GUESTS[architecture], folder)
    inside = f"/{program.name}"
    # No process limit: it would need a cgroup controller that not every machine has.
    command = [
        *("podman", "run", "--rm", "--pull=never", "--network=none", "--pids-limit=0"),
        *(f"--device={DEVICE}", "--user=_openqa-worker", f"--group-add={group()}", "--cap-drop=all"),
        *("--security-opt=no-new-privileges", "--security-opt=label=disable"),
        f"--volume={program}:{inside}:ro",
        *(image, *_qemu(GUESTS[architecture], inside)),
    ]
    _judge(command)


def prove_here(*, architecture: str, folder: Path) -> None:
    """Runs the guest with this host's own QEMU.

    Args:
        architecture: ``x86_64`` or ``aarch64``.
        folder: where to put the guest's program.

    Raises:
        HostError: the guest did not run; with the reason.
    """
    guest = GUESTS[architecture]
    _judge(_qemu(guest, str(_write(guest, folder))))


def _write(guest: Guest, folder: Path) -> Path:
    program = folder / "kvm-proof.img"
    program.write_bytes(guest.program)
    return program


def _qemu(guest: Guest, program: str) -> list[str]:
    qemu = [argument.format(program=program) for argument in guest.arguments]
    # The guest's own exit code is success; anything else fails with its reason.
    script = (
        f'timeout {SECONDS} "$@"; code=$?; '
        f"[ $code -eq {guest.exit_code} ] || {{ echo QEMU exit code $code >&2; exit 1; }}"
    )
    return ["sh", "-c", script, "qemu", *qemu]


def _judge(command: list[str]) -> None:
    try:
        output = run(command, seconds=SECONDS + 30)
    except CommandError as error:
        # Only the reason: the command is longer than a console line.
        raise HostError(f"{_FAILED}: {error.reason}") from error
    if MARK not in output:
        raise HostError(f"{_FAILED}: the guest said nothing")
