"""A small real guest: built from the distribution's packages, booted with QEMU; for the demo, the tests and the benchmarks."""

from guestwire.guests.accelerator import accelerator
from guestwire.guests.image import GuestImage, build, default_cache
from guestwire.guests.machine import Machine

__all__ = ["GuestImage", "Machine", "accelerator", "build", "default_cache"]
