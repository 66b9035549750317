"""The first process of a running cloud, inside its namespaces: the AWS API, and what plays EC2 behind it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from localcloud import dns, image, imds, internet, network, splice
from localcloud.addresses import GATEWAY, private_name
from localcloud.authority import Authority
from localcloud.aws import server
from localcloud.aws.ports import Cloud, Command, Instance
from localcloud.cloud import Settings
from localcloud.image import ImageError
from localcloud.load_balancer import LoadBalancing
from localcloud.machine import CGROUPS, Machine, Network
from localcloud.network import Link, NetworkError
from localcloud.volume import Volume, VolumeError

# How long a machine may take to shut down before its power is cut, seconds. EC2 waits some minutes.
_SHUTDOWN_SECONDS = 120
# A signal that arrives before systemd listens is lost, so it is sent again this often, seconds.
_SIGNAL_SECONDS = 2
_TICK_SECONDS = 0.3

# A certificate's wildcard stands for a single label.
_GATEWAY_NAMES = (
    "*.amazonaws.com",
    "*.{region}.amazonaws.com",
    "*.s3.amazonaws.com",
    "*.s3.{region}.amazonaws.com",
)


def main() -> None:
    """Run the cloud that the settings on the command line describe, until it is killed."""
    settings = Settings(**json.loads(sys.argv[1]))
    _enter(settings)
    _become_init()
    threading.Thread(target=_end_with_launcher, args=(settings.alive,), daemon=True).start()
    work = Path(settings.work)
    (work / "tmp").mkdir()
    tempfile.tempdir = str(work / "tmp")
    network.set_up()
    authority = Authority()
    api = server.start(
        socket=socket.socket(fileno=settings.api), region=settings.region, account=settings.account
    )
    runtime = Runtime(
        cloud=api.cloud,
        work=work,
        cgroup=settings.cgroup,
        region=settings.region,
        authority=authority,
        way_out=settings.internet,
    )
    imds.serve(imds.Service(api.cloud, region=settings.region, account=settings.account))
    dns.serve(runtime.names, upstream=internet.RESOLVER if settings.internet else None)
    gateway = socket.create_server((str(GATEWAY), 443))
    api.serve(gateway, context=_gateway_context(authority, work, settings.region))
    splice.serve(socket.socket(fileno=settings.web), lambda: splice.entrance(api.cloud.load_balancers()))
    with os.fdopen(settings.ready, "wb") as ready:
        ready.write(json.dumps({"certificate": authority.certificate.decode()}).encode() + b"\n")
    runtime.run()


class Runtime:
    """Makes the machines, disks and links that the embedded AWS wants, and reports back.

    Args:
        cloud: The embedded AWS.
        work: An empty directory on a disk. Whoever registers an AMI writes a file ``images/ID`` there, with
            the path of its root file system.
        cgroup: The cloud's cgroup.
        region: The AWS region.
        authority: Issues certificates.
        way_out: The cloud has a way out to the internet.
    """

    def __init__(
        self,
        *,
        cloud: Cloud,
        work: Path,
        cgroup: str,
        region: str,
        authority: Authority,
        way_out: bool,
    ) -> None:
        self._cloud = cloud
        self._way_out = way_out
        self._work = work
        self._authority = authority
        self._layers: dict[str, tuple[Path, ...]] = {}  # of each AMI
        self._cgroup = cgroup
        self._region = region
        self._instances: dict[str, Instance] = {}
        self._machines: dict[str, _Running] = {}
        self._volumes: dict[str, Volume] = {}
        self._rules = ""
        self._routers: set[IPv4Address] = set()
        self._failures: dict[str, str] = {}
        self._waiting = False  # commands of Systems Manager
        for name in ("images", "layers", "machines", "consoles", "volumes", "balancers"):
            (work / name).mkdir()
        self._balancing = LoadBalancing(cloud, work / "balancers", authority)

    def run(self) -> None:
        """Follow the embedded AWS for ever."""
        version = -1
        while True:
            now = self._cloud.wait(version, _TICK_SECONDS)
            if now != version:
                # Changes that come in a burst are handled together.
                time.sleep(_TICK_SECONDS / 10)
                now = self._cloud.version()
            self.step(changed=now != version or bool(self._failures))
            version = now

    def step(self, *, changed: bool) -> None:
        """Bring everything in line once.

        Args:
            changed: What is wanted may have changed since the last step; machines and targets are checked in
                any case.
        """
        if changed:
            self._instances = {instance.id: instance for instance in self._cloud.instances()}
            self._guard("network", self._update_network)
            self._guard("volumes", self._update_volumes)
            self._guard("load balancers", self._balancing.read)
        for instance in self._instances.values():
            self._guard(instance.id, partial(self._follow, instance))
        for gone in self._machines.keys() - self._instances.keys():
            self._guard(gone, partial(self._destroy, gone))
        if changed or self._waiting:
            self._guard("commands", self._start_commands)
        self._guard("targets", self._balancing.update)

    def names(self, source: IPv4Address) -> dns.Names:
        """What the resolver tells the machine with this address."""
        instances = self._cloud.instances()
        vpc = next(
            (
                instance.vpc
                for instance in instances
                if any(interface.address == source for interface in instance.interfaces)
            ),
            None,
        )
        hosts: dict[str, tuple[IPv4Address, ...]] = {
            f"{private_name(interface.address, region=self._region)}.": (interface.address,)
            for instance in instances
            if instance.vpc == vpc
            for interface in instance.interfaces
        }
        hosts |= {
            f"{balancer.dns_name.lower()}.": balancer.addresses for balancer in self._cloud.load_balancers()
        }
        return dns.Names(zones=dns.visible(self._cloud.zones(), vpc), hosts=hosts)

    def _update_network(self) -> None:
        routers = {subnet.cidr.network_address + 1 for subnet in self._cloud.subnets()}
        network.own_addresses(sorted(routers - self._routers))
        self._routers = routers
        rules = network.ruleset(
            firewalls=self._cloud.firewalls(),
            hop_limits={
                interface.address: instance.metadata.hop_limit
                for instance in self._cloud.instances()
                for interface in instance.interfaces
            },
            way_out=self._way_out,
        )
        if rules != self._rules:
            network.apply_rules(rules)
            self._rules = rules

    def _follow(self, instance: Instance) -> None:
        running = self._machines.get(instance.id)
        match instance.state:
            case "pending":
                self._boot(instance, running)
            case "running" if running is not None:
                self._keep(instance, running)
            case "stopping" | "shutting-down":
                self._shut_down(instance, running)
            case "stopped" if running is not None:
                self._attach(instance, running.machine)

    def _boot(self, instance: Instance, running: _Running | None) -> None:
        try:
            if running is None:
                running = self._machines[instance.id] = _Running(machine=self._machine(instance))
                running.machine.create()
            running.reboots = instance.reboots
            running.deadline = None
            running.machine.start()
        except (ImageError, NetworkError, OSError) as error:
            # As EC2 does with an instance that it cannot launch.
            print(f"{instance.id} terminated: {error}", flush=True)
            self._destroy(instance.id)
            self._cloud.set_state(instance.id, "terminated")
        else:
            self._cloud.set_state(instance.id, "running")

    def _image(self, ami: str) -> tuple[Path, ...]:
        if ami not in self._layers:
            try:
                root = Path((self._work / "images" / ami).read_text())
            except FileNotFoundError:
                raise ImageError(f"{ami} is not an AMI of this cloud") from None
            self._layers[ami] = image.make(
                root, self._work / "layers" / ami, certificate=self._authority.certificate
            )
        return self._layers[ami]

    def _machine(self, instance: Instance) -> Machine:
        subnets = {subnet.id: subnet for subnet in self._cloud.subnets()}
        primary = instance.interfaces[0]
        return Machine(
            id=instance.id,
            lower=self._image(instance.image),
            directory=self._work / "machines" / instance.id,
            console=self._work / "consoles" / f"{instance.id}.log",
            cgroup=f"{self._cgroup}/{instance.id}",
            primary=Network(
                address=primary.address,
                subnet=subnets[primary.subnet].cidr,
                mac=primary.mac,
                region=self._region,
            ),
        )

    def _keep(self, instance: Instance, running: _Running) -> None:
        self._report_console(running)
        if not running.machine.running:
            self._cloud.set_state(instance.id, "stopped")
            return
        if instance.reboots > running.reboots:
            running.reboots = instance.reboots
            running.machine.reboot()
        self._attach(instance, running.machine)

    def _attach(self, instance: Instance, machine: Machine) -> None:
        for interface in instance.interfaces:
            if interface.index == 0:
                continue
            link = Link(
                name=f"ens{5 + interface.index}",
                address=interface.address,
                mac=interface.mac,
                namespace=instance.id,
            )
            if interface.state == "attaching":
                network.connect(link)
                self._cloud.attached(interface.id)
            elif interface.state == "detaching":
                network.disconnect(link)
                self._cloud.detached(interface.id)
        for attachment in instance.volumes:
            volume = self._volume(attachment.id, attachment.size_gib)
            if attachment.state == "detaching":
                # As on EC2, a mounted volume stays until it is unmounted.
                if not volume.in_use():
                    machine.remove_disk(attachment.id)
                    self._cloud.detached(attachment.id)
                continue
            shown = machine.has_disk(attachment.id) or machine.add_disk(attachment.id, volume.device)
            # A stopped machine gets it when it boots.
            if attachment.state == "attaching" and (shown or not machine.running):
                self._cloud.attached(attachment.id)

    def _shut_down(self, instance: Instance, running: _Running | None) -> None:
        now = time.monotonic()
        if running is not None:
            self._report_console(running)
        if running is not None and running.machine.running:
            if running.deadline is None:
                running.deadline = now + _SHUTDOWN_SECONDS
            if now > running.deadline:
                running.machine.kill()
            elif now > running.signalled + _SIGNAL_SECONDS:
                running.machine.power_off()
                running.signalled = now
            self._attach(instance, running.machine)
            return
        if instance.state == "stopping":
            self._cloud.set_state(instance.id, "stopped")
        else:
            self._destroy(instance.id)
            self._cloud.set_state(instance.id, "terminated")

    def _start_commands(self) -> None:
        """Play Systems Manager's agent; a command waits until its machine is up far enough."""
        waiting = self._cloud.commands()
        self._waiting = bool(waiting)
        for command in waiting:
            running = self._machines.get(command.instance)
            if running is not None and running.machine.takes_commands:
                self._cloud.command_started(command.id)
                threading.Thread(
                    target=self._run_command, args=(command, running.machine), daemon=True
                ).start()

    def _run_command(self, command: Command, machine: Machine) -> None:
        began = time.monotonic()
        ended = machine.run_command(command.id, command.script, seconds=command.seconds)
        self._cloud.command_ended(
            command.id,
            code=ended.code,
            stdout=ended.stdout,
            stderr=ended.stderr,
            seconds=time.monotonic() - began,
        )

    def _destroy(self, instance: str) -> None:
        running = self._machines.pop(instance, None)
        if running is not None:
            running.machine.kill()
            running.machine.remove()

    def _report_console(self, running: _Running) -> None:
        size = running.machine.console.stat().st_size
        if size != running.console_size:
            running.console_size = size
            self._cloud.set_console(running.machine.id, running.machine.console_tail())

    def _volume(self, volume: str, size_gib: int) -> Volume:
        if volume not in self._volumes:
            self._volumes[volume] = Volume(self._work / "volumes" / volume, size_gib=size_gib)
        return self._volumes[volume]

    def _update_volumes(self) -> None:
        wanted = {volume.id: volume for volume in self._cloud.volumes()}
        for gone in self._volumes.keys() - wanted.keys():
            self._volumes.pop(gone).delete()
        for id, volume in self._volumes.items():
            volume.grow(wanted[id].size_gib)

    def _guard(self, subject: str, action: Callable[[], None]) -> None:
        """Do something; if it fails, log that once and try again at the next step.

        No failure may take the other machines down.
        """
        try:
            action()
        except Exception as error:
            if self._failures.get(subject) != str(error):
                self._failures[subject] = str(error)
                print(f"{subject}: {error}", flush=True)
                if not isinstance(error, (NetworkError, VolumeError, OSError)):
                    traceback.print_exc()
        else:
            self._failures.pop(subject, None)


