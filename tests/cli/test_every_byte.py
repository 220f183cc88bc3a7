"""No path through guestwire changes a byte that nobody asked to change, whatever the file is, and however little the guest takes at a time."""

import base64
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from calling import Client, agent, site, vm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reaching import environment, guestwire
from serving import Serving
from ways import options_for, over_https

from guestwire.agent.files import decode_leniently
from guestwire.mcp.display import sanitize
from guestwire.mcp.text_format import MARKS, TextFormat, reason_to_refuse
from guestwire.testing import FakeGuest

LETTERS = "aZ0 _=\t.äßéÿ\u0153世界😀"
ENDS = ("\n", "\r\n", "\r")
CODECS = ("utf-8", "utf-16-le", "utf-16-be", "iso-8859-1", "cp1252", "cp850", "gb18030", "shift_jis")
SIZES = (0, 1, 2, 3, 57, 4096, 30_000, 44_999)


def some_bytes(seed: int) -> bytes:
    """A file: text of an encoding, with line ends of one or several kinds and perhaps a byte order mark; or bytes of any kind."""
    chooser = random.Random(seed)  # nothing secret
    size = chooser.choice(SIZES)
    if chooser.random() < 0.3:
        return chooser.randbytes(size)
    codec = chooser.choice(CODECS)
    ends = chooser.sample(ENDS, chooser.choice((1, 1, 1, 2)))
    text = "".join(
        chooser.choice(ends) if chooser.random() < 0.1 else chooser.choice(LETTERS) for _ in range(size // 4)
    )
    mark = MARKS.get(codec, b"") if chooser.random() < 0.4 else b""
    return mark + text.encode(codec, "ignore")


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "fake"))) as server:
        yield server


@pytest.fixture
async def fake(server: Serving) -> AsyncIterator[FakeGuest]:
    """It takes and gives a little at a time; how much, changes."""
    chooser = random.Random(1)  # nothing secret
    async with FakeGuest(server.folder / "100.qga") as fake:
        take, give = fake._write, fake._read

        def write(arguments: dict[str, Any]) -> Any:
            data = decode_leniently(arguments["buf-b64"])
            return take(arguments["handle"], data[: chooser.randrange(1, len(data) + 1)] if data else data)

        def read(arguments: dict[str, Any]) -> Any:
            count = chooser.randrange(1, arguments.get("count", 4096) + 1)
            answer = give(arguments["handle"], count)
            return answer | {"eof": answer["count"] == 0}

        fake.replies |= {"guest-file-write": write, "guest-file-read": read}
        yield fake


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
async def test_every_way_to_write_and_read_a_file_keeps_its_bytes(
    server: Serving, fake: FakeGuest, tmp_path: Path, seed: int
) -> None:
    data = some_bytes(seed)
    client = Client(server)
    env = environment(tmp_path)

    posted = await client.post(agent("file-write"), file="/rest", content=base64.b64encode(data).decode(), encode=0)
    as_text = await client.post(agent("file-write"), file="/text", content=data.decode("latin-1"), encode=1)
    async with await over_https(server) as host:
        guest = await host.guest(100)
        assert await guest.write_file("/python", data) == len(data)
        read = await guest.read_file("/python")
    written = await guestwire(*options_for(server), "cp", "-", "fake:/cli", env=env, stdin=data)
    shown = await guestwire(*options_for(server), "cat", "fake:/cli", env=env)
    answer = await client.get(agent("file-read"), file="/rest")
    encoded = await client.get(agent("file-read"), file="/rest", decode=0)

    assert (posted.status, as_text.status, written.code, shown.code) == (200, 200, 0, 0), written
    for path in ("/rest", "/text", "/python", "/cli"):
        assert bytes(fake.files[path]) == data, path
    assert read == shown.output == data
    assert answer.data["content"].encode("latin-1") == data
    assert base64.b64decode(encoded.data["content"]) == data


@given(seed=st.integers(0, 2**32), change=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_an_assistant_is_shown_it_gives_back_or_is_refused(seed: int, change: bool) -> None:
    """The rule of read_text_file and write_text_file: the tools' own tests go all the way into a guest."""
    data = some_bytes(seed)
    form = TextFormat.of(data)
    shown = sanitize(form.decode(data))
    content = "word\n" + shown if change else shown
    if reason_to_refuse(form, data, content):
        return
    kept = form.encode(content)
    assert kept.endswith(data.removeprefix(MARKS.get(form.encoding, b""))) if change else kept == data
