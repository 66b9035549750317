"""moto's EC2 with states that take time: instances and attachments wait for the runtime's report."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any, cast

from moto.core.types import Base64EncodedString
from moto.ec2 import urls
from moto.ec2.models import EC2Backend, ec2_backends, elastic_network_interfaces, launch_templates
from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment
from moto.ec2.models.elastic_network_interfaces import Attachment, NetworkInterface
from moto.ec2.models.instances import Instance, InstanceState, Reservation
from moto.ec2.models.launch_templates import LaunchTemplateVersion
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.general import General

from localcloud.aws.service import Refusal

_moto_register_image = AmisResponse.register_image
# The EC2 user guide: "two minutes before your Spot Instance is stopped or terminated".
INTERRUPTION = timedelta(minutes=2)
# The same: "User data is limited to 16 KB, in raw form, before it is base64-encoded".
_USER_DATA_BYTES = 16384
_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


class _Attachment(Attachment):
    """An attachment with the state that the runtime reported."""

    def __init__(self, eni: Any) -> None:
        super().__init__(eni)
        self.status = eni.attachment_state


class _NetworkInterface(NetworkInterface):
    """An interface whose attachment has a state."""

    attachment_state = "attached"

    @property
    def attachment(self) -> Attachment | None:
        return _Attachment(self) if self.attachment_id else None

    @property
    def group_set(self) -> Any:
        # moto adds the groups of the instance's first interface.
        return self._group_set


# Answers are written by the class's name.
_NetworkInterface.__name__ = "NetworkInterface"


class _LaunchTemplateVersion(LaunchTemplateVersion):
    """A version whose user data an instance can have."""

    def __init__(
        self, template: launch_templates.LaunchTemplate, number: int, data: dict[str, Any], description: str
    ) -> None:
        _check_size(data.get("UserData"), "InvalidUserData.Malformed")
        super().__init__(template, number, data, description)


def _check_size(user_data: Base64EncodedString | str | None, code: str) -> None:
    if user_data is not None and len(base64.b64decode(str(user_data))) > _USER_DATA_BYTES:
        raise Refusal(code, f"User data is limited to {_USER_DATA_BYTES} bytes")


def set_state(instance: Instance, state: str) -> None:
    """Put an instance into a state."""
    instance._state = InstanceState(state, _CODES[state])


class Backend(EC2Backend):
    """EC2 as the runtime and the Auto Scaling groups need it."""

    enis: dict[str, Any]  # of _NetworkInterface

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.reboots: dict[str, int] = {}
        self.consoles: dict[str, bytes] = {}
        self.interruptions: dict[str, datetime] = {}  # when spot instances are reclaimed
        self.rebalances: dict[str, datetime] = {}  # since when they have been at risk of that

    @property
    def _url_module(self) -> ModuleType:
        return urls

    # -- instances

    def run_instances(
        self,
        image_id: str,
        count: int,
        user_data: Base64EncodedString | None,
        security_group_names: list[str],
        **kwargs: Any,
    ) -> Reservation:
        """Instances are pending until the runtime has booted them."""
        if image_id and not self.describe_images(ami_ids=[image_id]):
            raise Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        _check_size(user_data, "InvalidParameterValue")
        reservation = super().run_instances(image_id, count, user_data, security_group_names, **kwargs)
        for instance in reservation.instances:
            set_state(instance, "pending")
            instance.security_groups = list(instance.nics[0]._group_set)
            instance.nics[0].delete_on_termination = True
            if not instance.root_device_name:
                instance.root_device_name = next(iter(instance.block_device_mapping))
            # What is there from the launch on needs no attaching.
            for device in instance.block_device_mapping.values():
                device.status = "in-use"
                _attachment(self.volumes[device.volume_id]).status = "attached"
        return reservation

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        """Instances shut down until the runtime has destroyed them."""
        result = []
        for instance in self.get_multi_instances_by_id(instance_ids):
            before = InstanceState(instance.state, instance.state_code)
            if instance.state == "stopped":
                self.terminated(instance)
            elif instance.state != "terminated":
                set_state(instance, "shutting-down")
            result.append((instance, before))
        return result

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        """Instances are stopping until the runtime has stopped them."""
        return self._move(instance_ids, ("pending", "running"), "stopping", ("stopping", "stopped"))

    def start_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        """Instances are pending until the runtime has booted them again."""
        return self._move(instance_ids, ("stopped",), "pending", ("pending", "running"))

    def _move(
        self, instance_ids: list[str], sources: tuple[str, ...], target: str, fine: tuple[str, ...]
    ) -> list[tuple[Instance, InstanceState]]:
        result = []
        for instance in self.get_multi_instances_by_id(instance_ids):
            before = InstanceState(instance.state, instance.state_code)
            if instance.state in sources:
                set_state(instance, target)
            elif instance.state not in fine:
                raise _incorrect_state(instance)
            result.append((instance, before))
        return result

    def reboot_instances(self, instance_ids: list[str]) -> list[Instance]:
        """Ask the runtime for a reboot."""
        instances = self.get_multi_instances_by_id(instance_ids)
        for instance in instances:
            self.reboots[instance.id] = self.reboots.get(instance.id, 0) + 1
        return instances

    # -- spot: capacity never runs short here, so interruptions come on request

    def announce(self, instance_id: str, now: datetime, *, rebalance: bool) -> None:
        """Tell a spot instance that EC2 reclaims it in two minutes, or that it may soon do so.

        Args:
            instance_id: The instance.
            now: The time.
            rebalance: It is only at risk.

        Raises:
            Refusal: It is not a running spot instance.
        """
        instance = self.get_instance_by_id(instance_id)
        if instance is None or instance.lifecycle != "spot" or instance.state != "running":
            raise Refusal("InvalidInstanceID", f"'{instance_id}' is not a running spot instance.")
        if rebalance:
            self.rebalances.setdefault(instance_id, now)
        else:
            self.interruptions.setdefault(instance_id, now + INTERRUPTION)

    def step(self, now: datetime) -> bool:
        """Reclaim the spot instances whose time has come; return whether there were any."""
        due = [
            instance.id
            for instance in self.all_instances()
            if instance.state in ("pending", "running")
            and instance.id in self.interruptions
            and self.interruptions[instance.id] <= now
        ]
        if due:
            self.terminate_instances(due)
        return bool(due)

    def stopped(self, instance: Instance) -> None:
        """The machine has ended: by order, or by itself, upon which the instance may have to terminate."""
        by_itself = instance.state in ("pending", "running")
        if instance.state == "shutting-down" or (
            by_itself and instance.instance_initiated_shutdown_behavior == "terminate"
        ):
            self.terminated(instance)
        elif instance.state != "terminated":
            set_state(instance, "stopped")

    def terminated(self, instance: Instance) -> None:
        """The machine is gone: its root volume and own interface go with it, all else is detached."""
        if instance.state == "terminated":
            return
        set_state(instance, "shutting-down")
        interfaces: dict[int, Any] = dict(instance.nics)
        for index, interface in interfaces.items():
            if index != 0:
                interface.attachment_state = "attached"
                instance.detach_eni(interface)
        for device in list(instance.block_device_mapping.values()):
            volume = self.volumes[device.volume_id]
            if not device.delete_on_termination:
                super().detach_volume(volume.id, instance.id, _attachment(volume).device)
        instance.terminate()

    # -- volumes

    def attach_volume(
        self,
        volume_id: str,
        instance_id: str,
        device_path: str,
        delete_on_termination: bool = False,
    ) -> Any:
        """A volume is attaching until the runtime has attached it."""
        volume, instance = self.get_volume(volume_id), self.get_instance(instance_id)
        if volume.attachment:
            raise Refusal("VolumeInUse", f"{volume_id} is already attached to an instance")
        if volume.availability_zone != instance.availability_zone:
            raise Refusal(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
            )
        if instance.state not in ("running", "stopped"):
            raise Refusal("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
        if device_path in instance.block_device_mapping:
            raise Refusal(
                "InvalidParameterValue",
                f"Invalid value '{device_path}' for unixDevice. Attachment point {device_path} is already in "
                "use",
            )
        super().attach_volume(volume_id, instance_id, device_path, delete_on_termination)
        attachment = _attachment(volume)
        if instance.state != "stopped":
            attachment.status = instance.block_device_mapping[device_path].status = "attaching"
        return attachment

    def detach_volume(self, volume_id: str, instance_id: str, device_path: str) -> Any:
        """A data volume is detaching until the runtime has detached it."""
        volume = self.get_volume(volume_id)
        if volume.attachment is None or (instance_id and volume.attachment.instance.id != instance_id):
            raise Refusal("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
        attachment, instance = volume.attachment, volume.attachment.instance
        if instance.state in ("shutting-down", "terminated", "stopped"):
            return super().detach_volume(volume_id, instance.id, attachment.device)
        if attachment.device == instance.root_device_name:
            raise Refusal(
                "OperationNotPermitted",
                f"Unable to detach root volume '{volume_id}' from instance '{instance.id}'",
            )
        attachment.status = instance.block_device_mapping[attachment.device].status = "detaching"
        return attachment

    def volume_attached(self, volume_id: str) -> None:
        """The runtime has attached a volume."""
        volume = self.volumes.get(volume_id)
        if volume and volume.attachment and volume.attachment.status == "attaching":
            attachment = volume.attachment
            attachment.status = "attached"
            attachment.instance.block_device_mapping[attachment.device].status = "in-use"

    def volume_detached(self, volume_id: str) -> None:
        """The runtime has detached a volume."""
        volume = self.volumes.get(volume_id)
        if volume and volume.attachment and volume.attachment.status == "detaching":
            super().detach_volume(volume_id, volume.attachment.instance.id, volume.attachment.device)

    # -- interfaces

    def create_network_interface(
        self, subnet: Any, private_ip_address: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Its address is reserved in its subnet, as moto does only for an instance's first one."""
        if isinstance(subnet, str):
            subnet = self.get_subnet(subnet)
        own = kwargs.get("description") == "Primary network interface" or "device_index" in kwargs
        if not own:
            # Without further arguments, the caller is moto itself, with an address that it made up.
            if not private_ip_address or not (args or kwargs):
                private_ip_address = subnet.get_available_subnet_ip(None)
            elif private_ip_address in subnet._subnet_ips:
                raise Refusal("InvalidIPAddress.InUse", f"Address {private_ip_address} is in use.")
            else:
                try:
                    subnet.request_ip(private_ip_address, None)
                except Exception as error:
                    raise Refusal(
                        "InvalidParameterValue", f"Address {private_ip_address}: {error}."
                    ) from error
        return super().create_network_interface(subnet, private_ip_address, *args, **kwargs)

    def delete_network_interface(self, eni_id: str) -> None:
        """One that is attached cannot be deleted."""
        interface = self.get_network_interface(eni_id)
        if interface.instance is not None and interface.instance.state not in ("shutting-down", "terminated"):
            raise Refusal(
                "InvalidParameterValue",
                f"Network interface '{eni_id}' is currently in use and cannot be deleted.",
            )
        super().delete_network_interface(eni_id)
        if interface.private_ip_address in interface.subnet._subnet_ips:
            interface.subnet.del_subnet_ip(interface.private_ip_address)

    def attach_network_interface(self, eni_id: str, instance_id: str, device_index: int) -> Attachment:
        """It is attaching until the runtime has attached it."""
        interface: Any = self.get_network_interface(eni_id)
        instance = self.get_instance(instance_id)
        if interface.instance is not None:
            raise Refusal("InvalidNetworkInterface.InUse", f"Interface: [{eni_id}] in use.")
        if instance.state not in ("running", "stopped"):
            raise _incorrect_state(instance)
        if int(device_index) in instance.nics:
            raise Refusal(
                "InvalidParameterValue",
                f"Instance '{instance_id}' already has an interface attached at device index "
                f"'{device_index}'.",
            )
        if interface.availability_zone != instance.availability_zone:
            raise Refusal(
                "InvalidParameterCombination",
                "You may not attach a network interface to an instance if they are not in the same zone",
            )
        interface.attachment_state = "attaching"
        return super().attach_network_interface(eni_id, instance_id, int(device_index))

    def detach_network_interface(self, attachment_id: str) -> None:
        """It is detaching until the runtime has detached it."""
        for interface in self.enis.values():
            if interface.attachment_id == attachment_id:
                break
        else:
            raise Refusal("InvalidAttachmentID.NotFound", f"The attachment '{attachment_id}' does not exist")
        if interface.device_index == 0:
            raise Refusal(
                "OperationNotPermitted", "The network interface at device index 0 cannot be detached."
            )
        interface.attachment_state = "detaching"

    def interface_attached(self, eni_id: str) -> None:
        """The runtime has attached an interface."""
        interface = self.enis.get(eni_id)
        if interface and interface.attachment_id and interface.attachment_state == "attaching":
            interface.attachment_state = "attached"

    def interface_detached(self, eni_id: str) -> None:
        """The runtime has detached an interface."""
        interface = self.enis.get(eni_id)
        if interface and interface.instance and interface.attachment_state == "detaching":
            interface.instance.detach_eni(interface)


