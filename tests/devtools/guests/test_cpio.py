"""Archives as the kernel reads them."""

from hypothesis import given
from hypothesis import strategies as st

from devtools.guests import cpio

HEADER = 110

PATHS = st.lists(st.text(st.sampled_from("abc.-_"), min_size=1, max_size=9), min_size=1, max_size=3).map("/".join)
ENTRIES = st.dictionaries(
    PATHS,
    st.one_of(
        st.builds(cpio.directory, st.sampled_from([0o755, 0o700])),
        st.builds(cpio.file, st.binary(max_size=50), st.sampled_from([0o644, 0o755, 0o640])),
        st.builds(cpio.link, st.text(st.sampled_from("ab/."), min_size=1, max_size=9)),
        st.builds(cpio.character_device, st.integers(0, 255), st.integers(0, 255)),
    ),
    max_size=6,
)


def records(data: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """Name, fields and content of each record, by the kernel's description of the format."""
    names = (
        "ino",
        "mode",
        "uid",
        "gid",
        "nlink",
        "mtime",
        "filesize",
        "major",
        "minor",
        "rmajor",
        "rminor",
        "namesize",
        "check",
    )
    found, at = [], 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        values = [int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(len(names))]
        fields = dict(zip(names, values, strict=True))
        name = data[at + HEADER : at + HEADER + fields["namesize"]]
        start = at + HEADER + fields["namesize"]
        start += -start % 4
        found.append((name.rstrip(b"\0").decode(), fields, data[start : start + fields["filesize"]]))
        at = start + fields["filesize"]
        at += -at % 4
    return found


@given(entries=ENTRIES)
def test_everything_that_goes_in_is_there(entries: dict[str, cpio.Entry]) -> None:
    *found, trailer = records(cpio.archive(entries))

    assert {name: (fields["mode"], content) for name, fields, content in found} == {
        path: (entry.mode, entry.content) for path, entry in entries.items()
    }
    assert [(fields["rmajor"], fields["rminor"]) for _, fields, _ in found] == [
        entries[name].device for name, _, _ in found
    ]
    assert (trailer[0], trailer[2]) == ("TRAILER!!!", b"")


@given(entries=ENTRIES)
def test_all_belongs_to_root_tells_no_time_and_has_its_own_number(entries: dict[str, cpio.Entry]) -> None:
    *found, _ = records(cpio.archive(entries))

    assert {(fields["uid"], fields["gid"], fields["mtime"]) for _, fields, _ in found} <= {(0, 0, 0)}
    assert len({fields["ino"] for _, fields, _ in found}) == len(entries)


@given(entries=ENTRIES)
def test_the_same_entries_make_the_same_archive_in_any_order(entries: dict[str, cpio.Entry]) -> None:
    assert cpio.archive(entries) == cpio.archive(dict(reversed(entries.items())))


def test_a_folder_comes_before_what_is_in_it() -> None:
    entries = {"a/b/c": cpio.file(b""), "a/b": cpio.directory(), "a": cpio.directory()}

    assert [name for name, _, _ in records(cpio.archive(entries))] == ["a", "a/b", "a/b/c", "TRAILER!!!"]
