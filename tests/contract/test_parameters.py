"""The rules of parameters and the words of Proxmox VE; the tables are recorded answers of it."""

from typing import Annotated, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Meta

from guestwire.contract import Parameters, rules, validate
from guestwire.contract.parameters import LONGEST_INTEGER, NodeParameters, Role, RoleBy, Rule, VmParameters, parameter
from guestwire.contract.registry import ENDPOINTS
from guestwire.errors import InvalidParameters

MISSING = "property is missing and it is not optional"
UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
NO_VMID = "invalid format - value does not look like a valid VM ID\n"
NO_NODE = "invalid format - value does not look like a valid node name\n"
ARRAY = "type check ('array') failed"


class Every(Parameters, frozen=True, kw_only=True):
    """One parameter of each kind; only `text` must be there."""

    text: str
    limited_text: Annotated[str, Meta(min_length=5, max_length=8)] | None = None
    choice: Annotated[str, Meta(extra={"enum": ("get-time", "ping")})] = "ping"
    number: int | None = None
    limited_number: Annotated[int, Meta(ge=1, le=16777216)] = 7
    flag: bool = True
    words: list[str] | None = None
    password: Annotated[str, parameter("A secret.", Role.SECRET)] = "none"


class Open(Parameters, frozen=True, kw_only=True):
    ignore_unknown = True

    number: int


def refusals(parameters: type[Parameters], **given_: Any) -> dict[str, str]:
    with pytest.raises(InvalidParameters) as caught:
        validate(parameters, {name.replace("_", "-"): value for name, value in given_.items()})
    return caught.value.errors


def accepted(**given_: Any) -> Every:
    return validate(Every, {"text": "", **{name.replace("_", "-"): value for name, value in given_.items()}})


def test_what_is_not_given_has_its_default() -> None:
    assert validate(Every, {"text": "x"}) == Every(
        text="x",
        limited_text=None,
        choice="ping",
        number=None,
        limited_number=7,
        flag=True,
        words=None,
        password="none",
    )


def test_names_have_dashes_outside_and_underscores_inside() -> None:
    assert accepted(limited_number="5").limited_number == 5
    assert refusals(VmParameters, node="n", vmid="100", a_b="") == {"a-b": UNKNOWN}


@pytest.mark.parametrize("given_", [{}, {"text": None}])
def test_what_is_missing_or_null_is_refused_when_it_is_required(given_: dict[str, Any]) -> None:
    assert refusals(Every, **given_) == {"text": MISSING}


def test_null_counts_as_absent() -> None:
    assert validate(Every, {"text": "x", "flag": None, "limited-number": None, "words": None}) == Every(text="x")


@pytest.mark.parametrize("value", ["", "x", None, 5, [], {}])
def test_what_is_unknown_is_refused_whatever_its_value(value: Any) -> None:
    assert refusals(Every, text="x", foo=value) == {"foo": UNKNOWN}


def test_what_is_unknown_is_ignored_where_others_are_allowed() -> None:
    assert validate(Open, {"number": "5", "foo": {"a": [1]}}) == Open(number=5)


def test_where_others_are_allowed_what_is_known_is_still_checked() -> None:
    assert refusals(Open, foo=1, number="x") == {"number": "type check ('integer') failed - got 'x'"}


def test_every_mistake_is_named_at_once() -> None:
    assert refusals(VmParameters, vmid="abc", foo="1") == {
        "node": MISSING,
        "vmid": "type check ('integer') failed - got 'abc'",
        "foo": UNKNOWN,
    }


@pytest.mark.parametrize(
    ("value", "number"),
    [("0", 0), ("007", 7), ("+5", 5), ("-1", -1), ("-0", 0), (5, 5), (-5, -5), (5.0, 5), ("9" * 20, 10**20 - 1)],
)
def test_an_integer_is_a_sign_and_digits(value: Any, number: int) -> None:
    assert accepted(number=value).number == number


@pytest.mark.parametrize(
    "text", ["", " ", " 1", "1 ", "1\n", "1.5", "1.0", "1e3", "0x10", "1_000", "+", "--1", "abc", "٣", "½"]
)
def test_any_other_text_is_no_integer(text: str) -> None:
    assert refusals(Every, text="x", number=text) == {"number": f"type check ('integer') failed - got '{text}'"}


