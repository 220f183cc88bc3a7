"""The engine and the plain, slow reading of the rules always agree. `python -m bench.access` asks a million times."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from random_worlds import NOW, PATHS, question, world
from slow_engine import EVERY_PRIVILEGE, slow_privileges

from guestwire.access.engine import all_permissions, check, held_on, permissions, privileges
from guestwire.stores import Snapshot


def asked(snapshot: Snapshot, subject: str, path: str) -> dict[str, bool]:
    return {name: held.propagates for name, held in privileges(snapshot, subject, path, NOW).items()}


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_subject_has_the_same_privileges_in_both(random: Random) -> None:
    snapshot = world(random)
    for _ in range(25):
        subject, path = question(random, snapshot)
        expected = slow_privileges(snapshot, subject, path, NOW)

        assert asked(snapshot, subject, path) == expected
        assert held_on(snapshot, subject, path, NOW) == expected.keys()
        assert permissions(snapshot, subject, path, NOW) == {name: int(flag) for name, flag in expected.items()}


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_check_passes_exactly_when_one_of_the_privileges_is_held(random: Random) -> None:
    snapshot = world(random)
    for _ in range(10):
        subject, path = question(random, snapshot)
        any_of = tuple(random.sample(sorted(EVERY_PRIVILEGE), 3))
        refusal = check(snapshot, subject, path, any_of, NOW)

        assert (refusal is None) == bool(slow_privileges(snapshot, subject, path, NOW).keys() & set(any_of))
        assert refusal is None or str(refusal) == f"Permission check failed ({path}, {'|'.join(any_of)})"


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_each_privilege_comes_from_entries_that_are_there(random: Random) -> None:
    snapshot = world(random)
    for _ in range(10):
        subject, path = question(random, snapshot)
        for held in privileges(snapshot, subject, path, NOW).values():
            grants = [grant for grant in held.grants if grant.entry.subject != "root@pam"]
            assert all(snapshot.acl[grant.entry.key] == grant.entry for grant in grants)
            assert all(grant.pool is None or grant.entry.path in _above(f"/pool/{grant.pool}") for grant in grants)
            assert all(grant.pool is not None or grant.entry.path in _above(path) for grant in grants)


def _above(path: str) -> list[str]:
    return [other for other in PATHS if other in ("/", path) or path.startswith(f"{other}/")]


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_list_of_all_paths_says_of_each_what_asking_for_it_says(random: Random) -> None:
    snapshot = world(random)
    for subject in [*snapshot.users, *snapshot.tokens]:
        for path, held in all_permissions(snapshot, subject, NOW).items():
            assert held == {name: int(flag) for name, flag in slow_privileges(snapshot, subject, path, NOW).items()}
            assert held


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_is_a_subject_or_a_path_by_accident(subject: str, path: str) -> None:
    snapshot = world(Random(1))

    known = subject in snapshot.users or subject in snapshot.tokens or subject == "root@pam"
    assert known or not held_on(snapshot, subject, path, NOW)
    assert known or not held_on(snapshot, subject, "/vms/100", NOW)
    assert not held_on(snapshot, "nobody@pve", path, NOW)
