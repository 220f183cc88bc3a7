"""Realms: passwords of our own, and the accounts of the host through real PAM."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from guestwire.access.passwords import hash_password, is_password
from guestwire.access.realms import NO_ACCOUNT, is_login

PASSWORD = "lab-password-1"
HASH = "$6$guestwiresalt$ZmcGQJk5MmpRordhgXEE9L/PA9jZ/YTFCQgHPwt61p/Ot.ROXryUGoCd7mYCW0dGclW2DOEyWE6k3IeTgVvwY/"
SHADOW = f"labuser:{HASH}:19000:0:99999:7:::\nlocked:!:19000:0:99999:7:::\n"
PASSWD = "root:x:0:0::/root:/bin/sh\nlabuser:x:1000:1000::/tmp:/bin/sh\nlocked:x:1001:1001::/tmp:/bin/sh\n"
RULES = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
ALL = ("pve", "pam")

ASK = """
import asyncio, json, sys
from guestwire.access.realms import is_login, pam_problem
async def main():
    cases = json.loads(sys.argv[1])
    print(json.dumps([pam_problem(), *[await is_login(user, word, None, ("pve", "pam")) for user, word in cases]]))
asyncio.run(main())
"""


LOG_IN = """
import asyncio, json, sys
from guestwire.access.control import Access
from guestwire.access.throttle import Throttle
from guestwire.errors import NotAuthenticated
from guestwire.stores import MemoryStore, User
async def main():
    access, answers = Access(MemoryStore([User("locked@pam")]), throttle=Throttle(0.01)), []
    for user, word in json.loads(sys.argv[1]):
        try:
            await access.login(user, word, "192.0.2.1")
        except NotAuthenticated:
            answers.append(False)
    print(json.dumps([None, *answers]))
asyncio.run(main())
"""


async def ask_pam(folder: Path, *cases: tuple[str, str], script: str = ASK, rules: str = RULES) -> list[bool]:
    """What PAM says in a sandbox with accounts of its own."""
    files = {"/etc/shadow": SHADOW, "/etc/passwd": PASSWD, "/etc/pam.d/login": rules}
    binds = ["--bind", str(folder), str(folder)]
    for number, (place, text) in enumerate(files.items()):
        (folder / str(number)).write_text(text)
        binds += ["--bind", str(folder / str(number)), place]
    process = await asyncio.create_subprocess_exec(
        "bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/", "--dev", "/dev", *binds,
        sys.executable, "-c", script, json.dumps(cases), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    answers: list[bool]
    problem, *answers = json.loads(output)
    assert problem is None
    return answers


@pytest.mark.agent
async def test_accounts_of_the_host_log_in_with_their_passwords_and_nobody_else_does(tmp_path: Path) -> None:
    answers = await ask_pam(
        tmp_path,
        ("labuser@pam", PASSWORD),
        ("labuser@pam", "wrong"),
        ("labuser@pam", ""),
        ("locked@pam", PASSWORD),
        ("ghost@pam", PASSWORD),
        ("labuser@pve", PASSWORD),
        ("labuser\0@pam", PASSWORD),
        ("@pam", PASSWORD),
    )

    assert answers == [True] + [False] * 7


@pytest.mark.agent
async def test_of_an_account_that_is_no_user_pam_is_asked_about_another_name(tmp_path: Path) -> None:
    """It takes as long as for a user, and no stranger can lock an account of the host."""
    asked = tmp_path / "asked"
    asked.touch()
    rules = f"auth optional pam_exec.so log={asked} /usr/bin/printenv PAM_USER\n{RULES}"
    cases = ("labuser@pam", PASSWORD), ("locked@pam", PASSWORD)
    answers = await ask_pam(tmp_path, *cases, script=LOG_IN, rules=rules)

    assert answers == [False, False]
    assert [line for line in asked.read_text().splitlines() if not line.startswith("***")] == [NO_ACCOUNT, "locked"]


async def test_realm_pam_lets_nobody_in_where_it_is_off() -> None:
    assert not await is_login("root@pam", PASSWORD, None, ("pve",))


async def test_realm_pve_knows_its_own_passwords() -> None:
    hashed = await hash_password(PASSWORD)

    assert await is_login("ann@pve", PASSWORD, hashed, ALL)
    assert not await is_login("ann@pve", PASSWORD + " ", hashed, ALL)
    assert not await is_login("ann@pve", PASSWORD, None, ALL)
    assert not await is_login("ann@other", PASSWORD, hashed, ALL)


async def test_a_hash_that_is_none_lets_nobody_in() -> None:
    assert not await is_password("not a hash", PASSWORD)


async def test_the_same_password_has_another_hash_each_time() -> None:
    assert await hash_password(PASSWORD) != await hash_password(PASSWORD)
