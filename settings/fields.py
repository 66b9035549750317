"""Kinds of values that an environment file may hold; error messages quote their descriptions."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Architecture = Literal["x86_64", "aarch64"]
OperatingSystem = Literal["debian", "fedora"]


def _network(value: object) -> object:
    return IPv4Network(value) if isinstance(value, str) else value


def _address(value: object) -> object:
    return IPv4Address(value) if isinstance(value, str) else value


def _interface(value: object) -> object:
    if isinstance(value, str) and "/" not in value:
        raise ValueError  # it would be taken for a network of one address
    return IPv4Interface(value) if isinstance(value, str) else value


Cidr = Annotated[IPv4Network, BeforeValidator(_network)]
IpAddress = Field(description="an IPv4 address in quotes")
Address = Annotated[IPv4Address, BeforeValidator(_address), IpAddress]
OptionalAddress = Annotated[IPv4Address | None, BeforeValidator(_address), IpAddress]
Interface = Annotated[
    IPv4Interface,
    BeforeValidator(_interface),
    Field(description="an IPv4 address with the prefix of its network in quotes, such as 10.0.2.2/15"),
]
GP3_GIB = 65536  # EBS's largest volume
Gib = Field(ge=1, le=GP3_GIB, description=f"a whole number of GiB from 1 to {GP3_GIB}, EBS's range for gp3")
Name = Field(
    max_length=16,
    pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
    description="up to 16 lowercase letters, digits and single hyphens, starting with a letter",
)
Hosts = Field(ge=0, le=1000, description="a whole number of hosts from 0 to 1000")
Days = Field(ge=1, le=3650, description="a whole number of days from 1 to 3650")
Vcpus = Field(ge=1, description="a whole number of vCPUs, as Service Quotas shows it")
InstanceType = Field(description="an EC2 instance type from fleet/catalogue.toml, in quotes")
InstanceTypeName = Annotated[str, InstanceType]
# An Auto Scaling group takes 40:
# docs.aws.amazon.com/autoscaling/ec2/APIReference/API_LaunchTemplateOverrides.html
InstanceTypes = Annotated[
    tuple[str, ...],
    Field(
        min_length=1,
        max_length=40,
        description="a list of 1 to 40 EC2 instance types from fleet/catalogue.toml",
    ),
]
DnsName = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        description="a DNS name in lowercase, without a dot at its end, such as openqa.example.org",
    ),
]
# docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
_PARAMETER_NAME = 1011
ImageName = Field(
    max_length=_PARAMETER_NAME,
    pattern=r"^(ami-([0-9a-f]{8}|[0-9a-f]{17})|/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)$",
    description="an AMI id (ami- and 8 or 17 hex digits) or the name of an SSM parameter (starts with / and "
    f"has up to {_PARAMETER_NAME} characters)",
)
# Invisible characters, for patterns' classes. All others are what str.isprintable() takes, but for spaces.
UNSEEN = r"\s\p{C}"
# A longer line is none of these, and would fill the hosts' user data.
_LINE = 500
# The hosts' security groups let 443 out.
WebAddress = Field(
    max_length=_LINE,
    pattern=rf"^https://[^{UNSEEN}/:]+(:443)?(/[^{UNSEEN}]*)?$",
    description=f"an https:// address of up to {_LINE} characters, without a port: hosts reach only 443",
)
BrowserAddress = Field(
    max_length=_LINE,
    pattern=rf"^https://[^{UNSEEN}/]+(/[^{UNSEEN}]*)?$",
    description=f"an https:// address of up to {_LINE} characters",
)
Text = Field(
    max_length=_LINE,
    pattern=rf"^ *[^{UNSEEN}](?:[^{UNSEEN}]| )*$",
    description=f"one line of text of up to {_LINE} characters",
)


class Settings(BaseModel):
    """A table of an environment file: unknown keys and other types are refused, lists become tuples."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
