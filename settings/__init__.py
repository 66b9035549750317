"""The typed model of an environment file: all that an operator may set.

An environment is described by ``environments/NAME.toml``. :func:`load` reads and validates it before
anything else happens; every error is one line that names the file, the key, the value and what is allowed.
"""

from settings.advice import warnings
from settings.builder import Builder
from settings.content import KNOWN_CLASSES, PROFILES, Content, Need
from settings.fields import Architecture, OperatingSystem
from settings.model import (
    FEDORA_ACCOUNTS,
    Backups,
    Database,
    Domain,
    Environment,
    Fleet,
    Image,
    Network,
    Rds,
    SignIn,
    StatefulHost,
    Subnets,
    WebUi,
)
from settings.reading import ENVIRONMENTS, SettingsError, load, names

__all__ = [
    "ENVIRONMENTS",
    "FEDORA_ACCOUNTS",
    "KNOWN_CLASSES",
    "PROFILES",
    "Architecture",
    "Backups",
    "Builder",
    "Content",
    "Database",
    "Domain",
    "Environment",
    "Fleet",
    "Image",
    "Need",
    "Network",
    "OperatingSystem",
    "Rds",
    "SettingsError",
    "SignIn",
    "StatefulHost",
    "Subnets",
    "WebUi",
    "load",
    "names",
    "warnings",
]
