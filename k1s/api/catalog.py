"""Which resources there are: kind <-> resource, scope, verbs, subresources, short names, categories.

Owns: the table of the stable built-in kinds of v1.37 and the Catalog that holds it (and, later, custom resources).
Called by: apiserver (routes, discovery), client, controllers, agent. Never does: I/O, schemas (api/schema.py).
Source: the discovery documents of an upstream v1.37 server with default flags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_CREATE = ("create",)
_STATUS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object. `kind`, `group`, `version`: what it speaks, the parent's own where empty."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource in one version. `plural` is the path segment; `definition` names its OpenAPI definition."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    singular: str = ""
    # Where its objects are stored; two versions of one kind share it.
    storage_group: str = ""
    storage_version: str = ""
    storage_plural: str = ""
    custom: bool = False
    # Further fields that a field selector may name (a definition's selectableFields).
    selectable: tuple[str, ...] = ()
    # The kind of its lists, where it is not the kind's name and List.
    list_name: str = ""
    # What every request for this version is warned of.
    deprecation: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return self.list_name or f"{self.kind}List"

    @property
    def singular_name(self) -> str:
        return self.singular or self.kind.lower()

    @property
    def qualified(self) -> str:
        """`deployments.apps`, as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def persisted(self) -> bool:
        """False for reviews and bindings: they can be created, never read."""
        return "get" in self.verbs

    @property
    def stored_group(self) -> str:
        """The group its objects are stored in; "" may be meant (Events), so the version says whether it is set."""
        return self.storage_group if self.storage_version else self.group

    @property
    def storage_prefix(self) -> str:
        """`/registry/<group>/<plural>/`; the core group has no segment."""
        group, plural = self.stored_group, self.storage_plural or self.plural
        return f"/registry/{group}/{plural}/" if group else f"/registry/{plural}/"

    def subresource(self, name: str) -> Subresource | None:
        return next((s for s in self.subresources if s.name == name), None)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, the object or its subresource."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


@dataclass(slots=True)
class Catalog:
    """A lookup table of resources; custom resources are added and removed while running."""

    _by_plural: dict[tuple[str, str, str], Resource] = field(default_factory=dict)
    _by_kind: dict[tuple[str, str, str], Resource] = field(default_factory=dict)
    _hidden: dict[tuple[str, str, str], Resource] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        self._by_plural[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.group, resource.version, resource.kind] = resource

    def hide(self, resource: Resource) -> None:
        """A version that objects are stored in, but that is not served."""
        self._hidden[resource.group, resource.version, resource.plural] = resource

    def stored(self, group: str, version: str, plural: str) -> Resource | None:
        """The row of a version that objects are stored in, served or not."""
        key = (group, version, plural)
        return self._by_plural.get(key) or self._hidden.get(key)

    def remove(self, resource: Resource) -> None:
        self._hidden.pop((resource.group, resource.version, resource.plural), None)
        self._by_plural.pop((resource.group, resource.version, resource.plural), None)
        self._by_kind.pop((resource.group, resource.version, resource.kind), None)

    def by_plural(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_plural.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        return self._by_kind.get((group, version, kind))

    def by_api_version(self, api_version: str, kind: str) -> Resource | None:
        """Look up what an object's apiVersion and kind say."""
        group, _, version = api_version.rpartition("/")
        return self.by_kind(group, version, kind)

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._by_plural.values()))

    def groups(self) -> dict[str, list[str]]:
        """Group -> versions, in order of preference; the core group is ""."""
        out: dict[str, list[str]] = {}
        for resource in self:
            versions = out.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return out


def _sub(name: str, verbs: Iterable[str], kind: str = "", group: str = "", version: str = "") -> Subresource:
    return Subresource(name, tuple(verbs), kind, group, version)


_S = _sub("status", _STATUS)
_SCALE = _sub("scale", _STATUS, "Scale", "autoscaling", "v1")
_PROXY_VERBS = ("create", "delete", "get", "patch", "update")
_CONNECT = ("create", "get")
_REVIEW = _CREATE
_NO_COLLECTION = ("create", "delete", "get", "list", "patch", "update", "watch")

_POD_SUBRESOURCES = (
    _sub("attach", _CONNECT, "PodAttachOptions"),
    _sub("binding", _CREATE, "Binding"),
    _sub("ephemeralcontainers", _STATUS),
    _sub("eviction", _CREATE, "Eviction", "policy", "v1"),
    _sub("exec", _CONNECT, "PodExecOptions"),
    _sub("log", ("get",)),
    _sub("portforward", _CONNECT, "PodPortForwardOptions"),
    _sub("proxy", _PROXY_VERBS, "PodProxyOptions"),
    _sub("resize", _STATUS),
    _S,
)

# group, version -> rows of (kind, plural, namespaced, short names, categories, subresources, verbs)
_Row = tuple[str, str, bool, tuple[str, ...], tuple[str, ...], tuple[Subresource, ...], tuple[str, ...]]


