"""Two pieces of code read policy rules: the one that decides requests and the one that guards against escalation.

They must never disagree: whatever a rule does not allow must count as missing, or somebody could grant it to themselves.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.api.rules import missing_rules
from k1s.server.apiserver.authz.rules import RuleSet

VERBS, GROUPS, NAMES = ("get", "list"), ("", "apps"), ("a", "b")
RESOURCES = ("pods", "pods/log", "deployments", "deployments/scale")
PATHS = ("/healthz", "/healthz/etcd", "/api/v1")


def some(values: tuple[str, ...], *wild: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from((*values, "*", *wild)), max_size=2, unique=True)


RESOURCE_RULES = st.fixed_dictionaries(
    {"verbs": some(VERBS), "apiGroups": some(GROUPS), "resources": some(RESOURCES, "*/scale", "*/log")},
    optional={"resourceNames": st.lists(st.sampled_from(NAMES), max_size=2, unique=True)},
)
PATH_RULES = st.fixed_dictionaries({"verbs": some(VERBS), "nonResourceURLs": some(PATHS, "/healthz/*", "/api*")})
RULES = st.lists(st.one_of(RESOURCE_RULES, PATH_RULES), max_size=3)


@settings(max_examples=300, deadline=None)
@given(RULES, st.sampled_from(VERBS), st.sampled_from(GROUPS), st.sampled_from(RESOURCES), st.sampled_from(NAMES))
def test_resources(rules: list[dict[str, Any]], verb: str, group: str, combined: str, name: str) -> None:
    resource, _, subresource = combined.partition("/")
    right = {"verbs": [verb], "apiGroups": [group], "resources": [combined], "resourceNames": [name]}
    assert RuleSet(rules).allows(verb, group, resource, subresource, name) == (not missing_rules(rules, [right]))


@settings(max_examples=200, deadline=None)
@given(RULES, st.sampled_from(VERBS), st.sampled_from(PATHS))
def test_paths(rules: list[dict[str, Any]], verb: str, path: str) -> None:
    right = {"verbs": [verb], "nonResourceURLs": [path]}
    assert RuleSet(rules).allows_path(verb, path) == (not missing_rules(rules, [right]))
