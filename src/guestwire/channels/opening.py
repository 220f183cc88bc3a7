"""The channel for an address."""

from guestwire.addresses import AgentAddress, HybridVsockAddress, UnixAddress
from guestwire.channels.stream import StreamChannel
from guestwire.channels.unix import UnixChannel
from guestwire.channels.vsock import HybridVsockChannel, VsockChannel


def open_channel(address: AgentAddress, guest: str) -> StreamChannel:
    """Makes the channel that reaches an address; where an event loop runs. It must be closed.

    Args:
        address: where the agent is.
        guest: how messages name the guest, for example `VM 100`.
    """
    match address:
        case UnixAddress():
            return UnixChannel(address.path, guest)
        case HybridVsockAddress():
            return HybridVsockChannel(address, guest)
        case _:
            return VsockChannel(address, guest)