def _row(
    kind: str,
    plural: str,
    namespaced: bool,
    short: str = "",
    *,
    all_category: bool = False,
    subs: tuple[Subresource, ...] = (),
    verbs: tuple[str, ...] = ALL_VERBS,
    categories: tuple[str, ...] = (),
) -> _Row:
    return (kind, plural, namespaced, tuple(short.split()), ("all",) if all_category else categories, subs, verbs)


_API_EXTENSIONS = ("api-extensions",)

_TABLE: dict[tuple[str, str], tuple[_Row, ...]] = {
    ("", "v1"): (
        _row("Binding", "bindings", True, verbs=_CREATE),
        _row("ComponentStatus", "componentstatuses", False, "cs", verbs=("get", "list")),
        _row("ConfigMap", "configmaps", True, "cm"),
        _row("Endpoints", "endpoints", True, "ep"),
        _row("Event", "events", True, "ev"),
        _row("LimitRange", "limitranges", True, "limits"),
        _row("Namespace", "namespaces", False, "ns", subs=(_sub("finalize", ("update",)), _S), verbs=_NO_COLLECTION),
        _row("Node", "nodes", False, "no", subs=(_sub("proxy", _PROXY_VERBS, "NodeProxyOptions"), _S)),
        _row("PersistentVolumeClaim", "persistentvolumeclaims", True, "pvc", subs=(_S,)),
        _row("PersistentVolume", "persistentvolumes", False, "pv", subs=(_S,)),
        _row("Pod", "pods", True, "po", all_category=True, subs=_POD_SUBRESOURCES),
        _row("PodTemplate", "podtemplates", True),
        _row("ReplicationController", "replicationcontrollers", True, "rc", all_category=True, subs=(_SCALE, _S)),
        _row("ResourceQuota", "resourcequotas", True, "quota", subs=(_S,)),
        _row("Secret", "secrets", True),
        _row(
            "ServiceAccount",
            "serviceaccounts",
            True,
            "sa",
            subs=(_sub("token", _CREATE, "TokenRequest", "authentication.k8s.io", "v1"),),
        ),
        _row(
            "Service",
            "services",
            True,
            "svc",
            all_category=True,
            subs=(_sub("proxy", _PROXY_VERBS, "ServiceProxyOptions"), _S),
        ),
    ),
    ("apiregistration.k8s.io", "v1"): (_row("APIService", "apiservices", False, categories=_API_EXTENSIONS, subs=(_S,)),),
    ("apps", "v1"): (
        _row("ControllerRevision", "controllerrevisions", True),
        _row("DaemonSet", "daemonsets", True, "ds", all_category=True, subs=(_S,)),
        _row("Deployment", "deployments", True, "deploy", all_category=True, subs=(_SCALE, _S)),
        _row("ReplicaSet", "replicasets", True, "rs", all_category=True, subs=(_SCALE, _S)),
        _row("StatefulSet", "statefulsets", True, "sts", all_category=True, subs=(_SCALE, _S)),
    ),
    ("events.k8s.io", "v1"): (_row("Event", "events", True, "ev"),),
    ("authentication.k8s.io", "v1"): (
        _row("SelfSubjectReview", "selfsubjectreviews", False, verbs=_REVIEW),
        _row("TokenReview", "tokenreviews", False, verbs=_REVIEW),
    ),
    ("authorization.k8s.io", "v1"): (
        _row("LocalSubjectAccessReview", "localsubjectaccessreviews", True, verbs=_REVIEW),
        _row("SelfSubjectAccessReview", "selfsubjectaccessreviews", False, verbs=_REVIEW),
        _row("SelfSubjectRulesReview", "selfsubjectrulesreviews", False, verbs=_REVIEW),
        _row("SubjectAccessReview", "subjectaccessreviews", False, verbs=_REVIEW),
    ),
    ("autoscaling", "v2"): (
        _row("HorizontalPodAutoscaler", "horizontalpodautoscalers", True, "hpa", all_category=True, subs=(_S,)),
    ),
    ("autoscaling", "v1"): (
        _row("HorizontalPodAutoscaler", "horizontalpodautoscalers", True, "hpa", all_category=True, subs=(_S,)),
    ),
    ("batch", "v1"): (
        _row("CronJob", "cronjobs", True, "cj", all_category=True, subs=(_S,)),
        _row("Job", "jobs", True, all_category=True, subs=(_S,)),
    ),
    ("certificates.k8s.io", "v1"): (
        _row(
            "CertificateSigningRequest",
            "certificatesigningrequests",
            False,
            "csr",
            subs=(_sub("approval", _STATUS), _S),
        ),
        _row("ClusterTrustBundle", "clustertrustbundles", False),
        _row("PodCertificateRequest", "podcertificaterequests", True, subs=(_S,)),
    ),
    ("networking.k8s.io", "v1"): (
        _row("IngressClass", "ingressclasses", False),
        _row("Ingress", "ingresses", True, "ing", subs=(_S,)),
        _row("IPAddress", "ipaddresses", False, "ip"),
        _row("NetworkPolicy", "networkpolicies", True, "netpol"),
        _row("ServiceCIDR", "servicecidrs", False, subs=(_S,)),
    ),
    ("policy", "v1"): (_row("PodDisruptionBudget", "poddisruptionbudgets", True, "pdb", subs=(_S,)),),
    ("rbac.authorization.k8s.io", "v1"): (
        _row("ClusterRoleBinding", "clusterrolebindings", False),
        _row("ClusterRole", "clusterroles", False),
        _row("RoleBinding", "rolebindings", True),
        _row("Role", "roles", True),
    ),
    ("storage.k8s.io", "v1"): (
        _row("CSIDriver", "csidrivers", False),
        _row("CSINode", "csinodes", False),
        _row("CSIStorageCapacity", "csistoragecapacities", True),
        _row("StorageClass", "storageclasses", False, "sc"),
        _row("VolumeAttachment", "volumeattachments", False, subs=(_S,)),
        _row("VolumeAttributesClass", "volumeattributesclasses", False, "vac"),
    ),
    ("admissionregistration.k8s.io", "v1"): (
        _row("MutatingAdmissionPolicy", "mutatingadmissionpolicies", False, categories=_API_EXTENSIONS),
        _row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", False, categories=_API_EXTENSIONS),
        _row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False, categories=_API_EXTENSIONS),
        _row("ValidatingAdmissionPolicy", "validatingadmissionpolicies", False, categories=_API_EXTENSIONS, subs=(_S,)),
        _row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False, categories=_API_EXTENSIONS),
        _row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", False, categories=_API_EXTENSIONS),
    ),
    ("apiextensions.k8s.io", "v1"): (
        _row("CustomResourceDefinition", "customresourcedefinitions", False, "crd crds", categories=_API_EXTENSIONS, subs=(_S,)),
    ),
    ("scheduling.k8s.io", "v1"): (_row("PriorityClass", "priorityclasses", False, "pc"),),
    ("coordination.k8s.io", "v1"): (_row("Lease", "leases", True),),
    ("node.k8s.io", "v1"): (_row("RuntimeClass", "runtimeclasses", False),),
    ("discovery.k8s.io", "v1"): (_row("EndpointSlice", "endpointslices", True),),
    ("flowcontrol.apiserver.k8s.io", "v1"): (
        _row("FlowSchema", "flowschemas", False, subs=(_S,)),
        _row("PriorityLevelConfiguration", "prioritylevelconfigurations", False, subs=(_S,)),
    ),
    ("resource.k8s.io", "v1"): (
        _row("DeviceClass", "deviceclasses", False),
        _row("DeviceTaintRule", "devicetaintrules", False, subs=(_S,)),
        _row("ResourceClaim", "resourceclaims", True, subs=(_S,)),
        _row("ResourceClaimTemplate", "resourceclaimtemplates", True),
        _row("ResourceSlice", "resourceslices", False),
    ),
    ("storagemigration.k8s.io", "v1"): (_row("StorageVersionMigration", "storageversionmigrations", False, subs=(_S,)),),
}

