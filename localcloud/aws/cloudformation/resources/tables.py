"""AWS::DynamoDB::Table."""

from __future__ import annotations

from typing import Any

from localcloud.aws.cloudformation.types import Context, Properties, Type, tags


class Table(
    Type,
    type="AWS::DynamoDB::Table",
    properties="Tags",
    immutable="AttributeDefinitions BillingMode KeySchema TableName",
):
    """A table without indexes."""

    def refused(self, p: Properties) -> str | None:
        """Provisioned throughput is not supported here."""
        if p.get("BillingMode") != "PAY_PER_REQUEST":
            return "The local cloud has no tables but those with BillingMode PAY_PER_REQUEST"
        return super().refused(p)

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        name = p.get("TableName") or c.name(255)
        more = {key: value for key, value in p.items() if key not in ("TableName", "Tags")}
        c.call("dynamodb", "create_table", TableName=name, Tags=tags(p, own=True) or None, **more)
        c.created(name)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it, with all that it holds."""
        c.call("dynamodb", "delete_table", TableName=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Arn": c.call("dynamodb", "describe_table", TableName=c.id)["Table"]["TableArn"]}
