"""For tests, ours and others': a fake guest that speaks the real bytes, its faults, and real agents in sandboxes."""

from guestwire.testing.fake import CLOSE, Exchange, FakeGuest, Fault
from guestwire.testing.sandbox import SandboxedAgent, missing_programs

__all__ = ["CLOSE", "Exchange", "FakeGuest", "Fault", "SandboxedAgent", "missing_programs"]
