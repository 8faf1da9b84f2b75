"""The plugins of the default scheduler, in the order in which they are asked.

Owns: the tuple. Called by: cycle. Never does: configuration (there is one profile).
"""

from __future__ import annotations

from k1s.server.scheduler.plugin import Plugin
from k1s.server.scheduler.plugins.image_locality import ImageLocality
from k1s.server.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from k1s.server.scheduler.plugins.node_affinity import NodeAffinity
from k1s.server.scheduler.plugins.node_name import NodeName
from k1s.server.scheduler.plugins.node_ports import NodePorts
from k1s.server.scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from k1s.server.scheduler.plugins.node_unschedulable import NodeUnschedulable
from k1s.server.scheduler.plugins.scheduling_gates import SchedulingGates
from k1s.server.scheduler.plugins.taint_toleration import TaintToleration
from k1s.server.scheduler.plugins.topology_spread import PodTopologySpread
from k1s.server.scheduler.plugins.volume_binding import VolumeBinding

SCHEDULER_NAME = "default-scheduler"

PLUGINS: tuple[Plugin, ...] = (
    SchedulingGates(),
    NodeUnschedulable(),
    NodeName(),
    TaintToleration(),
    NodeAffinity(),
    NodePorts(),
    NodeResourcesFit(),
    NodeResourcesBalancedAllocation(),
    VolumeBinding(),
    PodTopologySpread(),
    InterPodAffinity(),
    ImageLocality(),
)
