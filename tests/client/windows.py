"""A Windows guest as far as the client needs one: what its PowerShell would do with the client's own scripts, done to a fake guest's files.

That the scripts are right PowerShell, only a Windows can say. What stands here are the documented rules by which PowerShell reads a text in
quotes, and a program its command line.
"""

import base64
import hashlib
import itertools
import ntpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from guestwire.agent import systems
from guestwire.testing import FakeGuest

QUOTES: Final = "'\u2018\u2019\u201a\u201b"


def powershell_texts(line: str) -> list[str]:
    """The texts in `'a', 'b'`: any of its single quotes begins and ends one, two are one that is meant.

    Source: Microsoft's about_Quoting_Rules, and PowerShell's language specification, 2.3.5.2 (verbatim string literals).
    """
    texts, position = [], 0
    while position < len(line):
        assert line[position] in QUOTES, line[position:]
        text, position = _powershell_text(line, position + 1)
        texts.append(text)
        assert line[position : position + 2] in ("", ", "), line[position:]
        position += 2
    return texts


def _powershell_text(line: str, position: int) -> tuple[str, int]:
    text = ""
    while True:
        if line[position] in QUOTES:
            if position + 1 == len(line) or line[position + 1] not in QUOTES:
                return text, position + 1
            position += 1
        text += line[position]
        position += 1


def c_arguments(line: str) -> list[str]:
    """What a Windows program finds in its command line, behind its own name.

    Source: Microsoft, "Parsing C command-line arguments".
    """
    arguments: list[str] = []
    current: str | None = None
    quoted, position = False, 0
    while position < len(line):
        backslashes = len(line[position:]) - len(line[position:].lstrip("\\"))
        after = line[position + backslashes : position + backslashes + 1]
        if backslashes and after == '"':
            current = (current or "") + "\\" * (backslashes // 2) + ('"' if backslashes % 2 else "")
            position += backslashes + backslashes % 2
        elif backslashes:
            current = (current or "") + "\\" * backslashes
            position += backslashes
        elif after == '"' and quoted and line[position + 1 : position + 2] == '"':
            current = (current or "") + '"'
            position += 2
        elif after == '"':
            quoted, current = not quoted, current or ""
            position += 1
        elif after in " \t" and not quoted:
            arguments += [] if current is None else [current]
            current = None
            position += 1
        else:
            current = (current or "") + after
            position += 1
    return arguments if current is None else [*arguments, current]


def script_in(command: Sequence[str]) -> tuple[str, list[str]]:
    """A PowerShell command's script, and its arguments."""
    assert command[0] == systems.POWERSHELL
    assert command[-2] == "-EncodedCommand"
    script = base64.b64decode(command[-1]).decode("utf-16-le", "surrogatepass")
    head, _, rest = script.partition("\ntry {\n")
    given = head.removeprefix("$a = @(").rpartition(")\n$failing = ")[0]
    return rest.rpartition("} catch {")[0], powershell_texts(given)


def body(name: str) -> str:
    """A script of Windows without its frame."""
    return systems.script_text(f"windows/{name}.ps1")


@dataclass
class WindowsGuest:
    """Makes a fake guest one that runs Windows; `ran` are the command lines it was given.

    Attributes:
        fake: whose files it works on.
        ran: all that was executed.
        folders: that there are.
    """

    fake: FakeGuest
    ran: list[list[str]] = field(default_factory=list)
    folders: list[str] = field(default_factory=lambda: ["C:\\data"])

    def __post_init__(self) -> None:
        self._pids = itertools.count(1)
        self._ended: dict[int, dict[str, Any]] = {}
        self.fake.replies |= {
            "guest-get-osinfo": {"id": "mswindows", "name": "Microsoft Windows"},
            "guest-exec": self._execute,
            "guest-exec-status": lambda arguments: self._ended.pop(arguments["pid"]),
        }

    def _execute(self, arguments: dict[str, Any]) -> dict[str, int]:
        command = [arguments["path"], *arguments.get("arg", [])]
        self.ran.append(command)
        code, output, errors = self._run(command, base64.b64decode(arguments.get("input-data", "")))
        pid = next(self._pids)
        self._ended[pid] = {
            "exited": True,
            "exitcode": code,
            "out-data": base64.b64encode(output.encode()).decode(),
            "err-data": base64.b64encode(errors.encode()).decode(),
        }
        return {"pid": pid}

    def _run(self, command: list[str], given: bytes) -> tuple[int, str, str]:
        if command[0] != systems.POWERSHELL:
            return 0, "", ""
        script, arguments = script_in(command)
        try:
            return 0, str(self._scripts[script](arguments, given) or ""), ""
        except (KeyError, FileNotFoundError) as error:
            return 1, "", f"{error.args[0]}: No such file or directory\n"

    @property
    def _scripts(self) -> dict[str, Callable[[list[str], bytes], object]]:
        files = self.fake.files
        return {
            body("temporary"): lambda _a, _given: "C:\\Windows\\TEMP\\",
            body("start"): lambda a, _given: "\n".join([a[0], *c_arguments(a[1])]),
            body("create"): lambda a, _given: self._write(a, b""),
            body("sha256"): lambda a, _given: hashlib.sha256(files[a[0]][: int(a[1])]).hexdigest(),
            body("write"): lambda a, given: files[a[0]].__setitem__(slice(int(a[1]), int(a[1]) + len(given)), given),
            body("finish"): lambda a, _given: self._finish(a),
            body("put"): lambda a, given: self._write(a, given) and self._finish(a),
            body("stat"): lambda a, _given: f"f {len(files[a[0]])} 644 1500000000",
            body("link"): lambda a, _given: files.update({a[1]: files[a[0]]}),
            body("size"): lambda a, _given: str(len(files[a[0]])),
            body("append"): lambda a, given: files.setdefault(a[0], bytearray()).extend(given),
            body("concat"): lambda a, _given: files.setdefault(a[1], bytearray()).extend(files.pop(a[0])),
            body("remove"): lambda a, _given: files.pop(a[0], None) and None,
            body("makedirs"): lambda a, _given: self.folders.extend(a),
            body("listdir"): self._list,
            body("walk"): self._list,
        }

    def _write(self, arguments: list[str], data: bytes) -> str:
        if ntpath.dirname(arguments[1]) not in self.folders:
            raise FileNotFoundError(ntpath.dirname(arguments[1]))
        self.fake.files[arguments[0]] = bytearray(data)
        return "0"

    def _finish(self, arguments: list[str]) -> str:
        unfinished, path, digest, _mode, time = arguments
        assert not digest or hashlib.sha256(self.fake.files[unfinished]).hexdigest() == digest
        assert time in ("", "1500000000")
        self.fake.files[path] = self.fake.files.pop(unfinished)
        return ""

    def _list(self, arguments: list[str], _given: bytes) -> str:
        folder = arguments[0].rstrip("\\/") + "\\"
        below = {path.removeprefix(folder): data for path, data in self.fake.files.items() if path.startswith(folder)}
        if not below:
            raise FileNotFoundError(arguments[0])
        return "".join(f"f {len(data)} 644 1500000000 {path.replace(chr(92), '/')}\0" for path, data in below.items())
