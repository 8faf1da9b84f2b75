"""ClusterRoles for people: cluster-admin, admin, edit, view.

Owns: the table. Called by: defaults/rbac. Source: upstream v1.37 bootstrappolicy.
admin, edit and view are aggregated: their rules are the union of the roles labelled for them, so that add-ons can extend them.
"""

from __future__ import annotations

CLUSTER_ADMIN = ("*: * = *", "* = *")

# name -> rules; each of these is labelled to be aggregated into the role after "aggregate-to-".
AGGREGATED: dict[str, tuple[str, ...]] = {
    "system:aggregate-to-admin": (
        "authorization.k8s.io: localsubjectaccessreviews = create",
        "rbac.authorization.k8s.io: roles rolebindings = all",
    ),
    "system:aggregate-to-edit": (
        "core: pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy = read",
        "core: serviceaccounts = impersonate",
        "core: pods pods/attach pods/proxy pods/exec pods/portforward = create delete deletecollection patch update",
        "core: pods/eviction = create",
        "core: configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets"
        " serviceaccounts services services/proxy = create delete deletecollection patch update",
        "core: serviceaccounts/token = create",
        "apps: daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets"
        " statefulsets/scale = create delete deletecollection patch update",
        "autoscaling: horizontalpodautoscalers = create delete deletecollection patch update",
        "batch: cronjobs jobs = create delete deletecollection patch update",
        "extensions: daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets"
        " replicasets/scale replicationcontrollers/scale = create delete deletecollection patch update",
        "policy: poddisruptionbudgets = create delete deletecollection patch update",
        "networking.k8s.io: ingresses networkpolicies = create delete deletecollection patch update",
        "coordination.k8s.io: leases = create delete deletecollection get list patch update watch",
        "resource.k8s.io: resourceclaims resourceclaimtemplates = create delete deletecollection patch update",
    ),
    "system:aggregate-to-view": (
        "core: configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers"
        " replicationcontrollers/scale serviceaccounts services services/status = read",
        "core: bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status"
        " resourcequotas resourcequotas/status = read",
        "core: namespaces = read",
        "discovery.k8s.io: endpointslices = read",
        "apps: controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets"
        " replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status = read",
        "autoscaling: horizontalpodautoscalers horizontalpodautoscalers/status = read",
        "batch: cronjobs cronjobs/status jobs jobs/status = read",
        "extensions: daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses"
        " ingresses/status networkpolicies replicasets replicasets/scale replicasets/status"
        " replicationcontrollers/scale = read",
        "policy: poddisruptionbudgets poddisruptionbudgets/status = read",
        "networking.k8s.io: ingresses ingresses/status networkpolicies = read",
        "resource.k8s.io: resourceclaims resourceclaims/status resourceclaimtemplates = read",
    ),
}

# role -> labels of the roles it is made of; `admin` includes edit's and view's parts through their labels.
AGGREGATORS = {"admin": "admin", "edit": "edit", "view": "view"}
# edit's part is also labelled for admin, view's for edit (which is itself labelled for admin).
LABELS = {
    "system:aggregate-to-admin": ("admin",),
    "system:aggregate-to-edit": ("edit",),
    "system:aggregate-to-view": ("view",),
    "edit": ("admin",),
    "view": ("edit",),
}
