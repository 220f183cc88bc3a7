"""KVM or emulation: KVM only where a guest has really booted with it, for the device alone proves nothing."""

import asyncio
import hashlib
import platform
import tempfile
from pathlib import Path
from typing import Final

from devtools.guests.image import GuestImage, default_cache
from devtools.guests.machine import EMULATION, KVM, Machine
from guestwire.errors import GuestImageError

DEVICE: Final = Path("/dev/kvm")

PROOF_TIMEOUT: Final = 10.0
"""Seconds for a guest to come up; with KVM it takes one or two."""

_trying = asyncio.Lock()


async def accelerator(image: GuestImage, cache: Path | None = None) -> str:
    """`kvm` or `tcg`; the verdict is kept in `cache` for this kernel and machine."""
    if not DEVICE.exists():
        return EMULATION
    verdict = (cache or default_cache()) / f"accelerator-{_key()}"
    async with _trying:
        known = _read(verdict)
        if known is None:
            known = KVM if await _boots(image) else EMULATION
            _write(verdict, known)
    return known


def _read(verdict: Path) -> str | None:
    return verdict.read_text() if verdict.exists() else None


def _write(verdict: Path, known: str) -> None:
    verdict.parent.mkdir(parents=True, exist_ok=True)
    verdict.write_text(known)


def _key() -> str:
    return hashlib.sha256(" ".join((platform.release(), platform.node(), platform.version())).encode()).hexdigest()[:12]


async def _boots(image: GuestImage) -> bool:
    with tempfile.TemporaryDirectory(prefix="gw-kvm-") as folder:
        machine = Machine(image, Path(folder), accel=KVM)
        try:
            await machine.start()
            await machine.wait_for_agent(PROOF_TIMEOUT)
        except GuestImageError:
            return False
        finally:
            await machine.stop()
    return True
