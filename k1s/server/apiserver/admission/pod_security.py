"""The Pod Security Standards, per namespace, by its labels.

Owns: PodSecurity: which level applies, refusal, warnings. Called by: admission/chain. Never does: the checks themselves
(pod_security_checks). Source: upstream pod-security-admission.

    pod-security.kubernetes.io/enforce: refuses pods          warn: warns of pods and of pod templates       audit: annotates
"""

from __future__ import annotations

from typing import Any

from k1s.api.catalog import builtin
from k1s.api.errors import FieldError, invalid, invalid_value
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.pod_security_checks import violations
from k1s.server.apiserver.admission.settings import LEVELS, MODES, VERSION, PodSecuritySettings
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_PREFIX = "pod-security.kubernetes.io/"
# Where a kind keeps its pod template.
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "podtemplates": ("template",),
    "replicationcontrollers": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}


class PodSecurity(Step):
    resources = frozenset({"pods", "namespaces", *_TEMPLATES})
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, informers: InformerFactory, settings: PodSecuritySettings | None = None) -> None:
        self._settings = settings if settings is not None else PodSecuritySettings()
        self._namespaces = informers.informer(builtin("Namespace"))
        self._pods = informers.informer(builtin("Pod"))

    async def validate(self, request: AdmissionRequest) -> None:
        obj = request.obj
        if obj is None:
            return
        if request.resource.plural == "namespaces":
            self._namespace(request, obj)
            return
        settings = self._settings
        if request.namespace in settings.namespaces or request.user.name in settings.usernames:
            request.annotations[f"{_PREFIX}exempt"] = "namespace" if request.namespace in settings.namespaces else "user"
            return
        labels = ((self._namespaces.get(request.namespace) or {}).get("metadata") or {}).get("labels") or {}
        levels = {mode: self._level(labels, mode) for mode in MODES}
        if all(level == "privileged" for level, _ in levels.values()):
            return
        if request.resource.plural == "pods":
            if not self._exempt_class(request, obj):
                self._pod(request, obj, levels)
        elif not subresource(request):
            template: Any = obj
            for key in _TEMPLATES[request.resource.qualified]:
                template = (template or {}).get(key)
            if template and not self._exempt_class(request, template):
                self._note(request, template, levels)

    def _exempt_class(self, request: AdmissionRequest, pod: Object) -> bool:
        exempt = (pod.get("spec") or {}).get("runtimeClassName") in self._settings.runtime_classes
        if exempt:
            request.annotations[f"{_PREFIX}exempt"] = "runtimeClass"
        return exempt

    def _level(self, labels: dict[str, str], mode: str) -> tuple[str, str]:
        level, version = self._settings.defaults[mode]
        level, version = labels.get(_PREFIX + mode, level), labels.get(f"{_PREFIX}{mode}-version", version)
        # A label that could not be read (written before it was checked) must not open the door.
        return level if level in LEVELS else "restricted", version if VERSION.fullmatch(version) else "latest"

    def _pod(self, request: AdmissionRequest, pod: Object, levels: dict[str, tuple[str, str]]) -> None:
        if subresource(request) not in ("", "ephemeralcontainers") or (
            request.operation == "UPDATE" and not _significant(request)
        ):
            return
        level, version = levels["enforce"]
        found = violations(pod, level, version)
        if found:
            raise refuse(request, f'violates PodSecurity "{level}:{version}": {", ".join(found)}')
        request.annotations[f"{_PREFIX}enforce-policy"] = f"{level}:{version}"
        self._note(request, pod, levels)

    def _note(self, request: AdmissionRequest, pod: Object, levels: dict[str, tuple[str, str]]) -> None:
        for mode in ("audit", "warn"):
            level, version = levels[mode]
            found = violations(pod, level, version)
            if not found:
                continue
            text = f'would violate PodSecurity "{level}:{version}": {", ".join(found)}'
            if mode == "warn":
                request.warnings.append(text)
            else:
                request.annotations[f"{_PREFIX}audit-violations"] = text

    def _namespace(self, request: AdmissionRequest, namespace: Object) -> None:
        """Labels that mean nothing are refused; a stricter level warns of the pods that are there already."""
        labels = namespace["metadata"].get("labels") or {}
        before = ((request.old or {}).get("metadata") or {}).get("labels") or {}
        errors = _label_errors(labels)
        if errors and (request.old is None or errors != _label_errors(before)):
            raise invalid("Namespace", "", request.name, errors)
        (level, version), was = self._level(labels, "enforce"), self._level(before, "enforce")
        if request.old is None or subresource(request) or level == "privileged" or (level, version) == was:
            return
        if request.name in self._settings.namespaces:
            return
        if version == was[1] and LEVELS.index(level) <= LEVELS.index(was[0]):
            return
        offenders: dict[str, list[str]] = {}
        for pod in self._pods.list(request.name):
            found = violations(pod, level, version)
            if found:
                reasons = ", ".join(text.partition(" (")[0] for text in found)
                offenders.setdefault(reasons, []).append(str(pod["metadata"]["name"]))
        if offenders:
            start = f'existing pods in namespace "{request.name}" violate the new PodSecurity enforce level "{level}:{version}"'
            lines = []
            for reason, names in offenders.items():
                others = f" (and {len(names) - 1} other pod{'s' if len(names) > 2 else ''})" if len(names) > 1 else ""
                lines.append(f"{min(names)}{others}: {reason}")
            request.warnings += [start, *sorted(lines)]


def _label_errors(labels: dict[str, str]) -> list[FieldError]:
    errors = []
    for mode in MODES:
        level, version = labels.get(_PREFIX + mode), labels.get(f"{_PREFIX}{mode}-version")
        if level is not None and level not in LEVELS:
            path = f"metadata.labels[{_PREFIX}{mode}]"
            errors.append(invalid_value(path, level, "must be one of privileged, baseline, restricted"))
        if version is not None and not VERSION.fullmatch(version):
            path = f"metadata.labels[{_PREFIX}{mode}-version]"
            errors.append(invalid_value(path, version, 'must be "latest" or "v1.x"'))
    return errors


def _significant(request: AdmissionRequest) -> bool:
    """Whether an update changes what the checks look at: metadata and tolerations do not."""
    new, old = (dict((o or {}).get("spec") or {}) for o in (request.obj, request.old))
    for spec in (new, old):
        spec.pop("tolerations", None)
        spec.pop("activeDeadlineSeconds", None)
    return new != old
