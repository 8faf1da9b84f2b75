"""Every write's way through admission: the steps in upstream's order.

Owns: AdmissionChain, the order. Called by: apiserver/writes, deletion, subresources. Never does: admit anything itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api.catalog import Catalog, builtin_catalog
from k1s.api.errors import ApiError
from k1s.client.interface import Client, InformerFactory
from k1s.server.apiserver.admission.certificates import CertificateApproval, CertificateSubjectRestriction
from k1s.server.apiserver.admission.default_ingress_class import DefaultIngressClass
from k1s.server.apiserver.admission.default_storage_class import DefaultStorageClass
from k1s.server.apiserver.admission.default_toleration_seconds import DefaultTolerationSeconds
from k1s.server.apiserver.admission.limit_ranger import LimitRanger
from k1s.server.apiserver.admission.mutating_policies import MutatingPolicies
from k1s.server.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from k1s.server.apiserver.admission.node_restriction import NodeRestriction
from k1s.server.apiserver.admission.pod_security import PodSecurity
from k1s.server.apiserver.admission.policies import ValidatingPolicies
from k1s.server.apiserver.admission.priority import Priority
from k1s.server.apiserver.admission.rbac_escalation import RbacEscalation
from k1s.server.apiserver.admission.resource_quota import ResourceQuota
from k1s.server.apiserver.admission.runtime_class import RuntimeClass
from k1s.server.apiserver.admission.service_account import ServiceAccount
from k1s.server.apiserver.admission.settings import AdmissionSettings
from k1s.server.apiserver.admission.step import Step
from k1s.server.apiserver.admission.storage_in_use import StorageObjectInUseProtection
from k1s.server.apiserver.admission.taint_nodes import TaintNodesByCondition
from k1s.server.apiserver.admission.volume_resize import PersistentVolumeClaimResize
from k1s.server.apiserver.admission.webhooks.caller import Caller
from k1s.server.apiserver.admission.webhooks.steps import Convert, MutatingWebhooks, ValidatingWebhooks, convert_builtin
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.dial import direct
from k1s.server.apiserver.forward import Connect


class AdmissionChain:
    """`mutate` before defaults are final and the object is validated, `validate` after."""

    def __init__(self, steps: Iterable[Step]) -> None:
        steps = tuple(steps)
        self._mutating = tuple(step for step in steps if step.mutates())
        self._validating = tuple(step for step in steps if step.validates())
        # One entry per (operation, resource): bounded by what is served.
        self._picked: dict[tuple[str, str, bool], tuple[Step, ...]] = {}

    async def mutate(self, request: AdmissionRequest) -> None:
        """Let every step change `request.obj`. Raises ApiError."""
        steps = self._steps(request, mutating=True)
        try:
            for step in steps:
                await step.mutate(request)
            if request.patched:
                for step in steps:
                    await step.mutate_again(request)
        except ApiError as error:
            error.warnings += request.warnings
            raise

    async def validate(self, request: AdmissionRequest) -> None:
        """Let every step look at the final object. Raises ApiError."""
        try:
            for step in self._steps(request, mutating=False):
                await step.validate(request)
        except ApiError as error:
            error.warnings += request.warnings
            raise

    def _steps(self, request: AdmissionRequest, *, mutating: bool) -> tuple[Step, ...]:
        key = (request.operation, request.resource.qualified, mutating)
        found = self._picked.get(key)
        if found is None:
            every = self._mutating if mutating else self._validating
            found = self._picked[key] = tuple(step for step in every if _sees(step, request))
        return found


def build(
    client: Client,
    informers: InformerFactory,
    authorizer: Authorizer,
    catalog: Catalog | None = None,
    convert: Convert = convert_builtin,
    connect: Connect = direct,
    settings: AdmissionSettings | None = None,
) -> AdmissionChain:
    """The chain of every k1s server. `catalog`: what it serves, custom resources included; `convert` knows these, too.

    `connect`: how webhooks are reached (Dialer.connect). `settings`: what flags switch off or configure.
    """
    catalog = catalog if catalog is not None else builtin_catalog()
    settings = settings if settings is not None else AdmissionSettings()
    caller = Caller(informers, connect)
    return AdmissionChain(
        step
        for step in (
            NamespaceLifecycle(client, informers),
            LimitRanger(informers),
            ServiceAccount(client, informers),
            NodeRestriction(informers),
            TaintNodesByCondition(),
            PodSecurity(informers, settings.pod_security),
            Priority(informers),
            DefaultTolerationSeconds(),
            DefaultStorageClass(informers),
            StorageObjectInUseProtection(),
            PersistentVolumeClaimResize(informers),
            RuntimeClass(informers),
            CertificateApproval(authorizer),
            CertificateSubjectRestriction(),
            DefaultIngressClass(informers),
            RbacEscalation(authorizer),
            MutatingPolicies(client, informers, catalog, authorizer, convert),
            MutatingWebhooks(informers, catalog, caller, authorizer, convert),
            ValidatingPolicies(client, informers, catalog, authorizer, convert),
            ValidatingWebhooks(informers, catalog, caller, authorizer, convert),
            ResourceQuota(informers),
        )
        if _NAMES.get(type(step).__name__, type(step).__name__) not in settings.disabled
    )


# Upstream's names of the plugins whose classes are called otherwise.
_NAMES = {
    "MutatingPolicies": "MutatingAdmissionPolicy",
    "MutatingWebhooks": "MutatingAdmissionWebhook",
    "ValidatingPolicies": "ValidatingAdmissionPolicy",
    "ValidatingWebhooks": "ValidatingAdmissionWebhook",
}


def _sees(step: Step, request: AdmissionRequest) -> bool:
    return request.operation in step.operations and (step.resources is None or request.resource.qualified in step.resources)
