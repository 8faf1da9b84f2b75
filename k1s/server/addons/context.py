"""What the add-ons are given.

Owns: AddonSettings, AddonContext. Called by: server/app (makes the settings), every part of the add-ons. Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k1s.api.catalog import Catalog
from k1s.base.clock import Clock
from k1s.client.events import EventRecorder
from k1s.client.interface import InformerFactory
from k1s.client.rest import RestClient

# Where the records live, and HelmCharts and HelmChartConfigs of packaged parts, as k3s has it.
SYSTEM_NAMESPACE = "kube-system"
# The owner of every field that an add-on's manifest sets.
FIELD_MANAGER = "k1s-addon"


@dataclass(frozen=True, slots=True)
class AddonSettings:
    """`image_dirs`: where archives of images lie on this host. `kubeconfig`: the cluster administrator's file, made anew."""

    server_dir: Path
    image_dirs: tuple[Path, ...]
    disabled: frozenset[str]
    kubeconfig: Callable[[], bytes]

    @property
    def manifests_dir(self) -> Path:
        return self.server_dir / "manifests"

    @property
    def static_dir(self) -> Path:
        """What k3s' https://%{KUBERNETES_API}%/static/ means."""
        return self.server_dir / "static"

    @property
    def helm_dir(self) -> Path:
        return self.server_dir / "helm"


@dataclass(frozen=True, slots=True)
class AddonContext:
    client: RestClient
    informers: InformerFactory
    catalog: Catalog
    clock: Clock
    events: EventRecorder
    settings: AddonSettings
