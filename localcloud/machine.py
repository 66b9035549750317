"""An EC2 instance as a throw-away systemd machine: systemd-nspawn over an overlay on the AMI's root."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from localcloud import network
from localcloud.addresses import RESOLVER, private_name
from localcloud.network import Link

CGROUPS = Path("/sys/fs/cgroup")

# The most that GetConsoleOutput returns, as on EC2.
CONSOLE_BYTES = 64 * 1024

# Images of the root are in a store of their own, which no machine writes to.
_STORAGE = """\
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"

[storage.options]
additionalimagestores = ["/usr/lib/containers/storage"]
"""
# systemd's signals to its first process: power off and reboot, as ACPI's button does on EC2.
_POWER_OFF = signal.SIGRTMIN + 4
_REBOOT = signal.SIGRTMIN + 5


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a machine is told about its primary network interface.

    Attributes:
        address: The private address.
        subnet: Its subnet, whose first address is the router's.
        mac: The hardware address.
        region: Decides the search domain.
    """

    address: IPv4Address
    subnet: IPv4Network
    mac: str
    region: str


def network_unit(primary: Network) -> str:
    """The systemd-networkd file of the primary interface; on EC2, DHCP says the same."""
    domain = private_name(primary.address, region=primary.region).partition(".")[2]
    return (
        "[Match]\nName=ens5\n\n"
        f"[Network]\nAddress={primary.address}/{primary.subnet.prefixlen}\n"
        f"Gateway={primary.subnet.network_address + 1}\nDNS={RESOLVER}\nDomains={domain}\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended; without a code if it ran out of time."""

    code: int | None
    stdout: str
    stderr: str


@dataclass(kw_only=True)
class Machine:
    """A machine: made once, started and stopped any number of times, removed.

    Attributes:
        id: The instance's id.
        lower: Its root file systems, the upper one first.
        directory: Holds all that it writes, and is removed with it.
        console: The file that collects its console.
        cgroup: Its cgroup as an absolute path inside the cgroup file system.
        primary: Its first network interface.
    """

    id: str
    lower: tuple[Path, ...]
    directory: Path
    console: Path
    cgroup: str
    primary: Network
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def create(self) -> None:
        """Make its directories, network namespace and first interface.

        Raises:
            NetworkError: The network could not be made.
        """
        upper = self.directory / "upper"
        for path in (upper, self.directory / "root", upper / "etc/systemd/network"):
            path.mkdir(parents=True, exist_ok=True)
        # podman's storage, which on this overlay would have to use FUSE: see machine.sh.
        (self.directory / "containers").mkdir(exist_ok=True)
        if self._images is not None:
            (upper / "etc/containers").mkdir(exist_ok=True)
            (upper / "etc/containers/storage.conf").write_text(_STORAGE)
        (upper / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (upper / "etc/hostname").write_text(
            private_name(self.primary.address, region=self.primary.region).partition(".")[0] + "\n"
        )
        (upper / "etc/systemd/network/10-ens5.network").write_text(network_unit(self.primary))
        network.add_namespace(self.id)
        network.connect(
            Link(name="ens5", address=self.primary.address, mac=self.primary.mac, namespace=self.id)
        )

    @property
    def _images(self) -> Path | None:
        """podman's storage of a root that has images."""
        stores = (root / "var/lib/containers/storage" for root in self.lower)
        return next((store for store in stores if store.is_dir()), None)

    def start(self) -> None:
        """Boot it. Its console goes to the file, appended."""
        # An overlay mounted volatile leaves a mark in its work directory that forbids a second mount.
        shutil.rmtree(self.directory / "work", ignore_errors=True)
        (self.directory / "work").mkdir()
        cgroup = CGROUPS / self.cgroup.lstrip("/")
        cgroup.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("machine.sh")
        lower = ":".join(map(str, self.lower))
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self.id}"),
                    *("unshare", "--mount", "--propagation", "private"),
                    *(
                        "bash",
                        str(script),
                        self.id,
                        self.cgroup,
                        lower,
                        str(self.directory),
                        str(self._images or ""),
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def leader(self) -> int | None:
        """The process id of its systemd; None while there is none."""
        try:
            processes = (CGROUPS / self.cgroup.lstrip("/") / "payload/init.scope/cgroup.procs").read_text()
        except OSError:
            return None
        return int(processes.split()[0]) if processes.split() else None

    def power_off(self) -> None:
        """Ask it to shut down."""
        self._signal(_POWER_OFF)

    def reboot(self) -> None:
        """Ask it to reboot."""
        self._signal(_REBOOT)

    def kill(self) -> None:
        """Cut the power."""
        kill = CGROUPS / self.cgroup.lstrip("/") / "cgroup.kill"
        if kill.exists():
            kill.write_text("1")
        if self._process is not None:
            self._process.wait()

    def remove(self) -> None:
        """Remove all of a machine that does not run."""
        network.delete_namespace(self.id)
        remove_cgroup(CGROUPS / self.cgroup.lstrip("/"))
        shutil.rmtree(self.directory, ignore_errors=True)

    def console_tail(self) -> bytes:
        """The end of its console, as much as EC2 keeps."""
        with self.console.open("rb") as console:
            console.seek(max(0, console.seek(0, os.SEEK_END) - CONSOLE_BYTES))
            return console.read()

    @property
    def takes_commands(self) -> bool:
        """Whether its systemd is up far enough to run commands."""
        return self.running and (
            (leader := self.leader) is not None and Path(f"/proc/{leader}/root/run/systemd/private").exists()
        )

    def run_command(self, name: str, script: str, *, seconds: int) -> Ended:
        """Run a shell script in it as root, as a service, and wait for its end.

        Args:
            name: Identifies the run.
            script: The script.
            seconds: How long it may run before it is stopped.
        """
        began = time.monotonic()
        done = subprocess.run(
            [
                *("nsenter", f"--target={self.leader}", "--all", "--wd=/"),
                *("systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit=ssm-{name}"),
                *(f"--property=RuntimeMaxSec={seconds}", "sh", "-c", script),
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        over = done.returncode != 0 and time.monotonic() - began >= seconds
        return Ended(code=None if over else done.returncode, stdout=done.stdout, stderr=done.stderr)

    def has_disk(self, volume: str) -> bool:
        """Tell whether the volume's device nodes are in the machine. A reboot loses them."""
        return (dev := self._dev()) is not None and (dev / _by_id(volume)).is_symlink()

    def add_disk(self, volume: str, device: Path) -> bool:
        """Show a block device in the machine as EC2 shows an EBS volume: as an NVMe disk.

        Args:
            volume: The volume's id.
            device: The block device outside.

        Returns:
            Whether the machine is up far enough to have it now.
        """
        dev = self._dev()
        if dev is None:
            return False
        number = 1
        while (node := dev / f"nvme{number}n1").exists():
            number += 1
        os.mknod(node, 0o660 | stat.S_IFBLK, device.stat().st_rdev)
        link = dev / _by_id(volume)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../{node.name}")
        return True

    def remove_disk(self, volume: str) -> None:
        """Take the volume's device nodes away."""
        if (dev := self._dev()) is not None and (link := dev / _by_id(volume)).is_symlink():
            (dev / link.readlink().name).unlink(missing_ok=True)
            link.unlink()

    def _dev(self) -> Path | None:
        leader = self.leader
        # The symlink /dev/fd is the last thing that nspawn makes there.
        dev = Path(f"/proc/{leader}/root/dev")
        return dev if leader is not None and (dev / "fd").is_symlink() else None

    def _signal(self, number: int) -> None:
        if (leader := self.leader) is not None:
            os.kill(leader, number)


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup and those below it; one that still has processes stays."""
    for directory, _, _ in os.walk(path, topdown=False):
        try:
            Path(directory).rmdir()
        except OSError:
            return


def _by_id(volume: str) -> str:
    return f"disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
