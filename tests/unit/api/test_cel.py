"""CEL: the language, Kubernetes' functions, and errors in upstream's words."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.cel.authorizer import Question, answered_by, variable
from k1s.api.cel.optional import NONE, Optional
from k1s.api.cel.program import CompileError, CostExceeded, EvaluationError, compile_expression
from k1s.api.cel.values import escaped
from k1s.api.defaults.table import apply_defaults
from k1s.api.errors import FieldError
from k1s.api.validation.table import validate_create

SELF = frozenset({"self"})


def value(expression: str, self: Any = None) -> Any:
    return compile_expression(expression, SELF).evaluate({"self": self})


TRUE = """
quantity('1').isGreaterThan(quantity('500m')) && quantity('1k') == quantity('1000')
quantity('1').add(1).compareTo(quantity('2')) == 0 && quantity('50').sub(quantity('20')).asApproximateFloat() == 30.0
quantity('1Ki').asInteger() == 1024 && !quantity('1.5').isInteger() && quantity('-1').sign() == -1 && !isQuantity('x')
semver('1.2.3').isLessThan(semver('1.2.4-rc.1')) && semver('1.0.0-rc.2').isLessThan(semver('1.0.0'))
semver('v1.02', true).minor() == 2 && !isSemver('v1.0') && semver('1.0.0+a') == semver('1.0.0+b')
ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4')
ip('2001:db8::abcd') == ip('2001:DB8::ABCD') && !ip.isCanonical('2001:DB8::ABCD')
ip('10.0.0.1').isGlobalUnicast() && ip('224.0.0.1').isLinkLocalMulticast() && ip('fe80::1').isLinkLocalUnicast()
cidr('10.0.0.0/8').containsIP('10.1.1.1') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.0'))
cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16')) && string(cidr('10.1.2.3/8').masked()) == '10.0.0.0/8'
cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && cidr('::/7').prefixLength() == 7 && !isCIDR('10.0.0.0/33')
url('https://u@h.io:80/a?x=1&x=2').getHost() == 'h.io:80' && url('https://h:80').getPort() == '80'
url('https://[::1]:80/a?x=1&x=2').getHostname() == '::1' && url('https://h/?x=1&x=2').getQuery()['x'] == ['1', '2']
url('/a%20b').getEscapedPath() == '/a%20b' && url('https://h/').getScheme() == 'https' && !isURL('../x') && isURL('/x')
'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]') == '' && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']
[1, 2].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && ['a', 'b'].max() == 'b'
[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(2) == -1
sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])
!format.dns1123Label().validate('good').hasValue() && format.dns1123Label().validate('Bad').hasValue()
format.named('uri').value().validate('nope').value() == ['invalid URI'] && !format.named('nope').hasValue()
'%s is %d'.format(['a', 1]) == 'a is 1' && 'a,b'.split(',').join('-') == 'a-b' && ' A '.trim().lowerAscii() == 'a'
{'a': {'b': 1}}.?a.?b.orValue(2) == 1 && {'a': 1}.?b.orValue(2) == 2 && [1][?3].orValue(4) == 4
has({'a': 1}.a) && !has({'a': 1}.b) && [1, 2].exists_one(x, x == 1) && {'a': 1}.all(k, k == 'a')
[1, 2].all(i, v, v == i + 1) && ['a'].transformList(i, v, v + string(i)) == ['a0'] && {'a': 1}.exists(k, v, k == 'a' && v == 1)
{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 2) == {'b': 4} && ['x', 'y'].transformMapEntry(i, v, {v: i}) == {'x': 0, 'y': 1}
optional.of(2).optMap(x, x + 1).orValue(0) == 3 && optional.none().or(optional.of(1)).value() == 1
[optional.of(1)].unwrapOpt() == [1]
[3, 1, 2].sort() == [1, 2, 3] && [1, 1, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2]
lists.range(3).reverse() == [2, 1, 0]
[1, 2, 3].slice(1, 2) == [2] && [1, 2].first().value() == 1 && [1, 2].includes(2) && ['b', 'a'].sortBy(x, x) == ['a', 'b']
timestamp('2026-01-01T23:30:00.5Z').getHours('+01:00') == 0 && string(duration('90s')) == '90s'
string(timestamp('2026-01-01T00:00:00.5Z')) == '2026-01-01T00:00:00.5Z'
timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')
int(timestamp('1970-01-01T00:01:00Z')) == 60
dyn(1) == 1.0 && dyn(1u) == 1 && 1 < 1.5 && 2u > 1 && string(1.0) == '1' && string(1e21) == '1e+21' && -7 / 2 == -3
-7 % 2 == -1
'%s %d %.2f %x %b'.format(['a', 1, 1.5, 255, 5]) == 'a 1 1.50 ff 101' && strings.quote('ab') == '"ab"' && 'héllo'.charAt(1) == 'é'
(self == null || self.nope) && !(self != null && self.nope) && type(1u) == uint && type('') == string
[1, 0].exists(x, 1 / x == 1) && [0, 1].exists(x, 1 / x == 1)
duration('1h') > duration('59m') && timestamp('2026-01-01T00:00:00Z').getFullYear() == 2026 && dyn(1) < 1.5
""".strip().splitlines()


@pytest.mark.parametrize("expression", TRUE)
def test_true(expression: str) -> None:
    assert value(expression) is True


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("self.x", "no such key: x"),
        ("self.l[7]", "index out of bounds: 7"),
        ("1 / self.zero", "division by zero"),
        ("1 % self.zero", "modulus by zero"),
        ("9223372036854775807 + self.one", "integer overflow"),
        ("self.one + 'a'", "no such overload"),
        ("self.one.isGreaterThan(quantity('1'))", "no such overload"),
        ("quantity('1').isGreaterThan(dyn(semver('1.0.0')))", "no such overload"),
        ("quantity('x')", "quantities must match the regular expression"),
        ("[].max()", "max called on empty list"),
        ("'aaaa'.find(self.open)", "missing closing )"),
        ("authorizer", "no such key"),
    ],
)
def test_errors(expression: str, words: str) -> None:
    bindings = {"self": {"l": [], "zero": 0, "one": 1, "open": "(a"}, "authorizer": None}
    if expression == "authorizer":
        expression = "self.authorizer"
    with pytest.raises(EvaluationError, match=re.escape(words)):
        compile_expression(expression, SELF).evaluate(bindings)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("nope", "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')"),
        ("nope.a.b == 1", "undeclared reference to 'nope' (in container '')"),
        ("self.", "Syntax error"),
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("true" + " || true" * 5000, "longer than"),
        ("[1, 'a'].size() > 0", "expected type 'int' but found 'string'"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("duration('1x') > duration('1s')", "invalid duration argument"),
        ("optional.of(1).orValue('a') == 1", "found no matching overload for 'orValue' applied to 'optional_type(int).(string)'"),
        ("1.all(x, x)", "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"),
    ],
)
def test_compile_errors(expression: str, words: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_expression(expression, SELF)
    assert words in str(caught.value)


def test_a_budget_bounds_every_evaluation() -> None:
    with pytest.raises(CostExceeded, match="cost limit exceeded"):
        value("self.all(x, self.all(y, x == y || true))", [1] * 600)


def test_optional_values_come_in() -> None:
    program = compile_expression("oldSelf.hasValue() ? oldSelf.value() < self : self == 1", {"self", "oldSelf"})
    assert program.evaluate({"self": 1, "oldSelf": NONE}) is True
    assert program.evaluate({"self": 1, "oldSelf": Optional(True, 3)}) is False


def test_programs_are_shared() -> None:
    assert compile_expression("self == 77", SELF) is compile_expression("self == 77", {"self"})
    assert compile_expression("self == 77", SELF).result == "BOOL"


def test_the_authorizer_asks() -> None:
    asked: list[Question] = []

    def decide(question: Question) -> tuple[bool, str]:
        asked.append(question)
        return question.verb == "get", "because"

    program = compile_expression("authorizer.requestResource.check('get').reason()", {"authorizer"})
    with answered_by(decide):
        assert program.evaluate({"authorizer": variable("apps", "deployments", "", "ns", "d")}) == "because"
    assert asked == [Question("get", "", "apps", "deployments", "", "ns", "d")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "plain"),
        ("namespace", "__namespace__"),
        ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
        ("a__b", "a__underscores__b"),
        ("1a", ""),
        ("a$", ""),
    ],
)
def test_names_are_escaped(name: str, expected: str) -> None:
    assert escaped(name) == expected


def test_the_runtime_is_loaded_by_the_first_expression_only() -> None:
    program = "import sys, k1s.api.validation.table, k1s.api.cel.program; print(any('cel_expr' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def policy_faults(**spec: Any) -> list[FieldError]:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]
    obj = {
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"},
        "spec": {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "true"}], **spec},
    }
    apply_defaults(builtin("ValidatingAdmissionPolicy"), obj)
    return validate_create(builtin("ValidatingAdmissionPolicy"), obj)


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"validations": [{"expression": "nope"}]}, "validations[0].expression", "undeclared reference to 'nope'"),
        ({"validations": [{"expression": "1"}]}, "validations[0].expression", "must evaluate to bool"),
        ({"validations": [{"expression": "params == null"}]}, "validations[0].expression", "undeclared reference to 'params'"),
        ({"validations": [{"expression": "variables.a == 1"}]}, "validations[0].expression", "undefined field 'a'"),
        ({"validations": [{"expression": "true", "messageExpression": "1"}]}, "validations[0].messageExpression", "string"),
        ({"validations": [{"expression": "true", "reason": "Odd"}]}, "validations[0].reason", ""),
        ({"variables": [{"name": "a-b", "expression": "1"}]}, "variables[0].name", "not a valid CEL identifier"),
        ({"variables": [{"name": "a", "expression": "variables.a"}]}, "variables[0].expression", "undefined field 'a'"),
        ({"matchConditions": [{"name": "x", "expression": "'a'"}]}, "matchConditions[0].expression", "must evaluate to bool"),
        ({"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}, "auditAnnotations[0].valueExpression", "must evaluate"),
    ],
)
def test_wrong_expressions_refuse_a_policy(spec: dict[str, Any], field: str, words: str) -> None:
    (fault,) = policy_faults(**spec)
    assert fault.field == f"spec.{field}" and words in fault.detail


def test_a_policy_that_is_right() -> None:
    variables = [{"name": "a", "expression": "object.spec"}, {"name": "b", "expression": "variables.a.x"}]
    checks = [{"expression": "variables.b == params.data.x", "messageExpression": "'b is ' + variables.b"}]
    assert policy_faults(variables=variables, validations=checks, paramKind={"apiVersion": "v1", "kind": "ConfigMap"}) == []
