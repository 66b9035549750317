"""The resource types; importing this package registers them."""

from localcloud.aws.cloudformation.resources import (
    balancing,
    compute,
    dns,
    identity,
    network,
    operations,
    storage,
    tables,
)

__all__ = ["balancing", "compute", "dns", "identity", "network", "operations", "storage", "tables"]
