"""guestwire reaches inside any QEMU virtual machine through its guest agent."""

from guestwire.handed_on import __getattr__ as __getattr__

__version__ = "0.1.0"
