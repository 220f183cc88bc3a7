"""`./dev bench [--quick] [--only vm|sandbox|client|assistants|libvirt|live] [--json | --markdown]`."""

import argparse
import asyncio
import shutil
import sys
from typing import Final

from rich.console import Console

from bench import assistants, client, in_libvirt, in_sandbox, in_vm, live
from bench.errors import BenchError
from bench.results import Row, as_json, as_markdown, machine_facts, show
from bench.timing import FULL, QUICK, Effort
from devtools.guests import accelerator, build, build_debian, default_cache
from devtools.libvirt_host import why_not as libvirt_why_not
from guestwire.errors import GuestwireError
from guestwire.testing.sandbox import missing_programs

PACKAGES: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-ga": "qemu-guest-agent",
    "bwrap": "bubblewrap",
}
"""Debian's, by program."""


def main() -> None:
    """Measures and prints; a target that is missed is no error."""
    options = _options()
    try:
        facts, rows = asyncio.run(_measure(QUICK if options.quick else FULL, options.only))
    except KeyboardInterrupt:
        sys.exit(130)
    except GuestwireError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if options.json:
        print(as_json(facts, rows))
    elif options.markdown:
        print(as_markdown(facts, rows))
    else:
        show(Console(width=None if sys.stdout.isatty() else 160), facts, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Measures guestwire over HTTPS against the guest agent's own socket."
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument(
        "--only",
        choices=("vm", "sandbox", "client", "assistants", "libvirt", "live"),
        help="only the service with real VMs, or with agents in sandboxes; or only the client, the MCP server, libvirt, or SSH",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print tables for a document")
    return parser.parse_args()


async def _measure(effort: Effort, only: str | None) -> tuple[dict[str, str], list[Row]]:
    rows: list[Row] = []
    accel = None
    _check_programs(only)
    if only in (None, "vm", "client"):
        _say("two VMs boot")
        image = await asyncio.to_thread(build, default_cache())
        accel = await accelerator(image)
        if only != "client":
            rows += await in_vm.measure(image, accel, effort)
        if only != "vm":
            rows += await client.measure_in_vm(image, accel, effort)
    if only in (None, "sandbox"):
        _say("agents in sandboxes")
        rows += await in_sandbox.measure(effort)
    if only in (None, "client"):
        _say("the client")
        rows += await client.measure(effort)
    if only in (None, "assistants"):
        _say("the MCP server")
        rows += await assistants.measure(effort)
    if only in (None, "libvirt") and not (reason := libvirt_why_not()):
        _say("VMs in libvirt boot")
        rows += await in_libvirt.measure(await asyncio.to_thread(build, default_cache()), effort)
    elif only == "libvirt":
        raise BenchError(reason)
    if only in (None, "live"):
        _say("a Debian guest boots")
        debian = await asyncio.to_thread(build_debian, default_cache())
        accel = accel or await accelerator(debian)
        rows += await live.measure(debian, accel)
    return machine_facts(accel), rows


def _check_programs(only: str | None) -> None:
    missing = missing_programs() if only not in ("vm", "libvirt", "live") else []
    if only in (None, "vm", "client", "live") and not shutil.which("qemu-system-x86_64"):
        missing.append("qemu-system-x86_64")
    if missing:
        packages = " ".join(PACKAGES[program] for program in missing)
        raise BenchError(f"missing: {', '.join(missing)}; Debian has them in: {packages}")


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
