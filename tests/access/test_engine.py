"""Proxmox VE's rules, one case each: who has what on which path, from where, and what a refusal says."""

import itertools

import pytest
from random_worlds import NOW

from guestwire.access.engine import REMEMBERED, all_permissions, check, held_on, permissions, privileges
from guestwire.access.privileges import ALL
from guestwire.access.subject import split
from guestwire.stores import AclEntry, Group, MemoryStore, Pool, Put, Remove, Role, Snapshot, Token, User
from guestwire.stores.records import Stored
from guestwire.stores.snapshot import of

ANN = User("ann@pve")
OWN = Token("ann@pve", "own", b"", privsep=True)
FULL = Token("ann@pve", "full", b"", privsep=False)
ROOTS = (
    User("root@pam"),
    Token("root@pam", "own", b"", privsep=True),
    Token("root@pam", "full", b"", privsep=False),
)
ROLES = tuple(Role(name, frozenset({f"VM.{name}"})) for name in ("Audit", "Console", "Backup", "Clone", "Migrate"))
GROUPS = (
    Group("ops", "", frozenset({"ann@pve"})),
    Group("dev", "", frozenset({"ann@pve"})),
    Group("out", "", frozenset()),
)
POOL = Pool("web", "", frozenset({100}))


def snapshot(*lines: str, more: tuple[Stored, ...] = ()) -> Snapshot:
    """A snapshot with the ACL that `lines` tell: `path kind:subject role`, with `!` behind the path where it does not propagate."""
    acl = []
    for line in lines:
        path, who, role = line.split()
        kind, _, subject = who.partition(":")
        acl.append(AclEntry(path.rstrip("!"), kind, subject, role, not path.endswith("!")))  # type: ignore[arg-type]
    records = {record.key: record for record in (ANN, OWN, FULL, *ROOTS, *ROLES, *GROUPS, POOL, *acl, *more)}
    return of(1, records.values())


def held(snapshot: Snapshot, path: str, subject: str = "ann@pve") -> str:
    """The privileges without their category, sorted."""
    return " ".join(sorted(name.removeprefix("VM.") for name in held_on(snapshot, subject, path, NOW)))


CASES = {
    "without an entry there is nothing": ([], "/vms/100", ""),
    "an entry holds on its path": (["/vms/100 user:ann@pve Audit"], "/vms/100", "Audit"),
    "and below it": (["/vms user:ann@pve Audit"], "/vms/100", "Audit"),
    "but not above it": (["/vms/100 user:ann@pve Audit"], "/vms", ""),
    "nor beside it": (["/vms/100 user:ann@pve Audit"], "/vms/1000", ""),
    "from the root it holds everywhere": (["/ user:ann@pve Audit"], "/vms/100", "Audit"),
    "one that does not propagate holds on its path": (["/vms/100! user:ann@pve Audit"], "/vms/100", "Audit"),
    "and not below it": (["/vms! user:ann@pve Audit"], "/vms/100", ""),
    "entries on one path add up": (["/vms user:ann@pve Audit", "/vms user:ann@pve Console"], "/vms/100", "Audit Console"),
    "a deeper entry replaces what is above": (["/vms user:ann@pve Audit", "/vms/100 user:ann@pve Console"], "/vms/100", "Console"),
    "one that does not propagate replaces nothing below": (["/ user:ann@pve Audit", "/vms! user:ann@pve Console"], "/vms/100", "Audit"),
    "a group's entry holds for its members": (["/vms group:ops Audit"], "/vms/100", "Audit"),
    "and for nobody else": (["/vms group:out Audit"], "/vms/100", ""),
    "groups add up": (["/vms group:ops Audit", "/vms group:dev Console"], "/vms/100", "Audit Console"),
    "the user goes before groups at one step": (["/vms group:ops Audit", "/vms user:ann@pve Console"], "/vms/100", "Console"),
    "a group's deeper entry goes before the user's": (["/vms user:ann@pve Audit", "/vms/100 group:ops Console"], "/vms/100", "Console"),
    "the user's entry that does not propagate leaves the step to groups": (["/vms! user:ann@pve Console", "/vms group:ops Audit"], "/vms/100", "Audit"),
    "NoAccess is all there is": (["/vms user:ann@pve Audit", "/vms user:ann@pve NoAccess"], "/vms/100", ""),
    "NoAccess of one group outdoes the others": (["/vms group:ops Audit", "/vms group:dev NoAccess"], "/vms/100", ""),
    "NoAccess is replaced further down": (["/ user:ann@pve NoAccess", "/vms/101 user:ann@pve Audit"], "/vms/101", "Audit"),
    "but reaches a VM in a pool through the pool": (["/ user:ann@pve NoAccess", "/vms/100 user:ann@pve Audit"], "/vms/100", ""),
    "NoAccess of a group is outdone by the user at the same step": (["/vms group:ops NoAccess", "/vms user:ann@pve Audit"], "/vms/100", "Audit"),
    "a role that does not exist gives nothing": (["/vms user:ann@pve Nothing"], "/vms/100", ""),
    "and replaces nothing": (["/ user:ann@pve Audit", "/vms user:ann@pve Nothing"], "/vms/100", "Audit"),
    "a pool's entry reaches its VMs": (["/pool/web user:ann@pve Audit"], "/vms/100", "Audit"),
    "and no other": (["/pool/web user:ann@pve Audit"], "/vms/101", ""),
    "and nothing below a VM": (["/pool/web user:ann@pve Audit"], "/vms/100/disk", ""),
    "also when it does not propagate": (["/pool/web! user:ann@pve Audit"], "/vms/100", "Audit"),
    "a pool adds to the path": (["/pool/web user:ann@pve Audit", "/vms user:ann@pve Console"], "/vms/100", "Audit Console"),
    "what is above a pool reaches its VMs": (["/pool user:ann@pve Audit"], "/vms/100", "Audit"),
    "what the path replaced comes back through the pool": (["/ user:ann@pve Audit", "/vms/100 user:ann@pve Console"], "/vms/100", "Audit Console"),
    "NoAccess of the path keeps the pool out": (["/vms/100 user:ann@pve NoAccess", "/pool/web user:ann@pve Audit"], "/vms/100", ""),
    "NoAccess of the pool outdoes the path": (["/vms/100 user:ann@pve Audit", "/pool/web user:ann@pve NoAccess"], "/vms/100", ""),
    "double slashes and one at the end mean nothing": (["/vms/100 user:ann@pve Audit"], "//vms///100/", "Audit"),
    "two dots are a name": (["/vms/100 user:ann@pve Audit", "/vms user:ann@pve Console"], "/vms/101/../100", "Console"),
    "a number with a zero before it is another path": (["/vms/100 user:ann@pve Audit"], "/vms/0100", ""),
}  # fmt: skip


