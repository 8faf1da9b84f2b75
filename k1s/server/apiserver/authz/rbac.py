"""Role-based access control over the live roles and bindings.

Owns: RbacAuthorizer, the cache of what each user may do. Called by: authz/app, reviews, escalation checks.
Never does: I/O (it reads informers), default roles (bootstrap).
Source: upstream plugin/pkg/auth/authorizer/rbac.

A user's rules are gathered once per (name, groups, namespace) and kept until any role or binding changes (cache: 1024
users x namespaces, least recently used goes). Bindings are found through an index by subject, never by scanning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authz.rules import Rule, RuleSet

_CACHE_SIZE = 1024
# No namespace has a longer name, but a path may, a stranger's too: that is not remembered.
_LONGEST_NAMESPACE = 63
_INDEX = "rbac-subject"

_Key = tuple[str, tuple[str, ...], str]


class RbacAuthorizer:
    """Yes or no opinion; RBAC never denies."""

    def __init__(self, informers: InformerFactory) -> None:
        self._cluster_roles = informers.informer(builtin("ClusterRole"))
        self._roles = informers.informer(builtin("Role"))
        self._cluster_bindings = informers.informer(builtin("ClusterRoleBinding"))
        self._bindings = informers.informer(builtin("RoleBinding"))
        self._cache: OrderedDict[_Key, tuple[RuleSet, tuple[str, ...]]] = OrderedDict()
        for bindings in (self._cluster_bindings, self._bindings):
            bindings.add_index(_INDEX, _subject_keys)
        for informer in (self._cluster_roles, self._roles, self._cluster_bindings, self._bindings):
            informer.add_handler(self._changed)

    async def synced(self) -> None:
        for informer in (self._cluster_roles, self._roles, self._cluster_bindings, self._bindings):
            await informer.synced()

    def allowed(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        """Whether some rule lets the request through; the reason lists bindings to roles that do not exist."""
        rules, errors = self._rules(user, info.namespace if info.is_resource else "")
        if info.is_resource:
            good = rules.allows(info.verb, info.group, info.plural, info.subresource, info.name)
        else:
            good = rules.allows_path(info.verb, info.path)
        if good:
            return True, ""
        return False, f"RBAC: {_joined(errors)}" if errors else ""

    def why(self, user: UserInfo, info: RequestInfo) -> str:
        """Which binding lets a request through, as a SubjectAccessReview says it; "" if none does."""
        namespace = info.namespace if info.is_resource else ""
        for binding in self._bindings_of(user, namespace):
            rules = RuleSet(self.role_rules(binding.get("roleRef") or {}, binding["metadata"].get("namespace", "")) or ())
            if info.is_resource:
                good = rules.allows(info.verb, info.group, info.plural, info.subresource, info.name)
            else:
                good = rules.allows_path(info.verb, info.path)
            if good:
                return f"RBAC: allowed by {_described(binding, set(_user_keys(user)))}"
        return ""

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
        """Every rule that holds for the user in a namespace ("": cluster-wide only), and what could not be resolved."""
        rules, errors = self._rules(user, namespace)
        return rules.rules, errors

    def role_rules(self, reference: Object, namespace: str) -> tuple[Rule, ...] | None:
        """The rules of the role that a binding in `namespace` refers to, None if it does not exist."""
        if reference.get("kind") == "ClusterRole":
            role = self._cluster_roles.get(str(reference.get("name")))
        else:
            role = self._roles.get(str(reference.get("name")), namespace)
        return None if role is None else tuple(role.get("rules") or ())

    def _rules(self, user: UserInfo, namespace: str) -> tuple[RuleSet, tuple[str, ...]]:
        key = (user.name, user.groups, namespace)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found
        rules: list[Rule] = []
        errors: list[str] = []
        for binding in self._bindings_of(user, namespace):
            reference = binding.get("roleRef") or {}
            granted = self.role_rules(reference, binding["metadata"].get("namespace", ""))
            if granted is None:
                errors.append(
                    f'{str(reference.get("kind")).lower()}.rbac.authorization.k8s.io "{reference.get("name")}" not found'
                )
            else:
                rules.extend(granted)
        found = RuleSet(rules), tuple(dict.fromkeys(errors))
        if len(namespace) <= _LONGEST_NAMESPACE:
            self._cache[key] = found
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        return found

    def _bindings_of(self, user: UserInfo, namespace: str) -> Iterator[Object]:
        seen: set[str] = set()
        for informer in (self._cluster_bindings, self._bindings) if namespace else (self._cluster_bindings,):
            for key in _user_keys(user):
                for binding in informer.by_index(_INDEX, key):
                    meta = binding["metadata"]
                    if meta.get("namespace", "") in ("", namespace) and meta["uid"] not in seen:
                        seen.add(meta["uid"])
                        yield binding

    def _changed(self, _old: Object | None, _new: Object | None) -> None:
        self._cache.clear()


def _user_keys(user: UserInfo) -> Iterator[str]:
    yield f"User:{user.name}"
    for group in user.groups:
        yield f"Group:{group}"


def _subject_keys(binding: Object) -> Iterable[str]:
    for subject in binding.get("subjects") or ():
        yield _subject_key(subject, binding["metadata"].get("namespace", ""))


def _subject_key(subject: Object, namespace: str) -> str:
    """A service account is indexed by the user name it has."""
    kind, name = subject.get("kind"), subject.get("name")
    if kind == "ServiceAccount":
        return f"User:system:serviceaccount:{subject.get('namespace') or namespace}:{name}"
    return f"{kind}:{name}"


def _described(binding: Object, keys: set[str]) -> str:
    meta, reference = binding["metadata"], binding["roleRef"]
    name, namespace, kind = meta["name"], meta.get("namespace", ""), "ClusterRoleBinding"
    if namespace:
        name, kind = f"{name}/{namespace}", "RoleBinding"
    subject: Object = next((s for s in binding.get("subjects") or () if _subject_key(s, namespace) in keys), {})
    who = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        who = f"{who}/{subject.get('namespace') or namespace}"
    return f'{kind} "{name}" of {reference["kind"]} "{reference["name"]}" to {subject.get("kind")} "{who}"'


def _joined(errors: Iterable[str]) -> str:
    texts = list(errors)
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
