"""What a text file is beside its text: encoding, byte order mark, line ends.

An assistant sees text alone, and gives text back: what it has not seen must be kept, or the file must not be replaced.
"""

import codecs
from dataclasses import dataclass
from typing import Final, Self

from guestwire.mcp.display import sanitize

ENCODINGS: Final = (
    "utf-8", "utf-16-le", "utf-16-be", "iso-8859-1", "iso-8859-2", "iso-8859-15", "cp1250", "cp1251", "cp1252", "cp437", "cp850",
    "cp852", "cp866", "koi8-r", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr",
)  # fmt: skip
"""Those that an assistant may name."""

MARKS: Final = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}

LONGEST_MARK: Final = 3
"""Bytes."""

MOST_NAMED: Final = 3
"""Characters in one message."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How text becomes bytes.

    Attributes:
        encoding: one of `ENCODINGS`.
        has_mark: it begins with a byte order mark.
        line_ends: `lf`, `crlf`, or `mixed` for any others.
    """

    encoding: str = "utf-8"
    has_mark: bool = False
    line_ends: str = "lf"

    @classmethod
    def of(cls, data: bytes, encoding: str | None = None) -> Self:
        """The format of a file, or of its beginning; `encoding` where there is no byte order mark."""
        found = next((name for name, mark in MARKS.items() if data.startswith(mark)), None)
        encoding = found or encoding or "utf-8"
        text = data.decode(encoding, "replace")
        ends, pairs = text.count("\n"), text.count("\r\n")
        line_ends = "lf" if "\r" not in text else "crlf" if ends == pairs == text.count("\r") else "mixed"
        return cls(encoding, found is not None, line_ends)

    def __str__(self) -> str:
        mark = " with a byte order mark" if self.has_mark else ""
        return f"{self.encoding}{mark}, {self.line_ends} line ends"

    def decode(self, data: bytes) -> str:
        r"""The text, with `\n` for its line ends where they are all the same; bytes that are none are written `\xNN`."""
        text = data.decode(self.encoding, "backslashreplace")
        if self.has_mark:
            text = text.removeprefix("\ufeff")
        return text.replace("\r\n", "\n") if self.line_ends == "crlf" else text

    def encode(self, text: str) -> bytes:
        """The bytes of a text in this format.

        Raises:
            UnicodeEncodeError: the encoding lacks a character of it.
        """
        if self.line_ends == "crlf":
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
        return (MARKS[self.encoding] if self.has_mark else b"") + text.encode(self.encoding)

    def is_faithful(self, data: bytes) -> bool:
        """True if the text of these bytes stands for these bytes alone."""
        try:
            return self.encode(self.decode(data)) == data
        except UnicodeEncodeError:
            return False


def decode_output(data: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    r"""What a program wrote as text, and a note where bytes of it are none, which are written `\xNN` then."""
    form = TextFormat.of(data, encoding)
    text = data.decode(form.encoding, "backslashreplace")
    return text.removeprefix("\ufeff"), None if is_text(data, form.encoding) else not_text(form.encoding)


def written_out(text: str) -> dict[str, str]:
    r"""The characters of a text that are not shown as they are, by code point, and how they are shown, as `\u200d`."""
    return {one: shown for one in sorted(set(text)) if (shown := sanitize(one)) != one}


def reason_to_refuse(form: TextFormat, old: bytes, content: str) -> str:
    """The reason why a text must not replace a file; empty where it may.

    It would change what its writer was not shown, or was shown as something else.
    """
    if not form.is_faithful(old):
        return (
            f"the file has bytes that no text shows as they are ({form}): what was not to be changed would be. Name its"
            " encoding, or change it by run_command"
        )
    if form.line_ends == "mixed" and "\r" not in content:
        return (
            "the file's line ends are mixed: not every line ends with CRLF, nor every one with LF, and this text has no"
            r" carriage return. Where one is shown (\r), put the character itself into content"
        )
    before = form.decode(old)
    # What a text has more often than the file had it came from what the file was shown as.
    given_back = [one for one, shown in written_out(before).items() if content.count(shown) > before.count(shown)]
    if given_back:
        named = ", ".join(f"U+{ord(one):04X} as {sanitize(one)}" for one in given_back[:MOST_NAMED])
        return (
            f"the file has characters that can't be seen, and are shown written out ({named}). Put the characters"
            " themselves into content, not what stands for them"
        )
    return ""


def is_text(data: bytes, encoding: str) -> bool:
    """True if the bytes are text in this encoding; a last character that is cut is none against it."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return "\0" not in data.decode(encoding, "replace")


def not_text(encoding: str) -> str:
    """A note for bytes that are no text in an encoding."""
    return rf"not {encoding}: its other bytes are shown as \xNN; name the encoding to read them"
