"""Agents through libvirt: a real daemon, real QEMU, and real agents behind the domains' channels."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
from libvirt_host import LibvirtHost
from waiting import until, until_succeeds

from guestwire.agent import commands as qga
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import ChannelState, GuestEvent
from guestwire.channels.libvirt import LIMITS, READ_ONLY, Libvirt, LibvirtChannel
from guestwire.errors import AgentError, AgentNotRunning, CommandFailed
from guestwire.testing import SandboxedAgent, channel_checks
from guestwire.testing.channels import ChannelCheck
from guestwire.wire import Command

pytestmark = [pytest.mark.agent, pytest.mark.guest]


@pytest.fixture
async def libvirt(libvirt_host: LibvirtHost) -> AsyncIterator[Libvirt]:
    libvirt = Libvirt(libvirt_host.uri)
    yield libvirt
    libvirt.close()


@pytest.fixture
async def web(libvirt: Libvirt, libvirt_host: LibvirtHost, libvirt_web: SandboxedAgent) -> AsyncIterator[LibvirtChannel]:
    channel = LibvirtChannel(libvirt, libvirt_host.uuid("web"), "VM 100")
    await until_succeeds(lambda: channel.execute(qga.PING.command))
    yield channel
    await channel.close()


@pytest.mark.parametrize("check", channel_checks(), ids=lambda check: check.__name__)
async def test_a_libvirt_channel_passes_the_checks(
    check: ChannelCheck, libvirt: Libvirt, libvirt_host: LibvirtHost, libvirt_web: SandboxedAgent
) -> None:
    await check(lambda: LibvirtChannel(libvirt, libvirt_host.uuid("web"), "VM 100"), libvirt_web)
