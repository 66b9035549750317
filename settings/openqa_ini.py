"""Settings of openQA itself: its ``openqa.ini``, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from settings.fields import UNSEEN
from settings.problem import Problem, shown

Section = Field(max_length=100, pattern=rf"^[A-Za-z](?:[^{UNSEEN}\[\]]| [^{UNSEEN}\[\]])*$")
Key = Field(max_length=200, pattern=rf"^[A-Za-z0-9][^{UNSEEN}=]*$")
# To Config::IniFiles, << begins a text of many lines.
Line = Field(max_length=2000, pattern=rf"^[^{UNSEEN}<](?:[^{UNSEEN}]| )*$")
OpenqaIni = Annotated[
    dict[
        Annotated[str, Section],
        dict[Annotated[str, Key], Annotated[int, Field(ge=0)] | Annotated[str, Line]],
    ],
    Field(
        default_factory=dict,
        description="a table for each section of openqa.ini with whole numbers or single lines of text, such "
        "as default_group_limits = { result_storage_duration = 180 }; yes and no are 1 and 0",
    ),
]
# What the file holds unless the environment or its profile says otherwise. Audit events: as in the file that
# comes with openQA; without them, events stay for ever.
DEFAULTS: Mapping[str, Mapping[str, int | str]] = {
    "global": {"branding": "plain"},
    "audit/storage_duration": {
        "startup": 10,
        "jobgroup": 365,
        "jobtemplate": 365,
        "table": 365,
        "iso": 60,
        "user": 60,
        "asset": 30,
        "needle": 30,
        "other": 15,
    },
    "logging": {"level": "info"},
    # Assets beyond their groups' limits stay while there is room.
    "misc_limits": {"asset_cleanup_max_free_percentage": 20},
}
# What an environment may not set here, and why.
SECTIONS: Mapping[str, str] = {
    "auth": "[sign_in] sets it",
    "oauth2": "[sign_in] sets it",
    "openid": "people sign in as [sign_in] says",
    "scm git": "content.service brings the tests, and openQA has no repositories",
    "hypnotoad": "the web UI listens where its proxy expects it",
    "amqp": "its address holds a password, which would be in a template",
    "secrets": "they would be in a template",
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "global": {
        "base_url": "it follows from [domain]",
        "download_domains": "content.download_domains sets it",
        "service_port_delta": "the proxy has all services behind one port",
        "auto_clone_regex": "jobs cut off by a replaced host are recognized by it",
        "worker_timeout": "replacing the web UI's host takes up to openQA's default of half an hour",
    },
    "scheduler": {"max_running_jobs": "the fleets' max, by which hosts are launched, sets it"},
    "misc_limits": {
        "generic_max_limit": "the fleets' controller reads up to that many workers",
        "max_online_workers": "the fleets decide how many there are",
    },
}


def merged(*levels: Mapping[str, Mapping[str, int | str]]) -> dict[str, dict[str, int | str]]:
    """Merge tables of sections, key by key.

    Args:
        levels: The tables; later ones win.
    """
    sections = dict.fromkeys(name for level in levels for name in level)
    return {
        name: {key: value for level in levels for key, value in level.get(name, {}).items()}
        for name in sections
    }


def problems(given: Mapping[str, Mapping[str, object]]) -> Iterator[Problem]:
    """Find keys that the deployment sets itself, or that no file may set.

    Args:
        given: ``content.openqa``.
    """
    for section, values in given.items():
        where = f"content.openqa.{section if section.isidentifier() else shown(section)}"
        if section in SECTIONS:
            yield Problem(where, values, SECTIONS[section], "other sections of openqa.ini")
            continue
        for key, value in values.items():
            if why := KEYS.get(section, {}).get(key):
                yield Problem(f"{where}.{key}", value, why, f"other keys of [{section}]")