@pytest.mark.parametrize(("acl", "path", "expected"), CASES.values(), ids=CASES)
def test_what_a_user_has(acl: list[str], path: str, expected: str) -> None:
    assert held(snapshot(*acl), path) == expected


@pytest.mark.parametrize(("acl", "path", "expected"), CASES.values(), ids=CASES)
def test_a_token_without_separation_has_the_same(acl: list[str], path: str, expected: str) -> None:
    assert held(snapshot(*acl), path, "ann@pve!full") == expected


TOKEN_CASES = {
    "a token with separation and no entry has nothing": (["/ user:ann@pve Administrator"], "own", ""),
    "its entry alone gives nothing": (["/vms token:ann@pve!own Audit"], "own", ""),
    "it has what both have": (["/ user:ann@pve PVEAuditor", "/vms token:ann@pve!own Audit"], "own", "Audit"),
    "and no more": (["/ user:ann@pve Console", "/vms token:ann@pve!own Administrator"], "own", "Console"),
    "its user's groups count": (["/ group:ops Audit", "/vms token:ann@pve!own Administrator"], "own", "Audit"),
    "a pool can give either": (["/pool/web user:ann@pve Audit", "/vms token:ann@pve!own Audit"], "own", "Audit"),
    "or both": (["/pool/web user:ann@pve Audit", "/pool/web token:ann@pve!own Audit"], "own", "Audit"),
    "its user's NoAccess counts": (["/vms user:ann@pve NoAccess", "/ token:ann@pve!own Audit"], "own", ""),
    "so does its own": (["/ user:ann@pve Audit", "/vms token:ann@pve!own NoAccess", "/ token:ann@pve!own Audit"], "own", ""),
    "without separation its own entries mean nothing": (["/ user:ann@pve Audit", "/vms token:ann@pve!full NoAccess"], "full", "Audit"),
    "and give nothing": (["/ user:ann@pve Audit", "/vms token:ann@pve!full Administrator"], "full", "Audit"),
    "another token's entries are not its own": (["/ user:ann@pve Audit", "/ token:ann@pve!full Audit"], "own", ""),
}  # fmt: skip


@pytest.mark.parametrize(("acl", "token", "expected"), TOKEN_CASES.values(), ids=TOKEN_CASES)
def test_what_a_token_has(acl: list[str], token: str, expected: str) -> None:
    assert held(snapshot(*acl), "/vms/100", f"ann@pve!{token}") == expected


