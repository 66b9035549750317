"""The image that configures cloud images under test at their first boot: ``iso/fixed/cloudinit.iso``."""

from __future__ import annotations

import hashlib

from userdata.host import factory
from userdata.host.commands import run
from userdata.host.host import Host
from userdata.host.secrets import write_private


def make(host: Host) -> None:
    """Makes the image and adds it to openQA's assets, unless it is already there.

    Raises:
        HostError: it cannot be made, or cannot be put into openQA's folder.
    """
    source = host.layout.bundle / "userdata/content/cloudinit"
    files = [source / "user-data", source / "meta-data"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    made = host.layout.data / "cloudinit.sha256"
    asset = "iso/fixed/cloudinit.iso"
    if factory.size(host, asset) and made.exists() and made.read_bytes() == digest.encode():
        return
    new = host.layout.data / "cloudinit.iso.new"
    new.unlink(missing_ok=True)
    options = ("-quiet", "-output", str(new), "-volid", "cidata", "-joliet", "-rational-rock")
    run(["xorriso", "-as", "mkisofs", *options, *map(str, files)])
    factory.show(host, new, asset)
    write_private(made, digest, mode=0o644)
