"""``backups``: lists and verifies the database's backups in the backup bucket, or takes a new one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ops.bucket import Bucket
from ops.deployment import client, stack_outputs
from ops.hosts import StatefulHost
from ops.kept_assets import KeptAssets
from settings import Environment
from userdata.host.backup import names
from userdata.host.backup.manifests import Base, Wal

# The database host's part of the bucket: settings/naming.py, backup_prefix.
PREFIX = f"database/{names.CLUSTERS}/"
_BASE = re.compile(rf"(?P<system>\d+)/base/(?P<attempt>[^/]+)/{re.escape(names.MANIFEST)}")
_WAL = re.compile(r"(?P<system>\d+)/wal/(?P<group>[^/]+)/(?P<name>[^/]+)/(?P<attempt>[^/]+)\.json")


@dataclass(frozen=True)
class Found:
    """A manifest, with its own key (``by``) and that of the object that it vouches for (``key``)."""

    by: str
    key: str
    manifest: Base | Wal


def add_command(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = commands.add_parser("backups", help="list, verify or take the database's backups")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show the base backups, and how far the log reaches")
    listing.set_defaults(run=show)
    verifying = actions.add_parser("verify", help="read every object and compare it with its manifest")
    verifying.set_defaults(run=verify)
    taking = actions.add_parser("now", help="have the database's host take a base backup")
    taking.set_defaults(run=take)


def show(environment: Environment, options: argparse.Namespace) -> int:
    """Lists the base backups; returns 1 if there is none.

    Raises:
        DeploymentError: the bucket cannot be read.
    """
    kept = DatabaseBackups(environment)
    print(kept.assets.summary())
    bases = kept.bases()
    for base in bases:
        print(
            f"{base.finished}  PostgreSQL {base.postgres}  cluster {base.system}  timeline {base.timeline}  "
            f"{base.bytes / 1024**2:.1f} MiB  {base.rows.get('jobs', 0)} jobs"
        )
    if environment.database.engine == "rds":
        print("the database's current backups are RDS's own: aws rds describe-db-instance-automated-backups")
        return 0
    if not bases:
        print(f"{environment.name} has no base backup")
        return 1
    if newest := kept.newest_segment(bases[-1].system):
        print(f"{newest.archived}  newest segment of the log: {newest.name}")
    return 0


def verify(environment: Environment, options: argparse.Namespace) -> int:
    """Reads every object that a manifest vouches for; returns 1 if any is damaged or missing.

    Raises:
        DeploymentError: the bucket cannot be read.
    """
    kept = DatabaseBackups(environment)
    there = kept.found()
    size = sum(found.manifest.bytes for found in there) / 1024**3
    print(f"reading {len(there)} objects ({size:.1f} GiB) and the fixed assets", flush=True)
    reasons = zip(there, kept.bucket.each(kept.damage, there), strict=True)
    wrong = [f"{found.key}: {reason}" for found, reason in reasons if reason]
    log = [found.manifest for found in there if isinstance(found.manifest, Wal)]
    for base in kept.bases():
        same = [wal.name for wal in log if wal.system == base.system]
        wrong += [f"base backup {base.attempt}: segment {name} is missing" for name in gaps(base, same)]
    wrong += kept.assets.damage()
    for line in wrong:
        print(line)
    print(f"{len(there)} objects and the fixed assets read, {len(wrong)} damaged or missing")
    expected = environment.database.engine == "container"
    return 1 if wrong or (expected and not there) else 0


def take(environment: Environment, options: argparse.Namespace) -> int:
    """Has the database's host take a base backup; returns 0.

    Raises:
        DeploymentError: there is no host, or the backup failed.
    """
    StatefulHost(environment, "database").run("backup")
    return 0


def gaps(base: Base, archived: Iterable[str]) -> list[str]:
    """Returns the missing segments of a base backup's timeline, from its start to the last one archived.

    Args:
        base: the base backup.
        archived: the names of the archived segments of its cluster.
    """
    there = {s for s in map(names.segment, archived) if s is not None and s.timeline == base.timeline}
    current = names.segment_at(names.position(base.start), timeline=base.timeline, size=base.segment_bytes)
    last, missing = max(there, default=None), []
    while last is not None and current <= last:
        if current not in there:
            missing.append(current.name)
        current = names.next_segment(current, size=base.segment_bytes)
    return missing


class DatabaseBackups:
    """The database's part of an environment's backup bucket, as the operator reads it.

    Raises:
        DeploymentError: from every method: the bucket cannot be read.
    """

    def __init__(self, environment: Environment) -> None:
        name = stack_outputs(environment, "storage")["BackupBucket"]
        self.bucket = Bucket(client(environment, "s3"), name)
        self.assets = KeptAssets(self.bucket)
        self._read: dict[str, Found | None] = {}

    def found(self) -> list[Found]:
        """Returns everything that has a manifest; for weeks of the log this takes very many requests."""
        return [found for found in self.bucket.each(self._found, self._keys) if found]

    def bases(self) -> list[Base]:
        """Returns the base backups, the oldest first."""
        read = [self._found(key) for key in self._keys if _BASE.fullmatch(key.removeprefix(PREFIX))]
        bases = [found.manifest for found in read if found and isinstance(found.manifest, Base)]
        return sorted(bases, key=lambda base: base.end)

    def newest_segment(self, system: str) -> Wal | None:
        """Returns the segment of a cluster's log that was archived last; None: there is none."""
        matches = (_WAL.fullmatch(key.removeprefix(PREFIX)) for key in self._keys)
        own = [match for match in matches if match and match["system"] == system]
        # An attempt's name begins with its time.
        for match in sorted(own, key=lambda match: (match["attempt"][:16], match["name"]), reverse=True):
            found = self._found(f"{PREFIX}{match[0]}")
            if found and isinstance(found.manifest, Wal):
                return found.manifest
        return None

    def damage(self, found: Found) -> str | None:
        """Returns what is wrong with an object; None: nothing."""
        read = self.bucket.digest(found.key)
        if read is None:
            # Reading weeks of the log takes so long that the oldest segments may expire meanwhile.
            return "is missing" if self._decoded(found.by) else None
        digest, size = read
        if size != found.manifest.bytes:
            return f"has the wrong size: {size} bytes instead of {found.manifest.bytes}"
        if digest != found.manifest.sha256:
            return "was changed: its SHA-256 is not the one in its manifest"
        return None

    def _found(self, key: str) -> Found | None:
        """The manifest at a key; None: it is no manifest, or an incomplete one."""
        if key not in self._read:
            self._read[key] = self._decoded(key)
        return self._read[key]

    def _decoded(self, key: str) -> Found | None:
        place = key.removeprefix(PREFIX)
        manifest: Base | Wal | None = None
        if _BASE.fullmatch(place):
            manifest = self.bucket.manifest(Base, key)
        elif _WAL.fullmatch(place):
            manifest = self.bucket.manifest(Wal, key)
        return Found(key, f"{key.rpartition('/')[0]}/{manifest.object}", manifest) if manifest else None

    @cached_property
    def _keys(self) -> list[str]:
        return self.bucket.keys(PREFIX)