def test_the_superuser_has_everything_everywhere_whatever_entries_say() -> None:
    for acl in ([], ["/ user:root@pam NoAccess"]):
        assert held_on(snapshot(*acl), "root@pam", "/anything", NOW) == ALL
        assert held_on(snapshot(*acl), "root@pam!full", "/vms/100", NOW) == ALL
    assert held_on(of(1, ()), "root@pam", "/", NOW) == ALL


def test_a_separated_token_of_the_superuser_has_what_its_entries_give() -> None:
    assert held(snapshot("/vms token:root@pam!own Audit"), "/vms/100", "root@pam!own") == "Audit"
    assert held(snapshot(), "/vms/100", "root@pam!own") == ""


@pytest.mark.parametrize("subject", ["nobody@pve", "ann@pve!none", "ann", "", "!", "@", "ann@pve!", "ann@pam", "ANN@pve", "root@pam!none", "root@pve", "ann@pve ", "ops", "@ops"])  # fmt: skip
def test_who_is_unknown_has_nothing(subject: str) -> None:
    here = snapshot("/ user:ann@pve Administrator", "/ group:ops Administrator")

    assert held_on(here, subject, "/vms/100", NOW) == frozenset()
    assert privileges(here, subject, "/vms/100", NOW) == {}


@pytest.mark.parametrize(
    ("enable", "expire", "works"),
    [
        (True, 0, True),
        (True, int(NOW) + 1, True),
        (True, int(NOW), True),
        (True, int(NOW) - 1, False),
        (False, 0, False),
        (False, int(NOW) + 1, False),
    ],
)
def test_who_is_disabled_or_expired_has_nothing_nor_have_the_tokens(enable: bool, expire: int, works: bool) -> None:
    here = snapshot("/ user:ann@pve Audit", "/ token:ann@pve!own Audit", more=(User("ann@pve", enable, expire),))

    for subject in ("ann@pve", "ann@pve!own", "ann@pve!full"):
        assert held(here, "/vms", subject) == ("Audit" if works else "")
        assert permissions(here, subject, "/vms", NOW) == ({"VM.Audit": 1} if works else {})


@pytest.mark.parametrize("separated", [True, False])
@pytest.mark.parametrize(("expire", "works"), [(0, True), (int(NOW), True), (int(NOW) - 1, False)])
def test_an_expired_token_has_nothing_and_its_user_is_as_before(expire: int, works: bool, separated: bool) -> None:
    token = Token("ann@pve", "t", b"", separated, expire)
    here = snapshot("/ user:ann@pve Audit", "/ token:ann@pve!t Audit", more=(token,))

    assert held(here, "/vms", "ann@pve!t") == ("Audit" if works else "")
    assert held(here, "/vms") == "Audit"


def test_what_was_asked_before_expires_too() -> None:
    here = snapshot("/ user:ann@pve Audit", more=(User("ann@pve", expire=2000),))

    assert held_on(here, "ann@pve", "/vms", 1999.0)
    assert held_on(here, "ann@pve", "/vms", 2000.0)
    assert not held_on(here, "ann@pve", "/vms", 2000.5)


def test_a_disabled_superuser_has_nothing() -> None:
    assert held_on(snapshot(more=(User("root@pam", enable=False),)), "root@pam", "/", NOW) == frozenset()


