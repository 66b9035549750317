"""What is tested: content profiles and what their jobs need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from settings.fields import Settings


@dataclass(frozen=True)
class Need:
    """Jobs of a content profile that only some workers can run.

    Attributes:
        classes: Worker classes the jobs ask for, beside the architecture's ``qemu_…``.
        cluster: Jobs of the largest parallel cluster, all of which must run on one host, or in one mesh.
    """

    classes: frozenset[str] = frozenset()
    cluster: int = 1


# Fedora: WORKER_CLASS and PARALLEL_WITH in the job templates of its test distribution.
FEDORA_NEEDS = (
    Need(),
    Need(frozenset({"tap"}), cluster=6),
    Need(frozenset({"tap2"}), cluster=3),
    Need(frozenset({"tpm"})),
)
# By content profile and architecture. Only x86_64 must be there; others count where a fleet has them.
NEEDS: Mapping[str, Mapping[str, tuple[Need, ...]]] = {
    "sample": {"x86_64": (Need(),)},
    "fedora": {"x86_64": FEDORA_NEEDS, "aarch64": FEDORA_NEEDS},
}
# Classes that jobs may ask for: the tests of each content profile, what openQA's worker gives itself on a
# processor (lib/OpenQA/Worker.pm), and "metal", for jobs that want no second layer of virtualization.
KNOWN_CLASSES: Mapping[str, frozenset[str]] = {
    "x86_64": frozenset({"qemu_x86_64", "qemu_i686", "qemu_i586", "metal"}),
    "aarch64": frozenset({"qemu_aarch64", "metal"}),
    "sample": frozenset({"tap", "tpm"}),
    "fedora": frozenset({"tap", "tap2", "tpm"}),
}


class Content(Settings):
    """What is tested."""

    profile: Literal["sample", "fedora"]
