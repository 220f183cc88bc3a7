"""The SDK's own inspector, in its command-line mode, lists and calls tools without an error or a warning."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from assistants import ALL

from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

PROGRAM = (
    Path(__file__).parent.parent.parent / ".tools" / "clients" / "inspector" / "node_modules" / ".bin" / "mcp-inspector"
)


@pytest.fixture(scope="module")
def program() -> Path:
    """The inspector, which `./dev test` installs where npm is."""
    if not PROGRAM.exists():
        pytest.skip("the inspector is not here: `./dev test` installs it where Node.js with npm is")
    return PROGRAM


@dataclass
class Inspector:
    line: list[str]

    def __call__(self, method: str, *words: str) -> Any:
        """What the inspector shows of an answer, if it says nothing else."""
        line = [*self.line, "--method", method, *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)


@pytest.fixture
def inspector(program: Path, agent: SandboxedAgent, tmp_path: Path) -> Inspector:
    server = [
        sys.executable,
        "-m",
        "guestwire",
        "--host",
        f"unix:{agent.socket}",
        "mcp",
        "--records",
        str(tmp_path / "r"),
    ]
    return Inspector([str(program), "--cli", *server, *ALL])


def test_it_lists_everything(inspector: Inspector) -> None:
    assert len(inspector("tools/list")["tools"]) > 26
    assert inspector("resources/list")["resources"][0]["uri"].startswith("guest://")
    assert len(inspector("resources/templates/list")["resourceTemplates"]) == 2
    assert len(inspector("prompts/list")["prompts"]) == 4


def test_it_calls_tools(inspector: Inspector) -> None:
    def call(tool: str, *arguments: str) -> Any:
        words = [word for argument in ("guest=web", *arguments) for word in ("--tool-arg", argument)]
        return inspector("tools/call", "--tool-name", tool, *words)["structuredContent"]

    assert call("get_host_name") == {"host-name": "guest100"}
    assert call("run_command", 'command=["sh", "-c", "echo out"]')["stdout"] == "out\n"
    assert call("write_text_file", "path=/root/inspected", "content=text")["bytes"] == 4
    assert call("read_text_file", "path=/root/inspected")["text"] == "text"
