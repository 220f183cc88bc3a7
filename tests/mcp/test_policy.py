"""What a policy allows, and a policy's file."""

from pathlib import Path

import pytest

from guestwire.contract import Level
from guestwire.errors import ConfigurationError
from guestwire.mcp.all_tools import TOOLS
from guestwire.mcp.policy import EVERYTHING, Policy, Refused, levels, simple_policy
from guestwire.mcp.policy_file import read_policy

FILE = """\
allow = ["read"]
tools = "every"
dry_run = true

[limits]
seconds = 5
characters = 5000

[[guest]]
guest = ["db-*", 104]
allow = []

[[guest]]
guest = ["web-*"]
allow = ["files", "exec", "power"]
without = ["copy_file"]
ask = ["power", "run_command"]
read = ["/var/log/", "/etc/nginx/**"]
write = ["/etc/nginx/**"]
run = [["systemctl", "status", "*"], { argv = ["tee", "/etc/motd"], input = true, env = ["LANG"] }]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return read(tmp_path, FILE)


def read(folder: Path, text: str) -> Policy:
    (folder / "policy.toml").write_text(text)
    return read_policy(folder / "policy.toml", TOOLS.levels())


def test_every_level_brings_reading_with_it() -> None:
    assert levels(["power"]) == {Level.READ, Level.POWER}
    assert levels(["all"]) == EVERYTHING
    assert levels([]) == frozenset()


def test_the_first_rule_that_names_a_guest_decides(policy: Policy) -> None:
    assert policy.rule_for(104, "web-9").levels == frozenset()
    assert Level.EXEC in policy.rule_for(105, "web-9").levels
    assert policy.rule_for(106, "mail").levels == {Level.READ}
    assert (policy.limits.seconds, policy.every, policy.dry_run) == (5, True, True)


def test_a_refusal_names_the_rule(policy: Policy) -> None:
    with pytest.raises(Refused, match=r"policy\.toml, \[\[guest\]\] 2, without"):
        policy.rule_for(105, "web-9").check_tool("copy_file", Level.FILES)
    with pytest.raises(Refused, match=r"needs 'exec', which is not allowed .* that no"):
        policy.rule_for(106, "mail").check_tool("exec", Level.EXEC)


def test_programs_get_what_their_pattern_gives_them_and_no_more(policy: Policy) -> None:
    rule = policy.rule_for(105, "web-9")
    rule.check_program(["systemctl", "status", "nginx"])
    rule.check_program(["tee", "/etc/motd"], has_input=True, env=["LANG"])
    for argv, options in (
        (["sh"], {}),
        (["systemctl", "status", "nginx"], {"has_input": True}),
        (["tee", "/etc/motd"], {"env": ["LD_PRELOAD"]}),
    ):
        with pytest.raises(Refused):
            rule.check_program(argv, **options)
    with pytest.raises(Refused, match="working directory"):
        rule.check_directory("/tmp")


def test_paths_are_checked_each_for_its_use(policy: Policy) -> None:
    rule = policy.rule_for(105, "web-9")
    rule.check_read("/var/log/syslog")
    rule.check_write("/etc/nginx/nginx.conf")
    for check, path in ((rule.check_write, "/var/log/syslog"), (rule.check_read, "/etc/shadow")):
        with pytest.raises(Refused, match="outside of the paths"):
            check(path)


def test_a_tool_that_is_never_allowed_is_allowed_nowhere() -> None:
    policy = simple_policy(["files"])

    assert policy.allows_anywhere("file_read", Level.FILES)
    assert not policy.allows_anywhere("exec", Level.EXEC)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('allow = ["read"]\nallowed = 1\n', 2, "unknown key 'allowed'"),
        ('allow = ["reads"]\n', 1, "'reads' is no level"),
        ('[[guest]]\nguest = ["a"]\nallow = []\nreed = []\n', 4, "unknown key 'reed'; known are guest, allow"),
        ('[[guest]]\nguest = []\nallow = []\n', 2, "can never match"),
        ('[[guest]]\nguest = ["*"]\nallow = []\n[[guest]]\nguest = ["a"]\nallow = []\n', 5, "can never match: an earlier"),
        ('[[guest]]\nguest = ["a[b"]\nallow = []\n', 2, "is no pattern"),
        ('[[guest]]\nguest = ["a"]\nallow = ["read"]\nread = ["/x"]\n', 4, "can never match: 'files' is not in allow"),
        ('[[guest]]\nguest = ["a"]\nallow = ["files"]\nread = ["x"]\n', 4, "can never match: paths are absolute"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = []\n', 4, "allows nothing"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [["..."]]\n', 4, "names a program|stands at the end"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nask = ["power"]\n', 4, "can never match: 'power'"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nask = ["dance"]\n', 4, "neither a level nor a tool"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nwithout = ["dance"]\n', 4, "no tool 'dance'"),
        ('allow = ["all", "reads"]\n', 1, "'reads' is no level"),
        ('ask = ["run_command"]\n', 1, "can never match: 'exec' is not in allow"),
        ('[[guest]]\nguest = ["web-*"]\nallow = []\n[[guest]]\nguest = ["b", "web-a*"]\nallow = []\n', 5, "'web-a\\*' can never"),
        ('[[guest]]\nguest = ["0104"]\nallow = []\n', 2, "neither a name nor an id"),
        ('[[guest]]\nguest = [""]\nallow = []\n', 2, "neither a name nor an id"),
        ('[[guest]]\nguest = [-4]\nallow = []\n', 2, "'guest'"),
        ('[[guest]]\nguest = ["a"]\nallow = ["files"]\nwithout = ["exec"]\n', 4, "exec needs 'exec', which is not in allow"),
        ('[[guest]]\nguest = ["a"]\nallow = ["files"]\nask = ["shutdown"]\n', 4, "can never match: 'power'"),
        ('[[guest]]\nguest = ["a"]\nallow = ["files"]\nwithout = ["file_read"]\nask = ["file_read"]\n', 5, "is in without"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [[""]]\n', 4, "names a program"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [["cat", "../x*"]]\n', 4, "'../x\\*' can never match"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [{argv = ["a"], env = ["A=B"]}]\n', 4, "'A=B' can never match"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [\n["b"],\n{argv = ["a"], inputs = true}]\n', 4, "'inputs'; known are argv, input, env"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [{input = true}]\n', 4, "'argv' is missing"),
        ('[[guest]]\nguest = ["a"]\nallow = ["exec"]\nrun = [["a", 5]]\n', 4, "'run'"),
        ('copy_folders = ["/no/such"]\n', 1, "no folder on this machine"),
        ("[limits]\nseconds = 0\n", 2, "'seconds'"),
        ('tools = "some"\n', 1, "'tools'"),
        ("allow = [\n", 1, "at line 1, the end"),
        ("[limits]\nseconds = x\n", 2, "at line 2"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_is_refused_with_line_and_reason(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refused:
        read(tmp_path, text)
    assert f"line {line}" in str(refused.value)