@pytest.mark.parametrize(("value", "printed"), [(1.5, "1.5"), (1e20, "1e+20"), (-0.1, "-0.1")])
def test_a_broken_number_is_no_integer_and_shown_as_perl_prints_it(value: float, printed: str) -> None:
    assert refusals(Every, text="x", number=value) == {"number": f"type check ('integer') failed - got '{printed}'"}


def test_an_integer_may_be_long_but_not_endless() -> None:
    assert accepted(number="9" * LONGEST_INTEGER).number == int("9" * LONGEST_INTEGER)
    assert refusals(Every, text="x", number="9" * (LONGEST_INTEGER + 1)).keys() == {"number"}


def test_the_text_about_an_endless_integer_is_not_endless() -> None:
    assert len(refusals(Every, text="x", number="9" * 1_000_000)["number"]) < LONGEST_INTEGER + 100


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0", "value must have a minimum value of 1"),
        ("-1", "value must have a minimum value of 1"),
        ("16777217", "value must have a maximum value of 16777216"),
        ("99999999999999999999", "value must have a maximum value of 16777216"),
    ],
)
def test_an_integer_out_of_its_limits_is_refused(value: str, problem: str) -> None:
    assert refusals(Every, text="x", limited_number=value) == {"limited-number": problem}


@pytest.mark.parametrize("value", ["1", "16777216"])
def test_the_limits_themselves_are_inside(value: str) -> None:
    assert accepted(limited_number=value).limited_number == int(value)


@pytest.mark.parametrize(
    ("value", "flag"), [("0", False), ("1", True), (0, False), (1, True), (False, False), (True, True)]
)
def test_a_boolean_is_0_1_false_or_true(value: Any, flag: bool) -> None:  # a column of a table
    assert accepted(flag=value).flag is flag


@pytest.mark.parametrize(
    "value",
    ["", "true", "false", "yes", "no", "on", "off", "TRUE", "True", "On", "2", "bad", "01", " 1", "-1", "1.0", "1\n"],
)
def test_any_other_text_is_no_boolean(value: str) -> None:
    assert refusals(Every, text="x", flag=value) == {"flag": f"type check ('boolean') failed - got '{value}'"}


@pytest.mark.parametrize(("value", "printed"), [(2, "2"), (-1, "-1"), (0.5, "0.5")])
def test_any_other_number_is_no_boolean(value: float, printed: str) -> None:
    assert refusals(Every, text="x", flag=value) == {"flag": f"type check ('boolean') failed - got '{printed}'"}


@pytest.mark.parametrize(
    ("value", "text"), [("", ""), ("ü€😀\0\n", "ü€😀\0\n"), (12345, "12345"), (1.5, "1.5"), (2.0, "2")]
)
def test_a_string_is_any_text_and_numbers_as_perl_prints_them(value: Any, text: str) -> None:
    assert validate(Every, {"text": value}).text == text


@pytest.mark.parametrize(
    ("name", "kind"), [("text", "string"), ("choice", "string"), ("number", "integer"), ("flag", "boolean")]
)
@pytest.mark.parametrize(("value", "got"), [([], "ARRAY"), (["1"], "ARRAY"), ({}, "HASH"), ({"a": 1}, "HASH")])
def test_a_scalar_is_no_array_and_no_object(name: str, kind: str, value: Any, got: str) -> None:
    assert refusals(Every, **{"text": "x", name: value}) == {name: f"type check ('{kind}') failed - got {got}"}


@pytest.mark.parametrize(("name", "kind"), [("text", "string"), ("choice", "string"), ("number", "integer")])
@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_nothing_but_booleans(name: str, kind: str, value: bool) -> None:  # a column
    expected = {name: f"type check ('{kind}') failed - got JSON::PP::Boolean"}

    assert refusals(Every, **{"text": "x", name: value}) == expected


@pytest.mark.parametrize("text", ["a" * 5, "a" * 8, "ü" * 5, "世" * 8, "😀" * 8])
def test_lengths_count_characters(text: str) -> None:
    assert accepted(limited_text=text).limited_text == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "value must be at least 5 characters long"),
        ("世" * 4, "value must be at least 5 characters long"),
        ("a" * 9, "value may only be 8 characters long"),
    ],
)
def test_a_text_out_of_its_limits_is_refused(text: str, problem: str) -> None:
    assert refusals(Every, text="x", limited_text=text) == {"limited-text": problem}


