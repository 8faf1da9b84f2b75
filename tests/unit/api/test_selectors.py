"""Selectors: what they match, how they print, how they refuse."""

from __future__ import annotations

import pytest

from k1s.api.errors import ApiError
from k1s.api.selectors import labels_from, parse_fields, parse_labels

UNABLE = "unable to parse requirement: "


@pytest.mark.parametrize(
    "text, shown",
    [
        ("", ""),
        ("a=b", "a=b"),
        ("a==b", "a==b"),
        ("a != b", "a!=b"),
        ("x in (b,a)", "x in (a,b)"),
        ("x notin (a)", "x notin (a)"),
        ("!x", "!x"),
        ("x", "x"),
        ("b=1, a=2", "a=2,b=1"),
        ("x>1,y<2", "x>1,y<2"),
        ("in in (in)", "in in (in)"),
        ("x in (a,,b)", "x in (,a,b)"),
        ("x in ()", "x in ()"),
        ("x=", "x="),
        ("x in ()x", None),
        ("notin", "notin"),
        ("example.com/x=y", "example.com/x=y"),
    ],
)
def test_parse(text: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(ApiError):
            parse_labels(text)
    else:
        assert str(parse_labels(text)) == shown


@pytest.mark.parametrize(
    "text, message",
    [
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a>b", UNABLE + "values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer"),
        (
            "a=-b",
            UNABLE + 'values[0][a]: Invalid value: "-b": '
            "a valid label must be an empty string or consist of "
            "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
            "(e.g. 'MyValue',  or 'my_value',  or '12345', "
            "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_labels(text)
    assert caught.value.code == 400
    assert caught.value.message == message


@pytest.mark.parametrize(
    "text, labels, matches",
    [
        ("a=1", {"a": "1"}, True),
        ("a=1", {}, False),
        ("a!=1", {}, True),
        ("a notin (1)", {}, True),
        ("a notin (1)", {"a": "1"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a>1", {"a": "2"}, True),
        ("a>1", {"a": "x"}, False),
        ("a<1", {}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("", {"x": "y"}, True),
        ("a in (1,2),b", {"a": "2", "b": ""}, True),
    ],
)
def test_matches(text: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_labels(text).matches(labels) is matches


def test_metav1() -> None:
    assert not labels_from(None).matches({}) and not labels_from(None).empty
    assert labels_from({}).matches({"a": "b"}) and labels_from({}).empty
    selector = labels_from(
        {
            "matchLabels": {"app": "x"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "z", "operator": "DoesNotExist"},
            ],
        }
    )
    assert str(selector) == "app=x,tier in (a,b),!z"
    assert selector.matches({"app": "x", "tier": "a"}) and not selector.matches({"app": "x", "tier": "a", "z": ""})
    with pytest.raises(ApiError, match='"Gt" is not a valid label selector operator'):
        labels_from({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]})
    assert parse_labels(str(selector)) == selector


def test_fields() -> None:
    selector = parse_fields(r"metadata.name=a\,b,status.phase!=Failed,x==y,,z=\=\\")
    assert [(r.field, r.operator, r.value) for r in selector.requirements] == [
        ("metadata.name", "=", "a,b"),
        ("status.phase", "!=", "Failed"),
        ("x", "=", "y"),
        ("z", "=", "=\\"),
    ]
    assert parse_fields(str(selector)).requirements == selector.requirements
    assert parse_fields("metadata.name=x").required_value("metadata.name") == "x"
    with pytest.raises(ApiError, match="invalid selector: 'a'; can't understand 'a'"):
        parse_fields("a")
    with pytest.raises(ApiError, match="invalid field selector: unescaped character in value: ="):
        parse_fields("a=b=c")
    with pytest.raises(ApiError, match="invalid field selector: invalid escape sequence"):
        parse_fields("a=b\\c")
