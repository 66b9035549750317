"""Where things are on a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths of a host. Tests use another ``root``."""

    root: Path = Path("/")

    @property
    def bundle(self) -> Path:
        """The unpacked bundle."""
        return self.root / "opt/openqa-on-aws"

    @property
    def document(self) -> Path:
        """What the launch template says about this host."""
        return self.root / "etc/openqa-on-aws/host.json"

    @property
    def state(self) -> Path:
        """What this machine has already done; survives reboots."""
        return self.root / "var/lib/openqa-on-aws"

    @property
    def name(self) -> Path:
        """The name that a worker host leased."""
        return self.state / "name"

    @property
    def cache(self) -> Path:
        """Container images and artifacts."""
        return self.root / "var/cache/openqa-on-aws"

    @property
    def runtime(self) -> Path:
        """In memory; gone at the next boot."""
        return self.root / "run/openqa-on-aws"

    @property
    def secrets(self) -> Path:
        """One file per secret, for root only."""
        return self.runtime / "secrets"

    @property
    def config(self) -> Path:
        """Rendered configuration, mounted into containers; it holds passwords, so it lives in memory."""
        return self.runtime / "config"

    @property
    def administrator(self) -> Path:
        """The key of openQA's administrator, which openQA itself may not read; in memory."""
        return self.runtime / "administrator"

    @property
    def closings(self) -> Path:
        """What the fleets' controller tells the hosts through the web UI (:mod:`fleet.closings`)."""
        return self.runtime / "fleet/closings.json"

    @property
    def templates_lock(self) -> Path:
        """Locked exclusively while openQA's templates change, shared while builds are scheduled from them."""
        return self.runtime / "templates.lock"

    @property
    def awaits_restore(self) -> Path:
        """Exists while the database waits for an operator (:mod:`userdata.host.backup.awaiting`)."""
        return self.runtime / "awaits-restore"

    @property
    def device(self) -> Path:
        """A link to the data volume's device, once that is attached and checked."""
        return self.runtime / "data-volume"

    @property
    def data(self) -> Path:
        """The data volume's mount point."""
        return self.root / "srv/data"

    @property
    def worker(self) -> Path:
        """A worker host's pool and cache; one file system, as openQA hard-links between them."""
        return self.root / "var/lib/openqa"

    @property
    def images(self) -> Path:
        """Where a builder makes disk images."""
        return self.root / "var/lib/openqa-disk-images"

    @property
    def built(self) -> Path:
        """Exists once a builder has published all disk images."""
        return self.runtime / "built"

    @property
    def units(self) -> Path:
        """The administrator's systemd units."""
        return self.root / "etc/systemd/system"

    @property
    def quadlets(self) -> Path:
        """The administrator's podman quadlets."""
        return self.root / "etc/containers/systemd"
