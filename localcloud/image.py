"""The local AMI: a root file system, and over it a thin layer that adapts it to this cloud."""

from __future__ import annotations

import subprocess
from pathlib import Path

# With this, cloud-init believes that it is on EC2 although the firmware does not say so, and leaves the
# network alone: also later, for which it would need udev, and fail. It then asks for no tokens, which the
# metadata service lets it do.
_CLOUD_INIT = """\
datasource_list: [Ec2]
datasource:
  Ec2:
    strict_id: false
    metadata_urls: ["http://169.254.169.254"]
    apply_full_imds_network_config: false
network:
  config: disabled
updates:
  network:
    when: [boot-new-instance]
"""

_UNITS = ("systemd-networkd.service", "systemd-networkd-wait-online.service", "systemd-resolved.service")

# Every machine makes its own.
_UNIQUE = ("etc/machine-id", "var/lib/dbus/machine-id", "etc/hostname")


class ImageError(Exception):
    """The image could not be made; the text is one sentence."""


def make(root: Path, directory: Path, *, certificate: bytes) -> tuple[Path, ...]:
    """Make the image: trust in the local certificate authority, cloud-init's data source, networkd.

    It mounts something for a moment, so it should run in a private mount namespace.

    Args:
        root: A Debian root file system, which is not changed.
        directory: A directory for what differs; it does not exist yet, or is from an attempt that failed.
        certificate: The local certificate authority's, PEM.

    Returns:
        The lower directories of a machine's overlay, the upper one first.

    Raises:
        ImageError: A step failed.
    """
    upper, work, merged = (directory / name for name in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        path.mkdir(parents=True, exist_ok=True)  # from an attempt that failed
    options = f"lowerdir={root},upperdir={upper},workdir={work}"
    _run("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    try:
        for name in _UNIQUE:
            (merged / name).unlink(missing_ok=True)
        trusted = merged / "usr/local/share/ca-certificates/openqa-on-aws-local.crt"
        trusted.parent.mkdir(parents=True, exist_ok=True)
        trusted.write_bytes(certificate)
        settings = merged / "etc/cloud/cloud.cfg.d/90-local-cloud.cfg"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(_CLOUD_INIT)
        _run("systemctl", f"--root={merged}", "enable", "--quiet", *_UNITS)
        _run("mount", "--bind", "/dev", str(merged / "dev"))
        _run("chroot", str(merged), "update-ca-certificates")
    finally:
        _run("umount", "--recursive", str(merged))
    return upper, root


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ImageError(f"{' '.join(command[:2])} failed while making the machine image: {reason}")
