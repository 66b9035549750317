"""What is tested: content profiles, where their tests come from, and what their jobs need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from settings.fields import UNSEEN, Architecture, DnsName, Interface, Settings
from settings.openqa_ini import DEFAULTS, OpenqaIni, merged

ARCHITECTURES: tuple[Architecture, ...] = ("x86_64", "aarch64")
# What a profile sets where the environment file sets nothing.
# Fedora: fedora-infra/ansible, roles/openqa/server; the address is the Forge's, to which Pagure moved. Its
# scheduler takes the first job group for Fedora's composes, and groups are made in the order of their limits.
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "sample": {"distri": "sample"},
    "custom": {},  # tests of one's own: only the file says what they are
    "example": {
        "distri": "example",
        "tests": "https://github.com/os-autoinst/os-autoinst-distri-example.git",
        "loader": "scenarios",
        "templates": ("scenario-definitions.yaml",),
    },
    "fedora": {
        "distri": "fedora",
        "tests": "https://forge.fedoraproject.org/quality/os-autoinst-distri-fedora.git",
        "loader": "fifloader",
        "templates": ("templates.fif.json", "templates-updates.fif.json"),
        "classes": {"tap": 6, "tap2": 3, "tpm": 1},
        "asset_limits": {"fedora": 500, "Fedora AArch64": 350, "Fedora Updates": 250},
        "cloudinit": True,
        "download_domains": ("fedoraproject.org",),
        "openqa": {
            # Of a cluster, only the job that failed is repeated.
            "global": {"hide_asset_types": "repo hdd", "parallel_cancel_whole_cluster": 0},
            "audit/storage_duration": dict.fromkeys(DEFAULTS["audit/storage_duration"], 7),
        },
    },
}
# What `ops smoke` runs, which is there whatever else is followed.
SAMPLE = "sample"
# The sample's clusters, by class: jobs of userdata/content/sample/pair.json and pair-vde.json. They require
# no fleet, but one with their class must carry them.
SAMPLE_CLUSTERS: Mapping[str, int] = {"tap": 2, "vde": 2}
# Classes that jobs may ask for beside those that their content names: what openQA's worker gives itself on a
# processor (lib/OpenQA/Worker.pm), and "metal", for jobs that want no second layer of virtualization.
KNOWN_CLASSES: Mapping[str, frozenset[str]] = {
    "x86_64": frozenset({"qemu_x86_64", "qemu_i686", "qemu_i586", "metal"}),
    "aarch64": frozenset({"qemu_aarch64", "metal"}),
    "sample": frozenset({"tpm", *SAMPLE_CLUSTERS}),
}

RepositoryAddress = Field(
    max_length=500,
    pattern=rf"^https?://[A-Za-z0-9][A-Za-z0-9.-]*(:(80|443))?/[^{UNSEEN}'\"\\]+$",
    description="the https:// address of a git repository that asks for no password, without a port: hosts "
    "reach only 443",
)
GitRef = Field(
    max_length=200,
    pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+/-]*$",
    description='a branch, a tag or a commit, or "HEAD" for the repository\'s default branch',
)
TemplateFile = Field(
    max_length=200,
    pattern=r"^([A-Za-z0-9_*][A-Za-z0-9_.*+ -]*/)*[A-Za-z0-9_*][A-Za-z0-9_.*+ -]*\.(json|yaml)$",
    description='files of the repository that end in .json or .yaml, such as "job_groups/*.yaml"',
)
PackageName = Field(
    max_length=60,  # a hundred of them are half of a worker's user data
    pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]+$",
    description='the name of a package of the distribution that hosts run, such as "libxml-libxml-perl"',
)
Distribution = Field(
    max_length=40,
    pattern=r"^[a-z][a-z0-9_-]*$",
    description="up to 40 lowercase letters, digits, - and _, starting with a letter",
)
WorkerClass = Field(pattern=r"^[A-Za-z0-9_.+:-]+$")
GroupName = Field(max_length=200, pattern=rf"^ *[^{UNSEEN}=](?:[^{UNSEEN}=]| )*$")


@dataclass(frozen=True)
class Need:
    """Jobs that only some workers can run.

    Attributes:
        classes: Worker classes the jobs ask for, beside the architecture's ``qemu_…``.
    """

    classes: frozenset[str] = frozenset()


class Content(Settings):
    """What is tested. The profile fills in what is not set."""

    profile: Literal["sample", "fedora", "example", "custom"]
    # DISTRI of the jobs, and the folder of the tests.
    distri: Annotated[str, Distribution] = ""
    # None: the sample that comes with the hosts.
    tests: Annotated[str | None, RepositoryAddress] = None
    tests_ref: Annotated[str, GitRef] = "HEAD"
    # None: the needles are in the tests' repository.
    needles: Annotated[str | None, RepositoryAddress] = None
    needles_ref: Annotated[str, GitRef] = "HEAD"
    # Other values of DISTRI that the same tests are for, as openSUSE's are for MicroOS.
    more_distris: Annotated[
        tuple[Annotated[str, Distribution], ...],
        Field(description=f"a list of up to 20, each {Distribution.description}", max_length=20),
    ] = ()
    # fifloader: Fedora's, a program of the tests' repository. openqa: openQA's templates (.json), and job
    # groups (.yaml, one per group). scenarios: nothing is loaded; each build names its file.
    loader: Literal["fifloader", "openqa", "scenarios"] = "scenarios"
    templates: Annotated[
        tuple[Annotated[str, TemplateFile], ...],
        Field(description=f"a list of {TemplateFile.description}"),
    ] = ()
    # None: the templates are in the tests' repository. openSUSE's job groups have one of their own.
    templates_repository: Annotated[str | None, RepositoryAddress] = None
    templates_ref: Annotated[str, GitRef] = "HEAD"
    # Job groups by the .yaml file of their job templates; others are named after their file.
    group_names: Annotated[
        dict[Annotated[str, TemplateFile], Annotated[str, GroupName]],
        Field(
            default_factory=dict,
            description="a table of .yaml files in quotes and the names of their job groups (one line "
            'without =), such as { "job_groups/example.yaml" = "Example 1.0" }',
        ),
    ]
    refresh_minutes: Annotated[
        int, Field(ge=1, le=360, description="a whole number of minutes from 1 to 360")
    ] = 30
    # Worker classes that jobs ask for, each with the number of jobs in its largest parallel cluster.
    classes: Annotated[
        dict[Annotated[str, WorkerClass], Annotated[int, Field(ge=1, le=1000)]],
        Field(
            default_factory=dict,
            description="a table of worker classes (letters, digits and any of _ . + : -) with the number of "
            "jobs in the largest parallel cluster, 1 to 1000, such as { tap = 6 }",
        ),
    ]
    # What openQA keeps for a job group, in GB; groups that are missing are made, in this order.
    asset_limits: Annotated[
        dict[Annotated[str, GroupName], Annotated[int, Field(ge=1, le=1_000_000)]],
        Field(
            default_factory=dict,
            description="a table of job groups (one line without =) with whole numbers of GB from 1 to "
            "1000000, such as { fedora = 500 }",
        ),
    ]
    # Packages of the hosts' system that tests need on workers beside what all have, such as Perl modules.
    worker_packages: Annotated[
        tuple[Annotated[str, PackageName], ...],
        Field(description=f"a list of up to 100, each {PackageName.description}", max_length=100),
    ] = ()
    # From where openQA may fetch what a build names in `…_URL`: these domains and those below them.
    download_domains: Annotated[
        tuple[DnsName, ...],
        Field(description='a list of DNS names in lowercase, such as ["example.org"]'),
    ] = ()
    # Merged key by key over the profile's and the defaults.
    openqa: OpenqaIni
    # iso/fixed/cloudinit.iso, for tests that boot cloud images.
    cloudinit: bool = False
    # The address at which guests on taps expect their host, with the network that is theirs alone: this is
    # Fedora's. openSUSE's tests, and os-autoinst's own set-up, have 10.0.2.2/15.
    tap_address: Interface = IPv4Interface("172.16.2.2/15")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        profile = data.get("profile")
        known = PROFILES.get(profile if isinstance(profile, str) else "", {})
        # Another loader cannot read the profile's templates.
        other = data.get("loader", known.get("loader")) != known.get("loader")
        filled = {key: value for key, value in known.items() if not (other and key == "templates")} | data
        sections = data.get("openqa", {})
        if isinstance(sections, dict) and all(isinstance(keys, dict) for keys in sections.values()):
            filled["openqa"] = merged(DEFAULTS, known.get("openqa", {}), sections)
        return filled

    def needs(self, architecture: Architecture) -> tuple[Need, ...]:
        """Tell what the jobs of an architecture need. Only x86_64 is required, and not for custom tests.

        Args:
            architecture: The processor.
        """
        if architecture != "x86_64" and self.profile == "sample":
            return ()
        return (Need(), *(Need(frozenset({name})) for name in self.classes))

    def clusters(self, architecture: Architecture) -> Mapping[str, int]:
        """Tell how many jobs the largest cluster of a class has, for each class that clusters ask for.

        Unlike those of `needs`, these require no fleet.

        Args:
            architecture: The processor.
        """
        sample = SAMPLE_CLUSTERS if self.profile == "sample" and architecture == "x86_64" else {}
        largest = {**sample, **self.classes}
        return {name: most for name, jobs in largest.items() if (most := max(jobs, sample.get(name, 1))) > 1}

    @property
    def known_classes(self) -> frozenset[str]:
        """Classes that jobs may ask for, whatever the processor."""
        return KNOWN_CLASSES.get(self.profile, frozenset()) | frozenset(self.classes)