def test_a_refusal_names_the_path_and_what_would_do() -> None:
    refusal = check(snapshot(), "ann@pve", "/vms/100", ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"), NOW)

    assert str(refusal) == "Permission check failed (/vms/100, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)"
    assert refusal is not None
    assert refusal.status == 403


def test_any_of_the_privileges_is_enough() -> None:
    here = snapshot("/vms user:ann@pve Console")

    assert check(here, "ann@pve", "/vms/100", ("VM.Audit", "VM.Console"), NOW) is None
    assert check(here, "ann@pve", "/vms/100", (), NOW) is not None


@pytest.mark.parametrize("path", ["", " ", "/vms/1 00", "/vms/100\n", "/vms/100\0", "/vms/１００", "/vms/100?", "/vms/%31", "/" + "a" * 2000, "\ud800"])  # fmt: skip
def test_what_is_no_access_path_is_nobodys_but_the_superusers_neither(path: str) -> None:
    here = snapshot("/ user:ann@pve Administrator")

    assert held_on(here, "ann@pve", path, NOW) == frozenset()
    assert isinstance(check(here, "ann@pve", path, ("VM.Audit",), NOW), Exception)


def test_each_privilege_says_where_it_comes_from() -> None:
    here = snapshot("/vms group:ops Audit", "/vms group:dev Audit", "/pool/web user:ann@pve Console")
    found = privileges(here, "ann@pve", "/vms/100", NOW)

    assert sorted(found) == ["VM.Audit", "VM.Console"]
    groups = {
        (grant.entry.path, grant.entry.subject, grant.entry.roleid, grant.pool) for grant in found["VM.Audit"].grants
    }
    assert groups == {("/vms", "ops", "Audit", None), ("/vms", "dev", "Audit", None)}
    (grant,) = found["VM.Console"].grants
    assert (grant.entry.path, grant.pool) == ("/pool/web", "web")


def test_a_separated_tokens_privilege_says_what_the_token_and_what_its_user_has() -> None:
    here = snapshot("/ user:ann@pve Audit", "/vms token:ann@pve!own Audit")
    held = privileges(here, "ann@pve!own", "/vms", NOW)["VM.Audit"]

    assert [grant.entry.kind for grant in held.grants] == ["token", "user"]


@pytest.mark.parametrize(
    ("acl", "path", "flag"),
    [
        (["/vms user:ann@pve Audit"], "/vms/100", 1),
        (["/vms! user:ann@pve Audit"], "/vms", 0),
        (["/vms! group:ops Audit", "/vms group:dev Audit"], "/vms", 1),
        (["/pool/web user:ann@pve Audit"], "/vms/100", 0),
        (["/pool/web user:ann@pve Audit"], "/pool/web", 1),
        (["/pool/web user:ann@pve Audit", "/vms user:ann@pve PVEAuditor"], "/vms/100", 1),
    ],
)
def test_permissions_tell_whether_a_privilege_propagates(acl: list[str], path: str, flag: int) -> None:
    assert permissions(snapshot(*acl), "ann@pve", path, NOW)["VM.Audit"] == flag


def test_a_separated_tokens_privilege_propagates_when_both_do() -> None:
    for user, token in itertools.product(("", "!"), repeat=2):
        here = snapshot(f"/vms{user} user:ann@pve Audit", f"/vms{token} token:ann@pve!own Audit")
        assert permissions(here, "ann@pve!own", "/vms", NOW) == {"VM.Audit": int(not user and not token)}


def test_all_permissions_name_every_path_where_there_are_any() -> None:
    here = snapshot("/vms/101 user:ann@pve Audit", "/pool/web user:ann@pve Console", "/nodes/pve1 group:out Audit")

    assert all_permissions(here, "ann@pve", NOW) == {
        "/pool/web": {"VM.Console": 1},
        "/vms/100": {"VM.Console": 0},
        "/vms/101": {"VM.Audit": 1},
    }
    assert set(all_permissions(snapshot(), "root@pam", NOW)) >= {"/", "/access", "/access/groups", "/vms", "/vms/100"}


def test_a_later_view_decides_anew_and_the_older_one_as_before() -> None:
    before = snapshot("/vms user:ann@pve Audit")
    assert held(before, "/vms/100") == "Audit"

    after = snapshot()
    assert held(after, "/vms/100") == ""
    assert held(before, "/vms/100") == "Audit"


async def test_who_is_removed_from_the_store_is_refused_at_once() -> None:
    store = MemoryStore(snapshot("/ user:ann@pve Audit").users.values())
    entry = AclEntry("/", "user", "ann@pve", "PVEAuditor")
    view_with = await store.change(store.snapshot.version, [Put(entry)])
    assert held_on(view_with, "ann@pve", "/vms/100", NOW)

    for change in (
        Remove(AclEntry, entry.key),
        Put(entry),
        Put(User("ann@pve", enable=False)),
        Remove(User, "ann@pve"),
    ):
        now = await store.change(store.snapshot.version, [change])
        assert bool(held_on(now, "ann@pve", "/vms/100", NOW)) == (change == Put(entry))


def test_a_path_as_long_as_a_client_likes_is_not_remembered() -> None:
    here = snapshot("/ user:ann@pve Administrator")

    assert held_on(here, "ann@pve", f"/pool/{'a' * 500_000}", NOW) == frozenset()
    remembered = [item.decisions for item in here._derived.values() if hasattr(item, "decisions")]
    assert not any(remembered)


def test_what_is_remembered_is_bounded() -> None:
    here = snapshot("/vms user:ann@pve Audit")
    for number in range(REMEMBERED + 10):
        assert held_on(here, "ann@pve", f"/vms/{100 + number}", NOW) == {"VM.Audit"}

    decisions = [item.decisions for item in here._derived.values() if hasattr(item, "decisions")]
    assert [len(item) for item in decisions] == [10]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("ann@pve", ("ann@pve", None)),
        ("ann@pve!t", ("ann@pve", "t")),
        ("a!b@pve", ("a!b@pve", None)),
        ("a!b@pve!t", ("a!b@pve", "t")),
        ("a@b!c@pve", ("a@b!c@pve", None)),
    ],
)
def test_a_subject_is_a_user_or_a_token_of_one(subject: str, expected: tuple[str, str | None]) -> None:
    assert split(subject) == expected
