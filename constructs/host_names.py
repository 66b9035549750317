"""The table in which worker hosts lease their names."""

from __future__ import annotations

from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct
from constructs.acknowledged import acknowledge


class HostNames(Construct):
    """The table; DynamoDB encrypts it, as it does every table.

    It may be emptied at any time: running hosts write their leases again.

    Attributes:
        table: its name.
        arn: its ARN.
    """

    table: str
    arn: str

    def __init__(self, scope: Construct, id: str) -> None:
        super().__init__(scope, id)
        keys = {"fleet": ("S", "HASH"), "number": ("N", "RANGE")}
        table = dynamodb.CfnTable(
            self,
            "Table",
            billing_mode="PAY_PER_REQUEST",
            attribute_definitions=[
                dynamodb.CfnTable.AttributeDefinitionProperty(attribute_name=name, attribute_type=type)
                for name, (type, _) in keys.items()
            ],
            key_schema=[
                dynamodb.CfnTable.KeySchemaProperty(attribute_name=name, key_type=role)
                for name, (_, role) in keys.items()
            ],
        )
        self.table = table.ref
        self.arn = table.attr_arn
        acknowledge(
            table,
            "AwsSolutions::AwsSolutions-DDB3",
            reason="Nothing in it is worth a backup: running hosts write their leases again.",
        )
