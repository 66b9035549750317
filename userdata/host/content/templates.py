"""Job templates: checked before openQA gets them, and loaded only if they changed."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from userdata.host import users
from userdata.host.commands import CommandError
from userdata.host.content.repository import ADMINISTRATOR, INSIDE, USER, inside
from userdata.host.errors import HostError

OPENQA = "/usr/share/openqa"
# In the pod all services share the loopback; client.conf has a key for this name.
HOST = "http://localhost:9526"
FIFLOADER = "fifloader.py"
_LOADER = "/opt/bin/load-templates.sh"
_SCHEMAS = {"openqa": "JobTemplates-01.yaml", "scenarios": "JobScenarios-01.yaml"}
# What openqa-load-templates reads, and the keys without which openQA refuses an entry. It adds job groups
# only to an openQA that has none: they are left to YAML files.
_TABLES: Mapping[str, frozenset[str]] = {
    "Machines": frozenset({"name", "backend"}),
    "TestSuites": frozenset({"name"}),
    "Products": frozenset({"arch", "distri", "flavor", "version"}),
    "JobTemplates": frozenset(),
}
_SECONDS = 1800
_ANSWER_SECONDS = 60


def find(tree: Path, patterns: Sequence[str]) -> list[str]:
    """Returns the template files of a working tree, in the order of the patterns.

    Raises:
        HostError: a pattern matches nothing, or something that is not a file of the tree.
    """
    found: list[str] = []
    for pattern in patterns:
        paths = sorted(tree.glob(pattern))
        if not paths:
            raise HostError(f"templates: no file matches {pattern}")
        for path in paths:
            if not path.is_file() or not path.resolve().is_relative_to(tree.resolve()):
                raise HostError(f"templates: {path.relative_to(tree)} is not a file of the repository")
        found += [str(path.relative_to(tree)) for path in paths]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class Templates:
    """The template files of a working tree, and how openQA gets them.

    Attributes:
        tree: the working tree.
        files: the template files, below it.
        loader: ``fifloader``, ``openqa`` or ``scenarios``.
        group_names: job groups by file, where the name differs from the file's.
    """

    tree: Path
    files: Sequence[str]
    loader: str
    group_names: Mapping[str, str]

    @property
    def inner(self) -> str:
        """The working tree, in the container."""
        return f"{INSIDE}/{self.tree.name}"

    def digests(self) -> dict[str, str]:
        """Returns the SHA-256 of each file that affects what is loaded, including the name of its group."""
        names = [*self.files, *(find(self.tree, [FIFLOADER]) if self.loader == "fifloader" else [])]
        whole = {
            name: (self.tree / name).read_bytes() + self.group_names.get(name, "").encode() for name in names
        }
        return {name: hashlib.sha256(text).hexdigest() for name, text in whole.items()}

    def check(self) -> None:
        """Checks the files with the tools of openQA and of their own repository; loads nothing.

        Raises:
            HostError: they are invalid.
        """
        if self.loader == "fifloader":
            # Without --load it only checks its input and its output, each against its schema.
            self._run("fifloader", "python3", FIFLOADER, "--clean", *self.files)
            return
        for name in (name for name in self.files if name.endswith(".json")):
            with users.acting_as(users.TESTS):
                text = (self.tree / name).read_text(encoding="utf-8", errors="replace")
            check_tables(name, text)
        documents = [name for name in self.files if name.endswith(".yaml")]
        if self.loader == "openqa":
            self._check_groups(documents)
        if documents:
            schema = f"{OPENQA}/public/schema/{_SCHEMAS[self.loader]}"
            self._run("templates", "perl", "/opt/bin/check-yaml.pl", schema, *documents)

    def load(self, changed: Iterable[str]) -> None:
        """Loads the changed files into openQA.

        Raises:
            HostError: openQA refused them.
        """
        names = set(changed)
        if self.loader == "fifloader" and names:
            loading = ("--load", "--clean", f"--loader={_LOADER}", f"--host={HOST}")
            self._run("fifloader", "python3", FIFLOADER, *loading, *self.files, user=ADMINISTRATOR)
        if self.loader != "openqa":
            return
        # The tables first: job groups refer to them.
        for name in sorted(names, key=lambda name: (name.endswith(".yaml"), self.files.index(name))):
            if name.endswith(".json"):
                options = (f"--host={HOST}", "--update", name)
                self._run(f"templates {name}", _LOADER, *options, user=ADMINISTRATOR)
            else:
                group = self._group(name)
                make_groups([group])
                _api(
                    *("--method=POST", "job_templates_scheduling", f"name={group}"),
                    *(f"schema={_SCHEMAS[self.loader]}", "--param-file", f"template={self.inner}/{name}"),
                )

    def _check_groups(self, documents: Iterable[str]) -> None:
        """Checks that no two files have the same job group: openQA would only keep one of them."""
        files: dict[str, str] = {}
        for file in documents:
            group = self._group(file)
            if other := files.get(group):
                raise HostError(
                    f"templates: {other} and {file} are both job group {group}: rename one of "
                    "them with content.group_names"
                )
            files[group] = file

    def _group(self, file: str) -> str:
        """Returns the job group of a file of job templates."""
        return self.group_names.get(file, Path(file).stem)

    def _run(self, what: str, *words: str, user: str = USER) -> None:
        _run(what, *words, folder=self.inner, user=user)


def check_tables(name: str, text: str) -> None:
    """Checks an input of openqa-load-templates.

    Raises:
        HostError: it is not JSON, or openQA would refuse it.
    """
    try:
        # Nothing else may pass: openqa-load-templates would run it as a Perl program.
        data = json.loads(text)
    except ValueError as error:
        raise HostError(f"templates: {name} is not JSON: {error}") from error
    allowed = f"an object of {', '.join(_TABLES)}; job groups have files in YAML"
    if not isinstance(data, dict):
        raise HostError(f"templates: {name} must be {allowed}")
    if unknown := sorted(set(data) - set(_TABLES)):
        raise HostError(f"templates: {name} has {', '.join(unknown)}, but must be {allowed}")
    for table, entries in data.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise HostError(f"templates: {name}: {table} must be a list of objects")
        for number, entry in enumerate(entries, 1):
            if missing := sorted(_TABLES[table] - set(entry)):
                raise HostError(f"templates: {name}: {table} {number} lacks {', '.join(missing)}")


def is_empty() -> bool:
    """Returns whether openQA has no templates at all, as after its database was created anew."""
    return not _get("machines")["Machines"]


def make_groups(names: Iterable[str]) -> None:
    """Creates the job groups that openQA lacks, in this order."""
    there = {group["name"] for group in _get("job_groups")}
    for name in names:
        if name not in there:
            _api("--method=POST", "job_groups", f"name={name}")


def limit_assets(limits: Mapping[str, int]) -> None:
    """Limits the size of job groups' assets in openQA; missing groups are created.

    Args:
        limits: GB by the job group's name.

    Raises:
        HostError: openQA refused it.
    """
    make_groups(limits)
    for group in _get("job_groups"):
        limit = limits.get(group["name"])
        if limit is not None and group["size_limit_gb"] != limit:
            _api(
                *("--method=PUT", f"job_groups/{group['id']}", f"name={group['name']}"),
                f"size_limit_gb={limit}",
            )


def _api(*words: str) -> None:
    # openQA's answer, which has the reason of a failure, goes to standard output.
    command = 'exec openqa-cli api "$@" 2>&1'
    _run("openQA", "sh", "-c", command, "openqa-cli", f"--host={HOST}", *words, user=ADMINISTRATOR)


def _run(what: str, *words: str, folder: str = "/", user: str = USER) -> None:
    try:
        inside(*words, folder=folder, seconds=_SECONDS, user=user)
    except CommandError as error:
        raise HostError(f"{what}: {error.reason}") from error


def _get(path: str) -> Any:
    try:
        address = f"http://127.0.0.1/api/v1/{path}"
        with urllib.request.urlopen(address, timeout=_ANSWER_SECONDS) as answer:
            return json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        raise HostError(f"openQA: {path}: {error}") from error