@pytest.mark.parametrize(
    ("value", "shown"), [("nope", "nope"), ("", ""), ("PING", "PING"), ("ping ", "ping "), (5, "5")]
)
def test_what_is_not_in_an_enumeration_is_refused_with_all_that_is(value: Any, shown: str) -> None:
    expected = f"value '{shown}' does not have a value in the enumeration 'get-time, ping'"

    assert refusals(Every, text="x", choice=value) == {"choice": expected}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", "b c"], ["a", "b c"]),
        ([], []),
        ([""], [""]),
        ([1, 1.5], ["1", "1.5"]),
        ("/bin/echo a b", ["/bin/echo a b"]),
        ("00", ["00"]),
        (" ", [" "]),
        (5, ["5"]),
    ],
)
def test_an_array_is_a_list_of_texts_or_one_scalar_that_is_not_split(value: Any, words: list[str]) -> None:
    assert accepted(words=value).words == words


@pytest.mark.parametrize("value", ["", "0", 0, 0.0, {}, {"a": 1}, True, False])
def test_what_perl_takes_for_false_and_what_is_no_scalar_is_no_array(value: Any) -> None:
    assert refusals(Every, text="x", words=value) == {"words": ARRAY}


def test_a_wrong_member_of_an_array_is_named_by_its_position() -> None:
    assert refusals(Every, text="x", words=["ok", None, {"a": 1}, [], True]) == {
        "words[1]": MISSING,
        "words[2]": "type check ('string') failed - got HASH",
        "words[3]": "type check ('string') failed - got ARRAY",
        "words[4]": "type check ('string') failed - got JSON::PP::Boolean",
    }


@pytest.mark.parametrize("vmid", ["100", "999999999", 100, "123456"])
def test_a_vmid_has_three_to_nine_digits(vmid: Any) -> None:
    assert validate(VmParameters, {"node": "n", "vmid": vmid}).vmid == int(vmid)


@pytest.mark.parametrize(
    ("vmid", "problem"),
    [
        ("99", NO_VMID),
        ("0", NO_VMID),
        ("0100", NO_VMID),
        ("+100", NO_VMID),
        ("-100", NO_VMID),
        ("1000000000", NO_VMID),
        (99, NO_VMID),
        ("abc", "type check ('integer') failed - got 'abc'"),
        ("100.0", "type check ('integer') failed - got '100.0'"),
        ("1e3", "type check ('integer') failed - got '1e3'"),
        ("100\n", "type check ('integer') failed - got '100\n'"),
        ("١٠٠", "type check ('integer') failed - got '١٠٠'"),
    ],
)
def test_any_other_vmid_is_refused(vmid: Any, problem: str) -> None:
    assert refusals(VmParameters, node="n", vmid=vmid) == {"vmid": problem}


@pytest.mark.parametrize("node", ["n", "pve1", "PVE-1", "0", "a--b", "localhost", "x" * 200])
def test_a_node_is_letters_digits_and_dashes(node: str) -> None:
    assert validate(NodeParameters, {"node": node}).node == node


@pytest.mark.parametrize("node", ["", "-", "-a", "a-", "_bad", "a b", "a.b", "a\n", "ä", "a/b", "127.0.0.1"])
def test_any_other_node_is_refused(node: str) -> None:
    assert refusals(NodeParameters, node=node) == {"node": NO_NODE}


@pytest.mark.parametrize("name", ["text", "limited-text", "choice", "number", "flag", "password"])
def test_half_a_character_is_refused_everywhere(name: str) -> None:
    assert refusals(Every, **{"text": "x", name: "\ud800aaaa"}) == {name: "value is not UTF-8 text"}


def test_half_a_character_is_refused_in_an_array() -> None:
    assert refusals(Every, text="x", words=["a", "\udcff"]) == {"words[1]": "value is not UTF-8 text"}


def test_rules_say_what_the_fields_say() -> None:
    known = rules(Every)

    assert list(known) == [
        "text",
        "limited-text",
        "choice",
        "number",
        "limited-number",
        "flag",
        "words",
        "password",
    ]
    assert known["text"] == Rule("text", "text", "string", required=True)
    assert known["limited-text"] == Rule(
        "limited-text", "limited_text", "string", required=False, min_length=5, max_length=8
    )
    assert known["choice"] == Rule(
        "choice", "choice", "string", required=False, default="ping", enum=("get-time", "ping")
    )
    assert known["number"] == Rule("number", "number", "integer", required=False)
    assert known["limited-number"] == Rule(
        "limited-number", "limited_number", "integer", required=False, default=7, minimum=1, maximum=16777216
    )
    assert known["flag"] == Rule("flag", "flag", "boolean", required=False, default=True)
    assert known["words"] == Rule("words", "words", "array", required=False)
    assert known["password"] == Rule(
        "password",
        "password",
        "string",
        required=False,
        default="none",
        role=Role.SECRET,
        description="A secret.",
    )


