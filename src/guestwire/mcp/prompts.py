"""Prompts: how to go about the usual jobs."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PromptText:
    """One prompt; `{guest}` stands for the guest's name."""

    name: str
    description: str
    text: str


PROMPTS: Final = {
    prompt.name: prompt
    for prompt in (
        PromptText(
            "disk_full",
            "Find out what fills a guest's disk",
            "Find out why a disk of guest {guest} is full. Begin with guest_overview. If commands are allowed, narrow it down with"
            " df -h, df -i and du -xh --max-depth=1 on the full file system, largest first. Change and delete nothing: say what takes"
            " the space, what could go, and the commands for it.",
        ),
        PromptText(
            "service_down",
            "Find out why a service in a guest does not work",
            "A service in guest {guest} does not work. Ask me which if I have not said it. Look at its state and the last lines of its log"
            " (systemctl status, journalctl -u NAME -n 100 --no-pager), then at disks, memory and addresses. Say the cause and the smallest"
            " repair, and wait for my word before you do it.",
        ),
        PromptText(
            "before_snapshot",
            "Check that a guest is ready for a snapshot",
            "Check that guest {guest} is ready for a snapshot: the agent answers, no file system is frozen (fsfreeze_status), disks have"
            " room, no package installation runs. Freeze nothing. Say what to wait for, if anything.",
        ),
        PromptText(
            "hardening_check",
            "Look at a guest as an auditor would",
            "Check guest {guest} without changing anything: version of the system, who is logged in, listening ports, users with a shell,"
            " sudo rules, SSH settings, pending updates. Use only what the policy allows, and say what you could not see. List findings by"
            " weight, each with the evidence.",
        ),
    )
}
