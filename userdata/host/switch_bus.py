"""The switch on the system bus."""

from __future__ import annotations

from jeepney import HeaderFields, Message, MessageType, message_bus, new_error, new_method_return
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from userdata.host import switch
from userdata.host.errors import HostError
from userdata.host.switch import Call, Switch
from userdata.host.tap import TapNetwork

_PRIMARY_OWNER = 1
_DO_NOT_QUEUE = 4


def serve(network: TapNetwork) -> None:
    """Installs the bridge's flows, takes the switch's bus name and answers calls forever.

    Args:
        network: the host's network.

    Raises:
        HostError: Open vSwitch refused the flows, or the name is taken.
    """
    switch.install_flows(
        bridge=network.bridge, address=network.address.ip, rewrite=network.rewrite, mac=network.mac
    )
    served = Switch(network.bridge)
    with open_dbus_connection(bus="SYSTEM") as connection:
        reply = connection.send_and_get_reply(message_bus.RequestName(switch.NAME, _DO_NOT_QUEUE))
        if reply.body[0] != _PRIMARY_OWNER:
            raise HostError(f"the system bus refuses us the name {switch.NAME}: {reply.body[0]}")
        while True:
            _answer(connection, connection.receive(), served)


def _answer(connection: DBusConnection, message: Message, served: Switch) -> None:
    fields = message.header.fields
    if message.header.message_type is not MessageType.method_call:
        return
    reply = served.answer(
        Call(
            interface=fields.get(HeaderFields.interface),
            member=fields[HeaderFields.member],
            signature=fields.get(HeaderFields.signature, ""),
            body=message.body,
        )
    )
    if reply.error is None:
        connection.send(new_method_return(message, reply.signature, reply.body))
    else:
        connection.send(new_error(message, reply.error, reply.signature, reply.body))