@dataclass(kw_only=True)
class _Running:
    """A machine and what was asked of it."""

    machine: Machine
    reboots: int = 0
    deadline: float | None = None  # of its shutdown
    signalled: float = field(default=float("-inf"))
    console_size: int = 0


def _enter(settings: Settings) -> None:
    """Make this mount namespace the cloud's own, and join its cgroup."""
    for kind, target in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tmpfs", "/run"),
    ):
        subprocess.run(["mount", "-t", kind, kind, target], check=True)
    own = CGROUPS / settings.cgroup.lstrip("/") / "runtime"
    own.mkdir(parents=True)
    (own / "cgroup.procs").write_text(str(os.getpid()))


def _become_init() -> None:
    """Go on in a child; this process stays to reap orphans, as is the first process's duty."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _end_with_launcher(alive: int) -> None:
    if not os.read(alive, 1):
        os._exit(1)


def _gateway_context(authority: Authority, work: Path, region: str) -> ssl.SSLContext:
    certificate = work / "gateway.pem"
    certificate.touch(mode=0o600)
    certificate.write_bytes(authority.issue(name.format(region=region) for name in _GATEWAY_NAMES))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


if __name__ == "__main__":
    try:
        main()
    except (ImageError, NetworkError, OSError) as error:
        sys.exit(str(error))