def _attachment(volume: Volume) -> VolumeAttachment:
    if volume.attachment is None:
        raise Refusal("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    return volume.attachment


def _incorrect_state(instance: Instance) -> Refusal:
    return Refusal(
        "IncorrectInstanceState", f"The instance '{instance.id}' is in the '{instance.state}' state."
    )


def _get_console_output(self: General) -> Any:
    from moto.core.responses import ActionResult
    from moto.core.utils import utcnow

    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    output = base64.b64encode(self.ec2_backend.consoles.get(instance.id, b""))
    return ActionResult(
        {
            "InstanceId": instance.id,
            "Timestamp": utcnow(),
            "Output": Base64EncodedString.from_encoded_bytes(output),
        }
    )


def _register_image(self: AmisResponse) -> Any:
    answer = _moto_register_image(self)
    image = self.ec2_backend.amis[cast(Any, answer.result)["ImageId"]]
    image.architecture = self._get_param("Architecture", "x86_64")
    # If none is named, the root device is the first that the launch maps.
    image.root_device_name = self._get_param("RootDeviceName")
    return answer


def install() -> None:
    """Put this EC2 in the place of moto's, which must not have been used yet."""
    ec2_backends.clear()
    ec2_backends.backend = Backend
    elastic_network_interfaces.NetworkInterface = _NetworkInterface  # type: ignore[misc]
    launch_templates.LaunchTemplateVersion = _LaunchTemplateVersion  # type: ignore[misc]
    AmisResponse.register_image = _register_image  # type: ignore[method-assign]
    General.get_console_output = _get_console_output  # type: ignore[method-assign]


def backend(account: str, region: str) -> Backend:
    """The region's EC2."""
    return cast(Backend, ec2_backends[account][region])
