"""For tests, ours and others': guests, agents and checks.

There is a fake guest that speaks the real bytes, with its faults; there are real agents in sandboxes, and conformance
checks.
"""

from guestwire.testing.channels import channel_checks, check_channel
from guestwire.testing.fake import CLOSE, Action, CommandError, Exchange, FakeGuest, Fault
from guestwire.testing.sandbox import SandboxedAgent, missing_programs

__all__ = [
    "CLOSE",
    "Action",
    "CommandError",
    "Exchange",
    "FakeGuest",
    "Fault",
    "SandboxedAgent",
    "channel_checks",
    "check_channel",
    "missing_programs",
]
