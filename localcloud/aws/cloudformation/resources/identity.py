"""AWS::IAM, AWS::KMS and AWS::SecretsManager: who may do what, and secrets."""

from __future__ import annotations

import json
import secrets
import string
from typing import Any

from localcloud.aws.cloudformation.types import Context, Properties, ResourceError, Type, changes, tags


class Role(
    Type,
    type="AWS::IAM::Role",
    properties="AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Policies Tags",
    immutable="RoleName Path PermissionsBoundary",
):
    """A role."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it with its policies."""
        name = p.get("RoleName") or c.name(64)
        c.call(
            "iam",
            "create_role",
            RoleName=name,
            AssumeRolePolicyDocument=p["AssumeRolePolicyDocument"],
            Path=p.get("Path"),
            Description=p.get("Description"),
            MaxSessionDuration=p.get("MaxSessionDuration"),
            PermissionsBoundary=p.get("PermissionsBoundary"),
            Tags=tags(p, own=True),
        )
        c.created(name)
        self._policies(c, {}, p)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change its policies."""
        c.call(
            "iam", "update_assume_role_policy", RoleName=c.id, PolicyDocument=new["AssumeRolePolicyDocument"]
        )
        c.call(
            "iam",
            "update_role",
            RoleName=c.id,
            Description=new.get("Description", ""),
            MaxSessionDuration=new.get("MaxSessionDuration", 3600),
        )
        if own := tags(new, own=True):
            c.call("iam", "tag_role", RoleName=c.id, Tags=own)
        self._policies(c, old, new)

    def _policies(self, c: Context, old: Properties, new: Properties) -> None:
        before, after = set(old.get("ManagedPolicyArns", [])), set(new.get("ManagedPolicyArns", []))
        for arn in sorted(before - after):
            c.call("iam", "detach_role_policy", RoleName=c.id, PolicyArn=arn)
        for arn in sorted(after - before):
            c.call("iam", "attach_role_policy", RoleName=c.id, PolicyArn=arn)
        names = {policy["PolicyName"] for policy in new.get("Policies", [])}
        for policy in old.get("Policies", []):
            if policy["PolicyName"] not in names:
                c.call("iam", "delete_role_policy", RoleName=c.id, PolicyName=policy["PolicyName"])
        for policy in new.get("Policies", []):
            c.call("iam", "put_role_policy", RoleName=c.id, **policy)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it with its own policies."""
        for arn in p.get("ManagedPolicyArns", []):
            c.call("iam", "detach_role_policy", RoleName=c.id, PolicyArn=arn)
        for policy in p.get("Policies", []):
            c.call("iam", "delete_role_policy", RoleName=c.id, PolicyName=policy["PolicyName"])
        c.call("iam", "delete_role", RoleName=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        role = c.call("iam", "get_role", RoleName=c.id)["Role"]
        return {"Arn": role["Arn"], "RoleId": role["RoleId"]}


class Policy(Type, type="AWS::IAM::Policy", properties="PolicyDocument Roles", immutable="PolicyName"):
    """A policy inside roles."""

    def create(self, c: Context, p: Properties) -> None:
        """Put it into its roles."""
        c.created(p["PolicyName"])
        self._put(c, p, p["Roles"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put it into its roles, and out of others."""
        for role in set(old["Roles"]) - set(new["Roles"]):
            c.call("iam", "delete_role_policy", RoleName=role, PolicyName=c.id)
        self._put(c, new, new["Roles"])

    def _put(self, c: Context, p: Properties, roles: list[str]) -> None:
        for role in roles:
            c.call(
                "iam",
                "put_role_policy",
                RoleName=role,
                PolicyName=p["PolicyName"],
                PolicyDocument=p["PolicyDocument"],
            )

    def delete(self, c: Context, p: Properties) -> None:
        """Take it out of its roles."""
        for role in p["Roles"]:
            c.call("iam", "delete_role_policy", RoleName=role, PolicyName=c.id)


class ManagedPolicy(
    Type,
    type="AWS::IAM::ManagedPolicy",
    properties="PolicyDocument Roles",
    immutable="ManagedPolicyName Description Path",
):
    """A policy of its own."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it and attach it to its roles."""
        answer = c.call(
            "iam",
            "create_policy",
            PolicyName=p.get("ManagedPolicyName") or c.name(128),
            PolicyDocument=p["PolicyDocument"],
            Description=p.get("Description") or None,
            Path=p.get("Path"),
        )
        c.created(answer["Policy"]["Arn"])
        self._attach(c, [], p.get("Roles", []))

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Make a new version of it, and attach it as said."""
        if old["PolicyDocument"] != new["PolicyDocument"]:
            for version in c.call("iam", "list_policy_versions", PolicyArn=c.id)["Versions"]:
                if not version["IsDefaultVersion"]:
                    c.call("iam", "delete_policy_version", PolicyArn=c.id, VersionId=version["VersionId"])
            c.call(
                "iam",
                "create_policy_version",
                PolicyArn=c.id,
                PolicyDocument=new["PolicyDocument"],
                SetAsDefault=True,
            )
        self._attach(c, old.get("Roles", []), new.get("Roles", []))

    def _attach(self, c: Context, old: list[str], new: list[str]) -> None:
        for role in set(old) - set(new):
            c.call("iam", "detach_role_policy", RoleName=role, PolicyArn=c.id)
        for role in set(new) - set(old):
            c.call("iam", "attach_role_policy", RoleName=role, PolicyArn=c.id)

    def delete(self, c: Context, p: Properties) -> None:
        """Detach and delete it."""
        self._attach(c, p.get("Roles", []), [])
        for version in c.call("iam", "list_policy_versions", PolicyArn=c.id)["Versions"]:
            if not version["IsDefaultVersion"]:
                c.call("iam", "delete_policy_version", PolicyArn=c.id, VersionId=version["VersionId"])
        c.call("iam", "delete_policy", PolicyArn=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"PolicyArn": c.id}


class InstanceProfile(
    Type, type="AWS::IAM::InstanceProfile", properties="Roles", immutable="InstanceProfileName Path"
):
    """What gives an instance its role."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it around its role."""
        name = p.get("InstanceProfileName") or c.name(128)
        c.call("iam", "create_instance_profile", InstanceProfileName=name, Path=p.get("Path"))
        c.created(name)
        for role in p["Roles"]:
            c.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=role)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Exchange its role."""
        for role in old["Roles"]:
            c.call("iam", "remove_role_from_instance_profile", InstanceProfileName=c.id, RoleName=role)
        for role in new["Roles"]:
            c.call("iam", "add_role_to_instance_profile", InstanceProfileName=c.id, RoleName=role)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        for role in p["Roles"]:
            c.call("iam", "remove_role_from_instance_profile", InstanceProfileName=c.id, RoleName=role)
        c.call("iam", "delete_instance_profile", InstanceProfileName=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        profile = c.call("iam", "get_instance_profile", InstanceProfileName=c.id)["InstanceProfile"]
        return {"Arn": profile["Arn"]}


class Key(
    Type,
    type="AWS::KMS::Key",
    properties="Description EnableKeyRotation KeyPolicy PendingWindowInDays Tags",
    immutable="KeySpec KeyUsage MultiRegion",
):
    """A key."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "kms",
            "create_key",
            Policy=p.get("KeyPolicy"),
            Description=p.get("Description"),
            KeySpec=p.get("KeySpec"),
            KeyUsage=p.get("KeyUsage"),
            MultiRegion=p.get("MultiRegion"),
            Tags=[{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags(p, own=True)],
        )
        c.created(answer["KeyMetadata"]["KeyId"])
        self._rotate(c, p)

    def _rotate(self, c: Context, p: Properties) -> None:
        verb = "enable" if p.get("EnableKeyRotation") in (True, "true") else "disable"
        c.call("kms", f"{verb}_key_rotation", KeyId=c.id)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change policy, description, rotation and tags."""
        if "KeyPolicy" in new:
            c.call("kms", "put_key_policy", KeyId=c.id, PolicyName="default", Policy=new["KeyPolicy"])
        c.call("kms", "update_key_description", KeyId=c.id, Description=new.get("Description", ""))
        self._rotate(c, new)
        if own := tags(new, own=True):
            entries = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in own]
            c.call("kms", "tag_resource", KeyId=c.id, Tags=entries)

    def delete(self, c: Context, p: Properties) -> None:
        """Schedule its deletion."""
        window = p.get("PendingWindowInDays", 30)
        c.call("kms", "schedule_key_deletion", KeyId=c.id, PendingWindowInDays=window)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        arn = f"arn:aws:kms:{c.world.region}:{c.world.account}:key/{c.id}"
        return {"Arn": arn, "KeyId": c.id}


class Alias(Type, type="AWS::KMS::Alias", properties="TargetKeyId", immutable="AliasName"):
    """A key's name."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        c.call("kms", "create_alias", **p)
        c.created(p["AliasName"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Point it to another key."""
        c.call("kms", "update_alias", **new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("kms", "delete_alias", AliasName=c.id)


# What a password is made of, and the option that leaves it out.
_ALPHABETS = {
    "ExcludeLowercase": string.ascii_lowercase,
    "ExcludeUppercase": string.ascii_uppercase,
    "ExcludeNumbers": string.digits,
    "ExcludePunctuation": string.punctuation,
}
_GENERATE = {
    *_ALPHABETS,
    "ExcludeCharacters",
    "GenerateStringKey",
    "IncludeSpace",
    "PasswordLength",
    "RequireEachIncludedType",
    "SecretStringTemplate",
}


class Secret(
    Type,
    type="AWS::SecretsManager::Secret",
    properties="Description GenerateSecretString KmsKeyId SecretString Tags",
    immutable="Name",
):
    """A secret, generated once."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it with a generated or given value."""
        answer = c.call(
            "secretsmanager",
            "create_secret",
            Name=p.get("Name") or c.name(512),
            Description=p.get("Description"),
            KmsKeyId=p.get("KmsKeyId"),
            SecretString=_secret_value(p),
            Tags=tags(p),
        )
        c.created(answer["ARN"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change it; a changed rule of generation makes a new value, as on AWS."""
        value = None
        if changes(old, new) & {"GenerateSecretString", "SecretString"}:
            value = _secret_value(new)
        c.call(
            "secretsmanager",
            "update_secret",
            SecretId=c.id,
            Description=new.get("Description"),
            KmsKeyId=new.get("KmsKeyId"),
            SecretString=value,
        )
        if tags(new):
            c.call("secretsmanager", "tag_resource", SecretId=c.id, Tags=tags(new))

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it at once, as CloudFormation does."""
        c.call("secretsmanager", "delete_secret", SecretId=c.id, ForceDeleteWithoutRecovery=True)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Id": c.id}


def _secret_value(p: Properties) -> str | None:
    generate = p.get("GenerateSecretString")
    if generate is None:
        return p.get("SecretString")
    if unknown := sorted(generate.keys() - _GENERATE):
        raise ResourceError(f"GenerateSecretString has no {', '.join(unknown)}")
    password = random_password(generate)
    if "SecretStringTemplate" not in generate:
        return password
    return json.dumps(
        {**json.loads(generate["SecretStringTemplate"]), generate["GenerateStringKey"]: password}
    )


def random_password(options: Properties) -> str:
    """A password.

    Args:
        options: As GetRandomPassword takes them, which moto cannot if a kind of characters is all excluded.

    Raises:
        ResourceError: A kind of characters is required but all excluded, or there are none left.
    """

    def chosen(name: str, default: bool = False) -> bool:
        return str(options.get(name, default)).lower() == "true"

    excluded = options.get("ExcludeCharacters", "")
    kinds = [alphabet for option, alphabet in _ALPHABETS.items() if not chosen(option)]
    if chosen("IncludeSpace"):
        kinds.append(" ")
    kinds = ["".join(character for character in kind if character not in excluded) for kind in kinds]
    required = kinds if chosen("RequireEachIncludedType", True) else []
    length = int(options.get("PasswordLength", 32))
    if not "".join(kinds) or not all(required) or len(required) > length:
        raise ResourceError("The password's options leave no characters of a kind that it must have")
    first = [secrets.choice(kind) for kind in required]
    rest = [secrets.choice("".join(kinds)) for _ in range(length - len(first))]
    return "".join(secrets.SystemRandom().sample(first + rest, length))
