"""Brings tests, needles and templates up to date, or leaves everything as it was."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from userdata.host import figures, users
from userdata.host.backup.base import alone
from userdata.host.content import cloudinit, templates, trees
from userdata.host.content.repository import Repository
from userdata.host.document import Content, required
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.progress import Report
from userdata.host.secrets import write_private

SAMPLE = "sample"


@dataclass(frozen=True)
class State:
    """What openQA and the workers have.

    Attributes:
        commits: by the repository's name: commit in the newest release, address and ref.
        templates: what openQA has loaded: SHA-256 by file.
        loader: what loaded them.
    """

    commits: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    loader: str = ""


def lay_out(host: Host) -> None:
    """At every start, before openQA: publishes the bundle's sample tests along with what was loaded before.

    Raises:
        HostError: a folder is in the way.
    """
    content = _content(host)
    own = folder(host)
    sample = _sample(host)
    # Existing folders may be from a version in which root did this.
    for path in (own, _tests(host)):
        users.give(path, users.TESTS)
    with users.acting_as(users.TESTS):
        for name in ("tests", "needles", "bundled"):
            if (own / name).is_symlink():
                (own / name).unlink()
        for name in ("tests", "needles", "templates"):
            (own / name).mkdir(exist_ok=True)
        parts = _published(host)
        if not (content.tests and content.distri == SAMPLE):
            bundled = own / "bundled"
            shutil.rmtree(bundled, ignore_errors=True)
            for file, text in sample.items():
                # With the current time, by which workers see that a file has changed.
                (bundled / file).parent.mkdir(parents=True, exist_ok=True)
                (bundled / file).write_bytes(text)
            parts = {SAMPLE: bundled, **{name: tree for name, tree in parts.items() if name != SAMPLE}}
        trees.publish(own, _tests(host), parts, _links(content) if content.distri in parts else {})


def refresh(host: Host, *, rewritten: bool, again: bool, report: Report) -> None:
    """Brings tests, needles, templates and limits up to date, and tells CloudWatch the outcome.

    Args:
        host: the web UI's host.
        rewritten: accept a history that does not follow from the loaded one.
        again: load all templates, even those that openQA should have.
        report: takes the progress, a line at a time.

    Raises:
        HostError: it failed; tests and templates are those from before.
    """
    with figures.outcome(host, ContentFailed=(0.0, 1.0)), alone(host, "refresh"):
        content = _content(host)
        if content.cloudinit:
            cloudinit.make(host)
        if content.tests:
            _Round(host, rewritten=rewritten, again=again).follow(report)
        if content.asset_limits:
            templates.limit_assets(content.asset_limits)


def folder(host: Host) -> Path:
    """Returns where repositories and releases are; only :data:`users.TESTS` writes there."""
    return host.layout.data / "openqa/content"


def load_state(path: Path) -> State:
    """Reads the state; if there is none, nothing was loaded yet."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        commits = {name: tuple(value) for name, value in data["commits"].items()}
        return State(commits=commits, templates=data["templates"], loader=data["loader"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return State()


class _Round:
    """One round of following the repositories, from what was loaded before to what they hold now."""

    def __init__(self, host: Host, *, rewritten: bool, again: bool) -> None:
        self._host, self._rewritten, self._again = host, rewritten, again
        self._content = content = _content(host)
        self._folder = folder(host)
        self._state = self._folder / "state.json"
        with users.acting_as(users.TESTS):
            self._before = load_state(self._state)
        sources = {
            "tests": content.tests,
            "needles": content.needles,
            "templates": content.templates_repository,
        }
        self._repositories = [
            Repository(name, source.address, source.ref) for name, source in sources.items() if source
        ]

    def follow(self, report: Report) -> None:
        """Brings everything that openQA and the workers have up to date with the repositories, or nothing."""
        commits = {
            repository.name: (self._next(repository), repository.address, repository.ref)
            for repository in self._repositories
        }
        for repository in self._repositories:
            repository.check_out(commits[repository.name][0])
        known = self._known()
        # Groups first: the templates' loader would create them in an order of its own.
        templates.make_groups(self._content.asset_limits)
        with _unscheduled(self._host):
            loaded = self._load(known)
        now = State(commits=commits, templates=loaded, loader=self._content.loader)
        with users.acting_as(users.TESTS):
            published = (self._folder / "current" / self._content.distri).is_dir()
            if published and now == replace(self._before, templates=known):
                report("nothing is new")
                return
            # Otherwise a power failure could leave files with their names but without their content.
            os.sync()
            parts, links = _parts(self._host, self._content), _links(self._content)
            trees.publish(self._folder, _tests(self._host), parts, links)
        for repository in self._repositories:
            repository.keep(commits[repository.name][0])
        with users.acting_as(users.TESTS):
            write_private(self._state, json.dumps(asdict(now)), mode=0o644)
        for name, (commit, address, _) in commits.items():
            report(f"{name}: {commit} of {address}")
            if (self._folder / name / ".gitmodules").is_file():
                report(f"{name}: its submodules are not followed: their folders are empty")

    def _next(self, repository: Repository) -> str:
        """Fetches a repository and returns its commit, which must follow from the loaded one."""
        commit = repository.fetch()
        old = self._before.commits.get(repository.name)
        if old is None or old[1:] != (repository.address, repository.ref) or self._rewritten:
            return commit
        if not repository.follows(commit, old[0]):
            raise HostError(
                f"{repository.name}: {commit} of {repository.address} does not follow from {old[0]}, which "
                "is loaded: if its history was meant to be rewritten, run "
                f"'python -m ops --env {self._host.document.environment} content --rewritten'"
            )
        return commit

    def _known(self) -> Mapping[str, str]:
        """Returns the SHA-256 of the templates that openQA has; none if all are to be loaded."""
        empty = self._content.loader != "scenarios" and templates.is_empty()
        same_loader = self._before.loader == self._content.loader
        return self._before.templates if same_loader and not self._again and not empty else {}

    def _load(self, known: Mapping[str, str]) -> dict[str, str]:
        """Checks the working trees and loads their changed templates; restores both on failure."""
        name = _with_templates([repository.name for repository in self._repositories])
        begun = False
        try:
            with users.acting_as(users.TESTS):
                for repository in self._repositories:
                    trees.check(self._folder / repository.name)
                files = templates.find(self._folder / name, self._content.templates)
                wanted = self._templates(name, files, loader=self._content.loader)
                digests = wanted.digests()
            changed = [file for file, digest in digests.items() if known.get(file) != digest]
            if changed:
                wanted.check()
                begun = True
                wanted.load(changed)
        except HostError as error:
            try:
                self._put_back(templates_too=begun)
            except HostError as other:
                raise HostError(f"{error}; the previous state could not be restored: {other}") from error
            raise
        return digests

    def _put_back(self, *, templates_too: bool) -> None:
        for repository in self._repositories:
            if old := self._before.commits.get(repository.name):
                repository.check_out(old[0])
        if templates_too and "tests" in self._before.commits:
            files = [name for name in self._before.templates if name != templates.FIFLOADER]
            name = _with_templates(self._before.commits)
            self._templates(name, files, loader=self._before.loader).load(self._before.templates)

    def _templates(self, repository: str, files: Sequence[str], *, loader: str) -> templates.Templates:
        return templates.Templates(
            tree=self._folder / repository,
            files=files,
            loader=loader,
            group_names=self._content.group_names,
        )


def _with_templates(repositories: Collection[str]) -> str:
    """Returns the name of the repository that has the job templates."""
    return "templates" if "templates" in repositories else "tests"


@contextmanager
def _unscheduled(host: Host) -> Iterator[None]:
    """Keeps builds from being scheduled: without their templates openQA refuses them, or makes no jobs."""
    with host.layout.templates_lock.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parts(host: Host, content: Content) -> dict[str, Path]:
    """Returns the trees of the next release."""
    own = folder(host)
    parts = {} if content.distri == SAMPLE else {SAMPLE: own / "bundled"}
    parts[content.distri] = own / "tests"
    if content.needles:
        # As openQA looks for them: lib/OpenQA/Utils.pm, productdir.
        product = f"products/{content.distri}"
        within = f"{product}/" if (own / "tests" / product).is_dir() else ""
        parts[f"{content.distri}/{within}needles"] = own / "needles"
    return parts


def _links(content: Content) -> dict[str, str]:
    """Returns the other distributions of the tests: openQA looks for each in a folder of its name."""
    return dict.fromkeys(content.more_distris, content.distri)


def _published(host: Host) -> dict[str, Path]:
    """Returns the trees of the newest release that are still wanted."""
    content = _content(host)
    current = folder(host) / "current" / content.distri
    return {content.distri: current} if content.tests and current.is_dir() else {}


def _content(host: Host) -> Content:
    return required(host.document.webui, "webui").content


def _tests(host: Host) -> Path:
    return host.layout.data / "openqa/share/tests"


def _sample(host: Host) -> dict[Path, bytes]:
    """Returns the bundle's sample tests."""
    source = host.layout.bundle / "userdata/content/sample"
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    return {file: (source / file).read_bytes() for file in files if file.parts[0] != "image"}
