"""What the documentation says is so: its code runs, its links lead somewhere, and what is public stands in it."""

import asyncio
import configparser
import importlib
import json
import os
import pkgutil
import platform
import re
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from serving import Serving

import guestwire.client
from guestwire.channels.agent_port import qemu_options
from guestwire.client import CallFailed
from guestwire.client.generate import asynchronous
from guestwire.client.settings import settings_for
from guestwire.contract.openapi import openapi
from guestwire.contract.reference import reference
from guestwire.contract.registry import ENDPOINTS
from guestwire.inventory import ServerConfig, SourceConfig, VmConfig, read_config
from guestwire.mcp.tools.endpoints import endpoint_tools
from guestwire.testing import FakeGuest, SandboxedAgent

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CLIENT = ROOT / "docs" / "client.md"
ANSIBLE = ROOT / "docs" / "ansible.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS, STATE_DIR = "127.0.0.1:8006", "/var/lib/guestwire"
SECOND = '\n[[vm]]\nvmid = 101\nname = "db"\nagent = "unix:{folder}/101.qga"\nrunning = true\n'
FREEZING = {"guest-fsfreeze-freeze": 2, "guest-fsfreeze-thaw": 2, "guest-fsfreeze-status": "thawed"}
"""What `db` answers: a sandboxed agent freezes nothing."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Serving]:
    """A server as README configures it, with a real agent; only port and folders are others."""
    text = next(block for block in blocks(README, "toml"))

    def config(folder: Path, port: int) -> str:
        text_here = text.replace(ADDRESS, f"127.0.0.1:{port}").replace(STATE_DIR, f"{folder}/state")
        text_here += SECOND.replace("{folder}", str(folder))
        return re.sub(r"^qmp = .*$", "running = true", text_here.replace("/run/vm", str(folder)), flags=re.MULTILINE)

    async with Serving.of(config) as server, SandboxedAgent(server.folder / "100.qga", name="web"):
        yield server


def here(served: Serving, text: str) -> str:
    """The text with the server's own port and folder."""
    return text.replace(ADDRESS, f"127.0.0.1:{served.port}").replace(STATE_DIR, f"{served.folder}/state")


async def run(served: Serving, *command: str, code: str, within: float = 30.0) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        "-c",
        here(served, code),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=served.folder,
    )
    async with asyncio.timeout(within):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def run_commands(served: Serving, code: str) -> str:
    return await run(served, "sh", code=f'set -e\nguestwire() {{ {sys.executable} -m guestwire "$@"; }}\n{code}')


def block_with(language: str, word: str, page: Path = README) -> str:
    return next(block for block in blocks(page, language) if word in block)


@pytest.mark.agent
async def test_the_curl_command_of_readme_works(served: Serving) -> None:
    assert '"pretty-name":' in await run(served, "sh", code=block_with("sh", "curl"))


@pytest.mark.agent
async def test_the_python_code_of_readme_works(served: Serving) -> None:
    assert (await run(served, sys.executable, code=block_with("python", "connect_sync"))).strip()


def test_readme_has_the_options_of_a_channel() -> None:
    assert set(qemu_options("/run/vm/100.qga")) <= {
        line.strip(" \\\n") for line in block_with("sh", "virtio-serial").splitlines()
    }


@pytest.mark.agent
async def test_the_command_of_readme_works(served: Serving) -> None:
    assert "kernel" in await run_commands(served, block_with("sh", "GUESTWIRE_HOST"))


@pytest.mark.agent
async def test_the_same_job_has_the_same_result_in_every_way_of_the_clients_page(served: Serving) -> None:
    kernel = platform.release()

    assert f'"out-data":"{kernel}\\n"' in await run_commands(served, block_with("sh", "curl", CLIENT))
    assert kernel in await run_commands(served, block_with("sh", "GUESTWIRE_HOST", CLIENT))
    for word in ("connect_sync", "asyncio.run"):
        assert kernel in await run(served, sys.executable, code=block_with("python", word, CLIENT))


@pytest.mark.agent
async def test_the_python_code_of_the_clients_page_works_from_its_beginning_to_its_end(served: Serving) -> None:
    async with FakeGuest(served.folder / "101.qga", replies=FREEZING):
        output = await run(served, sys.executable, code="\n".join([*blocks(CLIENT, "python"), "host.close()"]))

    for line in (
        "100 web running pve1",
        "lo ['127.0.0.1'",
        "0 None two",
        "\n3\n",
        "Connection refused",
        "b'first\\n'",
        "b'99\\n'",
        "2 file systems are frozen",
        "web (100) 2",
    ):
        assert line in output, line
    assert (served.folder / "security").is_dir()


