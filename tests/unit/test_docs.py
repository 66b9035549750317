"""The pages' links lead somewhere, and what they name is there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

import images.__main__ as images
import localcloud.__main__ as localcloud
import ops.__main__ as ops
from tests.environments import SHIPPED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Of text, not of code.
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
FOLDERS = [path.name for path in ROOT.iterdir() if path.is_dir()]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links: in lowercase, without punctuation, - for each blank."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(page: Path) -> str:
    """All that stands in a page as code: each piece, and each command of a block, in a line."""
    return "\n".join(
        re.sub(r"\\\n *", "", piece) if piece.startswith("```") else " ".join(piece.split())
        for piece in CODE.findall(page.read_text())
    )


@each_page
def test_links(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_files(page: Path) -> None:
    """Words in capitals, such as NAME, stand for others."""
    for path in re.findall(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*", code(page)):
        if not re.search(r"\b[A-Z]{2,}\b", path):
            assert [*ROOT.glob(path.rstrip("./"))], path


@each_page
def test_tests(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text()))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named - there == set()


@each_page
def test_units(page: Path) -> None:
    there = {
        path.name.removesuffix(".j2").replace(".container", ".service")
        for path in (ROOT / "userdata" / "roles").rglob("*")
    }
    assert set(re.findall(r"[\w@-]+\.(?:service|timer|socket|target)\b", code(page))) - there == set()


@each_page
def test_make(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = code(page).replace("`", "")
    for words in re.findall(r"(?:^|sudo )make ((?:[a-z-]+ ?)+)", lines, re.MULTILINE):
        assert set(words.split()) <= targets, words


@each_page
def test_modules(page: Path) -> None:
    for module in re.findall(r"python3? -m ([\w.]+)", code(page)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def commands(pattern: str) -> list[list[str]]:
    """The words by which the pages name a program's commands, without what these are told."""
    found = {match for page in PAGES for match in re.findall(rf"{pattern} ([a-z][a-z -]*)", code(page))}
    return sorted(words.partition(" -")[0].split() for words in found)


@pytest.mark.parametrize(
    ("main", "pattern", "some"),
    [
        (ops.main, r"(?:python -m ops(?: --\w+ [A-Z]+)*|…)", ["disk-images", "list"]),
        (images.main, "python -m images", ["clean"]),
        (localcloud.main, "python -m localcloud", ["console"]),
    ],
)
def test_commands(main: Callable[[list[str]], int], pattern: str, some: list[str]) -> None:
    named = commands(pattern)
    assert some in named
    for words in named:
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*words, "--help"])


@each_page
def test_commands_of_aws(page: Path) -> None:
    """Operations of AWS's and their options; the command line's own are few."""
    own = {"notification-endpoint", "output", "query"}  # the first is SNS's Endpoint there
    session = botocore.session.get_session()
    command = r"(?<![\w-])aws ([a-z0-9]+) ([a-z-]+)([^`|\n]*)"
    for service, operation, words in re.findall(command, code(page)):
        if (service, operation) in (("s3", "sync"), ("logs", "tail")):
            continue
        model = session.get_service_model(service)
        there = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in there, f"{service} {operation}"
        shape = model.operation_model(there[operation]).input_shape
        members = {xform_name(name, "-") for name in shape.members} if shape else set()
        options = {option.removeprefix("no-") for option in re.findall(r"--([a-z-]+)", words)}
        assert options - members - own == set(), f"{service} {operation}"


def alarms(document: Any) -> Iterator[tuple[str, str]]:
    """The alarms of a template, or of several: their names and descriptions."""
    if isinstance(document, dict):
        if document.get("Type") == "AWS::CloudWatch::Alarm":
            yield document["Properties"]["AlarmName"], document["Properties"]["AlarmDescription"]
        document = [*document.values()]
    if isinstance(document, list):
        for inside in document:
            yield from alarms(inside)


@pytest.mark.parametrize("environment", SHIPPED)
def test_alarms(environment: str) -> None:
    """Each names the page that says what to do, and is there."""
    snapshot = ROOT / "tests" / "templates" / "snapshots" / f"{environment}.json"
    found = dict(alarms(json.loads(snapshot.read_text())))
    assert found
    for name, description in found.items():
        page = re.search(r"\(docs/([a-z]+\.md)\)$", description)
        assert page, f"{name}: {description}"
        text = code(ROOT / "docs" / page[1])
        short = re.sub(r"-(x86_64|aarch64)$", "-ARCH", name.removeprefix(f"openqa-{environment}-"))
        assert f"`openqa-NAME-{short}`" in text or f"`…-{short}`" in text, f"{name}: {page[0]}"
