"""The recorded cases: requests to Proxmox VE and what it answered, as text that people can read.

    ### file-read/empty                 name
    admin, exact, after file-write/x    whose credentials; how much must be the same; what has to happen before
                                        (blank)
    GET /api2/json/…                    request line, headers, after a blank line the body
                                        (blank)
    --> 200 OK                          Proxmox VE's answer: status, reason phrase, and on the next line the body
    ==> 200 OK                          ours, where Proxmox VE's is a defect (match `better`)

`{x*1000}` stands for a thousand x. `{pid}` in a request is the pid of the case before, in an answer any number; `{ticket}`, `{csrf}` and
`{secret}` are live values of user admin@pve.
`(123 bytes)` stands for a body of that length. `no host` means: without a Host header.
Matches: `exact` (status, reason, body), `shape` (status, and the same keys: values depend on the guest), `status`, `better`.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True, slots=True)
class Expected:
    """An answer: `body` is its text, or None where it was not recorded; `size` in bytes where only that was."""

    status: int
    reason: str
    body: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One recorded exchange; `ours` stands beside it where we do better."""

    name: str
    role: str
    match: str
    after: str | None
    has_host: bool
    method: str
    target: str
    version: str
    recorded: Expected | None
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str | None = None
    ours: Expected | None = None

    @property
    def expected(self) -> Expected:
        """What we answer."""
        expected = self.ours or self.recorded
        assert expected, f"{self.name}: no answer"
        return expected


@cache
def all_cases() -> dict[str, Case]:
    """Every case by its name."""
    return {case.name: case for path in sorted(FOLDER.glob("*.http")) for case in parse(path.read_text())}


def parse(text: str) -> list[Case]:
    """The cases in a file's text."""
    return [_case(block) for block in re.split(r"^### ", text, flags=re.MULTILINE)[1:]]


def _case(block: str) -> Case:
    asked, *answers = re.split(r"^(?=-->|==>)", block, flags=re.MULTILINE)
    head, request = asked.split("\n\n", 1)
    name, options = head.split("\n")
    role, match, *rest = options.split(", ")
    line, _, tail = _expand(request.strip("\n")).partition("\n")
    headers, _, body = tail.partition("\n\n") if not tail.startswith("\n") else ("", "", tail[1:])
    method, target, version = [*line.split(" "), "HTTP/1.1"][:3]
    recorded, ours = _answer("-->", answers), _answer("==>", answers)
    return Case(
        name=name,
        role=role,
        match=match,
        after=next((option.removeprefix("after ") for option in rest if option.startswith("after ")), None),
        has_host="no host" not in rest,
        method=method,
        target=target,
        version=version,
        headers=[_header(header) for header in headers.splitlines()],
        body=body or None,
        recorded=recorded,
        ours=ours,
    )


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value


def _answer(mark: str, answers: list[str]) -> Expected | None:
    text = next((answer for answer in answers if answer.startswith(mark)), None)
    if text is None:
        return None
    line, _, body = _expand(text).removeprefix(mark + " ").partition("\n")
    status, _, reason = line.partition(" ")
    if status == "-":
        return None
    size = re.fullmatch(r"\((\d+) bytes\)", body.strip())
    return Expected(int(status), reason, "" if size else body.strip(), int(size[1]) if size else None)


def _expand(text: str) -> str:
    return re.sub(r"\{(.)\*(\d+)\}", lambda found: found[1] * int(found[2]), text)
