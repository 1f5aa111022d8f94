"""How bytes reach the agent: one module for each `--method`."""

from __future__ import annotations

from importlib import import_module

from qga.channels import activation
from qga.policy.caller import Caller
from qga.policy.policy import Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.channels.base import Channel
    from qga.serving.server import Server
    from qga.settings.config import ChannelConfig, Config

_MODULES = {
    "virtio-serial": ("qga.channels.virtio_serial", "VirtioSerial"),
    "isa-serial": ("qga.channels.isa_serial", "IsaSerial"),
    "unix-listen": ("qga.channels.unix_listen", "UnixListen"),
    "vsock-listen": ("qga.channels.vsock_listen", "VsockListen"),
}

METHODS = tuple(_MODULES)


def make_channels(agent: Server, config: Config) -> list[Channel]:
    """The channels of the configuration, not yet open.

    A socket that the service manager passes becomes the main channel, whatever its configured
    method and path. Raises ChannelError if what was passed cannot be served.
    """
    inherited = activation.inherited_socket()
    main, *others = config.channels
    if inherited is not None:
        main = main._replace(
            method=activation.method_of(inherited), path=activation.address_of(inherited)
        )
    channels = [_make_channel(agent, channel) for channel in (main, *others)]
    if inherited is not None:
        channels[0].adopt(inherited)  # type: ignore[attr-defined]
    return channels


def _make_channel(agent: Server, config: ChannelConfig) -> Channel:
    module, name = _MODULES[config.method]
    policy = Policy(config)
    channel: Channel = getattr(import_module(module), name)(
        agent, config, Caller(config.name, policy)
    )
    return channel
