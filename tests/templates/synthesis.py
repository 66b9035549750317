"""Synthesizing an environment for the tests, and finding one's way in its templates."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aws_cdk as cdk

import app as project
from settings import Environment
from settings.naming import prefix

ROOT = Path(__file__).parents[2]

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Synthesized:
    """An environment's templates by the last part of their stacks' names, with what validation reported."""

    environment: Environment
    directory: Path
    templates: Mapping[str, Json]
    manifest: Json
    report: Json

    def resources(self, kind: str, part: str | None = None) -> dict[str, Json]:
        """Returns the resources of a type by ``part/logical id``, of one stack or all."""
        return {
            f"{name}/{id}": resource
            for name, template in self.templates.items()
            for id, resource in template["Resources"].items()
            if resource["Type"] == kind and part in (None, name)
        }

    def properties(self, kind: str, part: str | None = None) -> list[Json]:
        """Returns the properties of the resources of a type."""
        return [resource.get("Properties", {}) for resource in self.resources(kind, part).values()]

    def statements(self, part: str | None = None, *, kind: str = "AWS::IAM::") -> Iterator[tuple[str, Json]]:
        """Yields what roles and policies allow, each statement with its stack's part.

        Args:
            part: of one stack; None: of all.
            kind: what the types of the resources begin with.
        """
        for name, template in self.templates.items():
            for resource in template["Resources"].values() if part in (None, name) else ():
                if resource["Type"].startswith(kind):
                    for path, node in walk(resource):
                        if path and path[-1] == "PolicyDocument":
                            yield from ((name, statement) for statement in node["Statement"])

    def acknowledged(self) -> set[tuple[str, str]]:
        """Returns all acknowledgments: construct path and rule with its plugin."""
        return {
            (path.removeprefix("/"), rule)
            for file in self.directory.glob("*.metadata.json")
            for path, entries in json.loads(file.read_text()).items()
            for entry in entries
            if entry["type"] == "aws:cdk:acknowledged-rules"
            for rule in entry["data"]
        }


def synthesize(
    environment: Environment, directory: Path, *, check: bool = True, validate: bool = False
) -> Synthesized:
    """Synthesizes an environment as ``app.py`` does.

    Args:
        environment: the settings.
        directory: where to.
        check: with the security rules.
        validate: with the CDK's own validation of templates, which takes seconds to load.
    """
    app = cdk.App(
        analytics_reporting=False,
        builtin_cloud_formation_validation=validate,
        context=json.loads((ROOT / "cdk.json").read_text())["context"],
        outdir=str(directory),
    )
    project.build(app, environment)
    if check:
        project.check(app)
    # What a rule finds is in the report, for a test of its own.
    with contextlib.suppress(RuntimeError):
        app.synth()
    report = directory / "validation-report.json"
    begin = f"{prefix(environment)}-"
    return Synthesized(
        environment=environment,
        directory=directory,
        templates={
            file.name.removeprefix(begin).removesuffix(".template.json"): json.loads(file.read_text())
            for file in sorted(directory.glob("*.template.json"))
        },
        manifest=json.loads((directory / "manifest.json").read_text()),
        report=json.loads(report.read_text()) if report.exists() else {"pluginReports": []},
    )


def findings(report: Json, kind: Literal["violations", "suppressedViolations"]) -> list[Json]:
    """Returns what the validation rules found, all of them; there must have been some that looked."""
    plugins = report["pluginReports"]
    assert plugins, "nothing was validated"
    return [finding for plugin in plugins for finding in plugin.get(kind, ())]


def user_data(template_data: Json) -> str:
    """Returns a launch template's user data, with ``{"Fn::…"}`` where CloudFormation fills in."""
    return rendered(template_data["UserData"]["Fn::Base64"])


def rendered(value: Any) -> str:
    """Returns a property's text, with ``{"Fn::…"}`` where CloudFormation fills in."""
    joined = value["Fn::Join"][1] if isinstance(value, dict) else [value]
    return "".join(part if isinstance(part, str) else reference(part) for part in joined)


def document(template_data: Json) -> Json:
    """Returns the host's document in a launch template's user data."""
    written = user_data(template_data).split("<<'DOCUMENT'\n")[1].split("\nDOCUMENT\n")[0]
    parsed: Json = json.loads(written)
    return parsed


def reference(intrinsic: Json) -> str:
    """Returns a short form of an intrinsic function, such as ``${Ref Group}``."""
    ((function, argument),) = intrinsic.items()
    name = function.removeprefix("Fn::")
    return "${" + f"{name} {'.'.join(argument) if isinstance(argument, list) else argument}" + "}"


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields every node of a template with its path."""
    yield path, node
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        yield from walk(child, (*path, str(key)))


def imports(template: Json) -> set[str]:
    """Returns the names of the exports that a template uses."""
    return {node for path, node in walk(template) if path and path[-1] == "Fn::ImportValue"}


def exports(template: Json) -> set[str]:
    """Returns the names that a template exports."""
    return {output["Export"]["Name"] for output in template.get("Outputs", {}).values() if "Export" in output}
