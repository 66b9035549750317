"""This host: its document, its paths, and what AWS knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from userdata.host import aws, document
from userdata.host.document import Document
from userdata.host.errors import HostError
from userdata.host.layout import Layout
from userdata.host.metadata import Metadata


@dataclass(frozen=True)
class Host:
    """This instance, and what it knows about itself.

    Attributes:
        document: what its launch template says.
        layout: where things are.
        instance: its ID.
        instance_type: its type.
        address: its own private address (not the fixed interface's).
        client: makes a client for an AWS service's name.
    """

    document: Document
    layout: Layout
    instance: str
    instance_type: str
    address: str
    client: Callable[[str], Any]

    @property
    def name(self) -> str:
        """The host name; a worker's is the leased one, see :mod:`userdata.host.names`.

        Raises:
            HostError: the worker has none yet.
        """
        if self.document.worker is None:
            return f"openqa-{self.document.environment}-{self.document.role}"
        try:
            return self.layout.name.read_text(encoding="ascii")
        except OSError as error:
            raise HostError(f"host name: cannot read {self.layout.name}: {error.strerror}") from error


def this_host(layout: Layout, metadata: Metadata) -> Host:
    """Reads the document and the instance metadata.

    Raises:
        HostError: one of them cannot be read.
    """
    read = document.load(layout.document)
    return Host(
        document=read,
        layout=layout,
        instance=metadata.get("instance-id"),
        instance_type=metadata.get("instance-type"),
        address=metadata.get("local-ipv4"),
        client=lambda service: aws.client(service, read.region),
    )