def test_rules_of_a_base_come_first() -> None:
    assert list(rules(VmParameters)) == ["node", "vmid"]
    assert rules(VmParameters)["vmid"].format == "pve-vmid"


TEXTS = st.text(st.characters()) | st.text(st.sampled_from("0123456789+- .ex\n\ud800ü世"))
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 100.0])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
LIKELY = st.integers(0, 9) | st.booleans() | st.sampled_from(["1", "ping", "abcde"]) | st.lists(st.text(), max_size=2)
IN_PATH = {"node", "vmid"}
STRUCTS = sorted({endpoint.parameters for endpoint in ENDPOINTS} | {Every, Open}, key=lambda struct: struct.__name__)


def outcome(parameters: type[Parameters], given_: dict[str, Any]) -> Parameters | InvalidParameters:
    try:
        return validate(parameters, given_)
    except InvalidParameters as error:
        return error


@given(st.sampled_from(STRUCTS), st.data())
def test_whatever_is_given_makes_a_struct_or_texts_for_names(parameters: type[Parameters], data: st.DataObject) -> None:
    known = set(rules(parameters))
    names = st.sampled_from(sorted(known | {"other"})) | TEXTS
    given_ = {"node": "n", "vmid": "100"} | data.draw(st.dictionaries(names, JSON, max_size=12))
    result = outcome(
        parameters, {name: value for name, value in given_.items() if name in known or name not in IN_PATH}
    )

    if isinstance(result, InvalidParameters):
        assert result.errors
        assert {name.partition("[")[0] if name not in given_ else name for name in result.errors} <= known | {*given_}
        assert all(text.encode() for text in result.errors.values())
    else:
        assert type(result) is parameters


def mostly_fitting(rule: Rule) -> st.SearchStrategy[Any]:
    """So that most of what is drawn is accepted, and the rest is anything."""
    fitting: st.SearchStrategy[Any] = {
        "integer": st.integers(rule.minimum or 0, rule.maximum or 100),
        "boolean": st.booleans(),
        "array": st.lists(st.text(max_size=3), max_size=2),
        "string": st.sampled_from(rule.enum) if rule.enum else st.just("abcde"),
    }[rule.kind]
    return st.one_of(fitting, fitting, fitting, fitting, LIKELY | JSON)


@given(st.data())
def test_what_is_accepted_keeps_all_rules(data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(list(rules(Every))), max_size=4))
    given_ = {"text": "x"} | {name: data.draw(mostly_fitting(rules(Every)[name])) for name in sorted(names)}
    made = outcome(Every, given_)
    assume(isinstance(made, Every))

    for name, rule in rules(Every).items():
        value = getattr(made, rule.attribute)
        assert value == rule.default if given_.get(name) is None else keeps(rule, value)


def keeps(rule: Rule, value: Any) -> bool:
    match rule.kind:
        case "integer":
            return type(value) is int and (rule.minimum or value) <= value <= (rule.maximum or value)
        case "boolean":
            return type(value) is bool
        case "array":
            return type(value) is list and all(type(item) is str for item in value)
        case _:
            fits = (rule.min_length or 0) <= len(value) <= (rule.max_length or len(value))
            return type(value) is str and fits and (not rule.enum or value in rule.enum)


@given(st.integers())
def test_an_integer_comes_back_from_its_text_and_from_itself(number: int) -> None:
    assert accepted(number=str(number)).number == accepted(number=number).number == number


@given(st.text())
def test_a_text_comes_back_as_it_is(text: str) -> None:
    assert validate(Every, {"text": text}).text == text


def test_what_may_be_a_secret_is_one() -> None:
    may_be = RoleBy("kind", {"open": Role.TEXT, "closed": Role.SECRET})

    assert Rule("x", "x", "string", required=True, role=may_be).is_secret
    assert not Rule("x", "x", "string", required=True, role=RoleBy("kind", {"open": Role.TEXT})).is_secret
