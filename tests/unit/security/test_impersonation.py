"""Acting as someone else takes a right for every part of them."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.errors import ApiError
from k1s.base.http import Headers, Request
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.apiserver.impersonation import IMPERSONATOR, Impersonation

ROOT = UserInfo("root", ("system:masters",))
USER = UserInfo("u", ("system:authenticated",))


@pytest.fixture
def impersonation(informers: Any) -> Impersonation:
    rules = [
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["jane"]},
        {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["dev", "ops"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/team"], "verbs": ["impersonate"]},
    ]
    informers.put("ClusterRole", "r", rules=rules)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    informers.put("ClusterRoleBinding", "b", roleRef=reference, subjects=[{"kind": "User", "name": "u"}])
    return Impersonation(Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, ())))


def request(*fields: tuple[str, str]) -> Request:
    return Request("GET", "/", headers=Headers([(f"Impersonate-{name}", value) for name, value in fields]))


async def test_without_headers_one_stays_oneself(impersonation: Impersonation) -> None:
    assert await impersonation.apply(request(), USER) is USER


@pytest.mark.parametrize(
    ("fields", "groups"),
    [
        ([("User", "jane")], ("system:authenticated",)),
        ([("User", "jane"), ("Group", "dev"), ("Group", "ops")], ("dev", "ops", "system:authenticated")),
    ],
)
async def test_what_is_allowed(impersonation: Impersonation, fields: Any, groups: tuple[str, ...]) -> None:
    assert await impersonation.apply(request(*fields), USER) == UserInfo("jane", groups)


async def test_extra(impersonation: Impersonation) -> None:
    acting = await impersonation.apply(request(("User", "jane"), ("Extra-Team", "a"), ("Extra-team", "b")), USER)
    assert acting.extra == {"team": ("a", "b")}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([("User", "bob")], 'users "bob" is forbidden: User "u" cannot impersonate resource "users" in API group ""'),
        ([("User", "jane"), ("Group", "system:masters")], 'groups "system:masters" is forbidden'),
        ([("User", "jane"), ("Uid", "1")], "uids"),
        ([("User", "jane"), ("Extra-scopes", "all")], "userextras/scopes"),
        ([("User", "system:serviceaccount:ns:sa")], "serviceaccounts"),
    ],
)
async def test_what_is_not(impersonation: Impersonation, fields: Any, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        await impersonation.apply(request(*fields), USER)
    assert caught.value.code == 403
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ([("Group", "dev")], "{Group  dev    }"),
        ([("Uid", "7")], "{UID  7  authentication.k8s.io/v1  }"),
        (
            [("Extra-Scope", "a"), ("Uid", "7")],
            "{UserExtra  a  authentication.k8s.io/v1  scope} {UID  7  authentication.k8s.io/v1  }",
        ),
    ],
)
async def test_parts_of_nobody(impersonation: Impersonation, fields: Any, shown: str) -> None:
    with pytest.raises(ApiError) as caught:
        await impersonation.apply(request(*fields), ROOT)
    assert caught.value.code == 500
    assert caught.value.message == f'Internal Server Error: "/": requested [{shown}] without impersonating a user'


async def test_a_comma_is_part_of_a_group(impersonation: Impersonation) -> None:
    acting = await impersonation.apply(request(("User", "jane"), ("Group", "cn=a,ou=b"), ("Group", "c")), ROOT)
    assert acting.groups == ("cn=a,ou=b", "c", "system:authenticated")


async def test_the_first_user_counts_and_nothing_is_left_for_those_behind(impersonation: Impersonation) -> None:
    asked = request(("User", "jane"), ("USER", "root"), ("Extra-team", "a"))
    acting = await impersonation.apply(asked, USER)
    assert acting.name == "jane"
    assert not [name for name in asked.headers if name.startswith("impersonate")]
    assert asked.context[IMPERSONATOR] is USER


async def test_an_empty_group_is_asked_for_too(impersonation: Impersonation) -> None:
    with pytest.raises(ApiError) as caught:
        await impersonation.apply(request(("User", "jane"), ("Group", "")), USER)
    assert caught.value.code == 403


async def test_escaped_keys_of_extra(impersonation: Impersonation) -> None:
    acting = await impersonation.apply(request(("User", "jane"), ("Extra-Acme%2eio%2fTeam", "a")), ROOT)
    assert acting.extra == {"acme.io/team": ("a",)}


async def test_implied_groups(impersonation: Impersonation) -> None:
    account = await impersonation.apply(request(("User", "system:serviceaccount:ns:sa")), ROOT)
    assert account.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
    nobody = await impersonation.apply(request(("User", "system:anonymous")), ROOT)
    assert nobody.groups == ("system:unauthenticated",)