def test_the_clients_page_names_every_error() -> None:
    for error in errors_of_the_client():
        assert f"`{error.__name__}`" in CLIENT.read_text(), error


def errors_of_the_client() -> set[type[CallFailed]]:
    """All that there are, also below others."""
    for module in pkgutil.iter_modules(guestwire.client.__path__, "guestwire.client."):
        importlib.import_module(module.name)
    found, new = set(), [CallFailed]
    while new:
        new = [one for kind in new for one in kind.__subclasses__() if one.__module__.startswith("guestwire.client.")]
        found |= set(new)
    return found


@pytest.mark.agent
@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the guest has /usr of this machine: no Python there")
async def test_the_commands_of_ansibles_page_work(served: Serving) -> None:
    for text in blocks(ANSIBLE, "yaml"):
        name = text.splitlines()[0].removeprefix("# ")
        (served.folder / name).write_text(here(served, text))
    place = served.folder / "collections" / "ansible_collections" / "guestwire"
    place.mkdir(parents=True)
    (place / "guestwire").symlink_to(ROOT / "ansible")
    programs = f"""set -e
export ANSIBLE_COLLECTIONS_PATH={served.folder}/collections ANSIBLE_HOME={served.folder}/ansible LC_ALL=C.UTF-8 PATH={Path(sys.executable).parent}:$PATH
"""

    output = [await run(served, "sh", code=programs + code, within=180) for code in blocks(ANSIBLE, "sh")]

    for line in ("@guestwire_os_", "web | SUCCESS", f"rc=0 >>\n{platform.release()}"):
        assert line in output[0], output
    assert "changed=2" in output[1], output


@pytest.mark.agent
async def test_the_configuration_for_assistants_in_readme_works(served: Serving) -> None:
    [given] = json.loads(here(served, blocks(README, "json")[0]))["mcpServers"].values()
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", given["command"], *given["args"]],
        env=given["env"] | {"XDG_STATE_HOME": str(served.folder)},
    )
    async with Client(command) as client:
        answer = await client.call_tool("get_osinfo", {"guest": "web"})

    assert answer.structured_content["pretty-name"], answer


@pytest.mark.parametrize("command", ["./dev demo", "./dev test"])
def test_readme_names_the_commands_that_dev_has(command: str) -> None:
    assert f"{command}\n" in blocks(README, "sh")
    assert re.search(rf"^    {command.removeprefix('./dev ')}\) setup", (ROOT / "dev").read_text(), re.MULTILINE)


def test_every_file_that_the_walk_names_is_there() -> None:
    """A name without a folder is one of the folder that was named before it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("src/guestwire/**/*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any(f"/{file}".endswith(f"/{name}") for file in files | {"tests/test_architecture.py"}), name


def test_the_endpoint_that_contributing_adds_is_on_every_face() -> None:
    [text] = blocks(CONTRIBUTING, "python")
    namespace: dict[str, Any] = {}
    exec(text, namespace)  # our own page
    [endpoint] = namespace["endpoints"]

    assert "file-size" in json.dumps(openapi([endpoint]))
    assert "file-size" in reference([endpoint])
    assert [tool.name for tool in endpoint_tools([endpoint])] == ["file_size"]
    assert "async def file_size(self, file: str) -> SizeOfFile:" in asynchronous([endpoint])


def test_every_command_of_dev_in_the_documentation_is_one() -> None:
    usage = (ROOT / "dev").read_text()
    for page in PAGES:
        for task in re.findall(r"\./dev (\w+)", page.read_text()):
            assert f"    {task})" in usage, f"{page.name}: ./dev {task}"


def test_ci_runs_the_test_command_of_readme() -> None:
    assert "./dev test\n" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "mcp.md"], ids=lambda page: page.name)
def test_every_configuration_in_the_documentation_can_be_used(page: Path, tmp_path: Path) -> None:
    """Of a server, or a command line's profiles; the policy of mcp.md stands in tests/mcp."""
    path = tmp_path / "guestwire" / "config.toml"
    path.parent.mkdir()
    for text in blocks(page, "toml"):
        path.write_text(text)
        if "[[vm]]" in text or "[[source]]" in text:
            config = read_config(path)
            assert config.vm or config.source
        else:
            for profile in tomllib.loads(text):
                assert settings_for({}, profile=profile, environ={"XDG_CONFIG_HOME": str(tmp_path)}).host


def test_every_key_of_the_configuration_is_documented() -> None:
    text = "\n".join(blocks(ROOT / "docs" / "serving.md", "toml"))
    for key in (*ServerConfig.__struct_fields__, *VmConfig.__struct_fields__, *SourceConfig.__struct_fields__):
        assert re.search(rf"^{key} = ", text, re.MULTILINE), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
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
