"""guestwire reaches inside any QEMU virtual machine through its guest agent."""

__version__ = "0.1.0"
