"""guestwire reaches inside any QEMU virtual machine through its guest agent."""

from guestwire._lazy import __dir__ as __dir__
from guestwire._lazy import __getattr__ as __getattr__
