"""Settings of openQA itself in environment files: what comes of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings import Content, SettingsError, load, openqa_ini
from tests.unit.test_settings import BASE

CONTENT = 'profile = "sample"'


def write(directory: Path, line: str) -> Path:
    assert CONTENT in BASE
    (directory / "here.toml").write_text(BASE.replace(CONTENT, f"{CONTENT}\nopenqa = {{ {line} }}"))
    return directory


def test_nothing_said_leaves_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "here.toml").write_text(BASE)
    assert load("here", tmp_path).content.openqa == openqa_ini.DEFAULTS


def test_what_is_said_counts_key_by_key(tmp_path: Path) -> None:
    line = 'global = { branding = "openSUSE" }, carry_over = { lookup_depth = 30 }, '
    line += '"audit/storage_duration" = { iso = 7 }'
    made = load("here", write(tmp_path, line)).content.openqa
    assert made == {
        **openqa_ini.DEFAULTS,
        "global": {"branding": "openSUSE"},
        "audit/storage_duration": {**openqa_ini.DEFAULTS["audit/storage_duration"], "iso": 7},
        "carry_over": {"lookup_depth": 30},
    }


def test_what_is_said_counts_over_the_profile() -> None:
    given = {"global": {"parallel_cancel_whole_cluster": 1, "auto_clone_limit": 3}}
    made = Content.model_validate({"profile": "fedora", "openqa": given}).openqa
    assert made["global"] == {
        "branding": "plain",
        "hide_asset_types": "repo hdd",
        "parallel_cancel_whole_cluster": 1,
        "auto_clone_limit": 3,
    }
    assert made["audit/storage_duration"]["jobgroup"] == 7


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'global = { base_url = "https://x" }',
            'content.openqa.global.base_url = "https://x": it follows from [domain]; allowed: other keys of '
            "[global]",
        ),
        (
            "misc_limits = { generic_max_limit = 5 }",
            "content.openqa.misc_limits.generic_max_limit = 5: the fleets' controller reads up to that many "
            "workers; allowed: other keys of [misc_limits]",
        ),
        (
            '"scm git" = { do_push = "yes" }',
            'content.openqa."scm git" = {"do_push": "yes"}: content.service brings the tests, and openQA has '
            "no repositories; allowed: other sections of openqa.ini",
        ),
        (
            'auth = { method = "Fake" }',
            'content.openqa.auth = {"method": "Fake"}: [sign_in] sets it; allowed: other sections of '
            "openqa.ini",
        ),
    ],
)
def test_what_is_not_said_here(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load("here", write(tmp_path, line))
    (told,) = str(caught.value).splitlines()
    assert told.partition("here.toml: ")[2] == expected


@pytest.mark.parametrize(
    "line",
    [
        "global = 1",
        "global = { branding = true }",
        "global = { branding = -1 }",
        "global = { branding = 1.5 }",
        'global = { branding = "" }',
        'global = { branding = "two\\nlines" }',
        'global = { branding = "<<END" }',
        'global = { "a=b" = 1 }',
        'global = { "#a" = 1 }',
        '"a]" = { b = 1 }',
        '"a\\nb" = { b = 1 }',
    ],
)
def test_no_line_of_such_a_file(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load("here", write(tmp_path, line))
    told = str(caught.value).splitlines()
    assert all("a table for each section of openqa.ini" in one for one in told)
