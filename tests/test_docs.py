"""What the documentation says is so: its code runs, its links lead somewhere, and what is public stands in it."""

import asyncio
import configparser
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serving import Serving

from guestwire.contract.reference import reference
from guestwire.contract.registry import ENDPOINTS
from guestwire.inventory import ServerConfig, VmConfig, read_config
from guestwire.testing import SandboxedAgent

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS, STATE_DIR = "127.0.0.1:8006", "/var/lib/guestwire"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Serving]:
    """A server as README configures it, with a real agent; only port and folders are others."""
    text = next(block for block in blocks(README, "toml"))

    def config(folder: Path, port: int) -> str:
        text_here = text.replace(ADDRESS, f"127.0.0.1:{port}").replace(STATE_DIR, f"{folder}/state")
        return re.sub(r"^qmp = .*$", "running = true", text_here.replace("/run/vm", str(folder)), flags=re.MULTILINE)

    async with Serving.of(config) as server, SandboxedAgent(server.folder / "100.qga", name="web"):
        yield server


async def run(served: Serving, *command: str, code: str) -> str:
    code = code.replace(ADDRESS, f"127.0.0.1:{served.port}").replace(STATE_DIR, f"{served.folder}/state")
    process = await asyncio.create_subprocess_exec(
        *command, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def block_with(language: str, word: str) -> str:
    return next(block for block in blocks(README, language) if word in block)


@pytest.mark.agent
async def test_the_curl_command_of_readme_works(served: Serving) -> None:
    assert '"pretty-name":' in await run(served, "sh", code=block_with("sh", "curl"))


@pytest.mark.agent
async def test_the_python_code_of_readme_works(served: Serving) -> None:
    assert (await run(served, sys.executable, code=block_with("python", "connect_sync"))).strip()


@pytest.mark.agent
async def test_the_command_of_readme_works(served: Serving) -> None:
    code = f'guestwire() {{ {sys.executable} -m guestwire "$@"; }}\n' + block_with("sh", "GUESTWIRE_HOST")

    assert "kernel" in await run(served, "sh", code=code)


@pytest.mark.parametrize("command", ["./dev demo", "./dev test"])
def test_readme_names_the_commands_that_dev_has(command: str) -> None:
    assert f"{command}\n" in blocks(README, "sh")
    assert re.search(rf"^    {command.removeprefix('./dev ')}\) setup", (ROOT / "dev").read_text(), re.MULTILINE)


def test_ci_runs_the_test_command_of_readme() -> None:
    assert "./dev test\n" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_in_the_documentation_can_be_used(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert read_config(path).vm


def test_every_key_of_the_configuration_is_documented() -> None:
    text = "\n".join(blocks(ROOT / "docs" / "serving.md", "toml"))
    for key in (*ServerConfig.__struct_fields__, *VmConfig.__struct_fields__):
        assert re.search(rf"^{key} = ", text, re.MULTILINE), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_reference_of_endpoints_is_fresh() -> None:
    assert (ROOT / "docs" / "endpoints.md").read_text() == reference(ENDPOINTS), "run ./dev docs"


def test_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for package in (ROOT / "src" / "guestwire").glob("*/__init__.py"):
        assert f"{package.parent.name}/" in text, package.parent.name


def test_the_systemd_unit_starts_what_there_is() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "systemd" / "guestwire.service")

    assert unit["Service"]["Type"] == "notify"
    assert re.fullmatch(r"\S+/guestwire serve --config \S+\.toml", unit["Service"]["ExecStart"])
    assert unit["Service"]["ExecReload"].startswith("/bin/kill -HUP")
