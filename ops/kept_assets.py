"""openQA's fixed assets and configuration in the backup bucket."""

from __future__ import annotations

from ops.bucket import Bucket
from userdata.host.backup import names
from userdata.host.backup.manifests import Asset, Inventory

# The web UI host's part of the bucket: settings/naming.py, backup_prefix.
PREFIX = "webui/"


class KeptAssets:
    """The web UI's part of an environment's backup bucket, as the operator reads it.

    Raises:
        DeploymentError: from every method: the bucket cannot be read.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def inventory(self) -> Inventory | None:
        """Returns the newest inventory; None: there is none."""
        for key in sorted(self._bucket.keys(f"{PREFIX}{names.INVENTORIES}/"), reverse=True):
            if (found := self._bucket.manifest(Inventory, key)) is not None:
                return found
        return None

    def summary(self) -> str:
        """Returns one line about the newest inventory."""
        found = self.inventory()
        if found is None:
            return "no fixed assets and no openQA configuration are backed up"
        size = sum(found.sizes.values()) / 1024**2
        return (
            f"{found.taken}  fixed assets: {len(found.assets)}, {size:.1f} MiB; "
            f"openQA's configuration files: {len(found.configuration)}"
        )

    def damage(self) -> list[str]:
        """Returns what is wrong with the newest inventory's assets; empty: every one can be restored."""
        found = self.inventory()
        if found is None:
            return []
        sums = sorted(set(found.assets.values()))
        wrong = dict(zip(sums, self._bucket.each(self._content_damage, sums), strict=True))
        return [f"{name}: {wrong[sha256]}" for name, sha256 in found.assets.items() if wrong[sha256]]

    def _content_damage(self, sha256: str) -> str | None:
        folder = f"{PREFIX}{names.ASSETS}/{sha256}"
        reason: str | None = f"{folder}: is missing"
        for key in self._bucket.keys(f"{folder}/"):
            manifest = self._bucket.manifest(Asset, key) if key.endswith(".json") else None
            if manifest is not None:
                reason = self._object_damage(f"{folder}/{manifest.object}", sha256)
                if reason is None:
                    return None
        return reason

    def _object_damage(self, key: str, sha256: str) -> str | None:
        read = self._bucket.digest(key)
        if read is None:
            return f"{key}: is missing"
        return None if read[0] == sha256 else f"{key}: is not what was written"