# (group, version, plural) -> (group, version, plural) where the objects are stored.
_STORED_AS = {
    ("autoscaling", "v1", "horizontalpodautoscalers"): ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("events.k8s.io", "v1", "events"): ("", "v1", "events"),
}

# Group, version, kind -> the words of upstream's generated lifecycle.
_DEPRECATED = {
    ("", "v1", "ComponentStatus"): "v1 ComponentStatus is deprecated in v1.19+",
    ("", "v1", "Endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}


def builtin_catalog() -> Catalog:
    """A new Catalog with every built-in resource; the caller may add to it."""
    catalog = Catalog()
    for resource in _builtins():
        catalog.add(resource)
    return catalog


@cache
def _builtins() -> tuple[Resource, ...]:
    out: list[Resource] = []
    for (group, version), rows in _TABLE.items():
        for kind, plural, namespaced, short, categories, subs, verbs in rows:
            stored = _STORED_AS.get((group, version, plural), (group, version, plural))
            out.append(
                Resource(
                    group=group,
                    version=version,
                    kind=kind,
                    plural=plural,
                    namespaced=namespaced,
                    verbs=verbs,
                    short_names=short,
                    categories=categories,
                    subresources=subs,
                    storage_group=stored[0],
                    storage_version=stored[1],
                    storage_plural=stored[2],
                    deprecation=_DEPRECATED.get((group, version, kind), ""),
                )
            )
    return tuple(out)


@cache
def builtin(kind: str, group: str | None = None) -> Resource:
    """The built-in resource of a kind, for code that names kinds: builtin("Pod"). KeyError if there is none.

    Where a kind stands in two groups or versions, the stored one is meant unless `group` says otherwise.
    """
    matches = [r for r in _builtins() if r.kind == kind and (group is None or r.group == group)]
    for resource in matches:
        if (resource.storage_group, resource.storage_version) == (resource.group, resource.version):
            return resource
    if matches:
        return matches[0]
    raise KeyError(kind)
