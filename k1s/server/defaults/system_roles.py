"""ClusterRoles of the system's own parts, and the Roles in kube-system and kube-public.

Owns: the tables. Called by: defaults/rbac, the node authorizer (NODE). Source: upstream v1.37 bootstrappolicy.
`k1s:` roles are ours: a k1s node is kubelet, service proxy, DNS and network policy under one identity.
"""

from __future__ import annotations

_EVENTS = "core, events.k8s.io: events = create patch update"

NODE: tuple[str, ...] = (
    "authentication.k8s.io: tokenreviews = create",
    "authorization.k8s.io: localsubjectaccessreviews subjectaccessreviews = create",
    "core: services = read",
    "core: nodes = create get list watch",
    "core: nodes/status = patch update",
    "core: nodes = patch update",
    "core: events = create patch update",
    "core: pods = read",
    "core: pods = create delete",
    "core: pods/status = patch update",
    "core: pods/eviction = create",
    "core: configmaps secrets = read",
    "core: persistentvolumeclaims persistentvolumes = get",
    "core: endpoints = get",
    "certificates.k8s.io: certificatesigningrequests = create get list watch",
    "coordination.k8s.io: leases = create delete get patch update",
    "storage.k8s.io: volumeattachments = get",
    "core: serviceaccounts/token = create",
    "core: serviceaccounts = get",
    "core: persistentvolumeclaims/status = get patch update",
    "storage.k8s.io: csidrivers = read",
    "storage.k8s.io: csinodes = create delete get patch update",
    "node.k8s.io: runtimeclasses = read",
    "resource.k8s.io: resourceclaims = get",
    "resource.k8s.io: resourceslices = create delete deletecollection get list patch update watch",
    "certificates.k8s.io: clustertrustbundles = read",
    "certificates.k8s.io: podcertificaterequests = create get list watch",
)

CLUSTER_ROLES: dict[str, tuple[str, ...]] = {
    "system:discovery": ("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/ = get",),
    "system:monitoring": (
        "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* = get",
        "/flagz = get",
        "/statusz = get",
    ),
    "system:basic-user": (
        "authorization.k8s.io: selfsubjectaccessreviews selfsubjectrulesreviews = create",
        "authentication.k8s.io: selfsubjectreviews = create",
    ),
    "system:public-info-viewer": ("/healthz /livez /readyz /version /version/ = get",),
    "system:service-account-issuer-discovery": (
        "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/ = get",
    ),
    "system:heapster": (
        "core: events namespaces nodes pods = read",
        "extensions: deployments = read",
    ),
    "system:node": NODE,
    "system:node-problem-detector": (
        "core: nodes = get",
        "core: nodes/status = patch",
        _EVENTS,
    ),
    "system:kubelet-api-admin": (
        "core: nodes = get list watch",
        "core: nodes = proxy",
        "core: nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats = *",
    ),
    "system:node-bootstrapper": ("certificates.k8s.io: certificatesigningrequests = create get list watch",),
    "system:auth-delegator": (
        "authentication.k8s.io: tokenreviews = create",
        "authorization.k8s.io: subjectaccessreviews = create",
    ),
    "system:kube-aggregator": ("core: endpoints services = read",),
    "system:kube-controller-manager": (
        _EVENTS,
        "coordination.k8s.io: leases = create",
        "coordination.k8s.io: leases (kube-controller-manager) = get update",
        "core: secrets serviceaccounts = create",
        "core: secrets = delete",
        "core: configmaps namespaces secrets serviceaccounts = get",
        "core: secrets serviceaccounts = update",
        "authentication.k8s.io: tokenreviews = create",
        "authorization.k8s.io: subjectaccessreviews = create",
        "*: * = list watch",
        "core: serviceaccounts/token = create",
    ),
    "system:kube-dns": ("core: endpoints services = list watch",),
    "system:persistent-volume-provisioner": (
        "core: persistentvolumes = create delete get list watch",
        "core: persistentvolumeclaims = get list update watch",
        "storage.k8s.io: storageclasses = read",
        "core: events = watch",
        _EVENTS,
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        "certificates.k8s.io: certificatesigningrequests/nodeclient = create",
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        "certificates.k8s.io: certificatesigningrequests/selfnodeclient = create",
    ),
    "system:volume-scheduler": (
        "core: persistentvolumes = get list patch update watch",
        "storage.k8s.io: storageclasses = read",
        "core: persistentvolumeclaims = get list patch update watch",
    ),
    "system:certificates.k8s.io:legacy-unknown-approver": (
        "certificates.k8s.io: signers (kubernetes.io/legacy-unknown) = approve",
    ),
    "system:certificates.k8s.io:kubelet-serving-approver": (
        "certificates.k8s.io: signers (kubernetes.io/kubelet-serving) = approve",
    ),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (
        "certificates.k8s.io: signers (kubernetes.io/kube-apiserver-client) = approve",
    ),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": (
        "certificates.k8s.io: signers (kubernetes.io/kube-apiserver-client-kubelet) = approve",
    ),
    "system:node-proxier": (
        "core: endpoints services = list watch",
        "core: nodes = get list watch",
        _EVENTS,
        "discovery.k8s.io: endpointslices = list watch",
        "networking.k8s.io: servicecidrs = list watch",
    ),
    "system:kube-scheduler": (
        _EVENTS,
        "coordination.k8s.io: leases = create",
        "coordination.k8s.io: leases (kube-scheduler) = get list update watch",
        "coordination.k8s.io: leasecandidates = create delete deletecollection get list patch update watch",
        "core: nodes = get list watch",
        "core: pods = delete get list watch",
        "core: bindings pods/binding = create",
        "core: pods/status = patch update",
        "core: replicationcontrollers services = read",
        "apps, extensions: replicasets = read",
        "apps: statefulsets = read",
        "policy: poddisruptionbudgets = read",
        "core: persistentvolumeclaims persistentvolumes = read",
        "authentication.k8s.io: tokenreviews = create",
        "authorization.k8s.io: subjectaccessreviews = create",
        "storage.k8s.io: csinodes = read",
        "core: namespaces = read",
        "storage.k8s.io: csidrivers = read",
        "storage.k8s.io: csistoragecapacities = read",
        "storage.k8s.io: volumeattachments = read",
        "resource.k8s.io: deviceclasses = read",
        "resource.k8s.io: resourceclaims = get list patch update watch",
        "resource.k8s.io: resourceclaims/status = patch update",
        "resource.k8s.io: resourceslices = read",
        "core: pods/finalizers = update",
        "resource.k8s.io: resourceclaims = create delete",
        "resource.k8s.io: devicetaintrules = read",
    ),
    "system:cluster-trust-bundle-discovery": ("certificates.k8s.io: clustertrustbundles = read",),
    # Every node serves Services, DNS and network policy itself, so it follows what these are made of.
    "k1s:node-network": (
        "core: endpoints namespaces nodes pods services = read",
        "discovery.k8s.io: endpointslices = read",
        "networking.k8s.io: networkpolicies servicecidrs = read",
    ),
}

# role -> subjects ("User:x", "Group:x", "ServiceAccount:namespace:name")
CLUSTER_BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("Group:system:masters",),
    "system:monitoring": ("Group:system:monitoring",),
    "system:discovery": ("Group:system:authenticated",),
    "system:basic-user": ("Group:system:authenticated",),
    "system:public-info-viewer": ("Group:system:authenticated", "Group:system:unauthenticated"),
    "system:node-proxier": ("User:system:kube-proxy",),
    "system:kube-controller-manager": ("User:system:kube-controller-manager",),
    "system:kube-dns": ("ServiceAccount:kube-system:kube-dns",),
    "system:kube-scheduler": ("User:system:kube-scheduler",),
    "system:volume-scheduler": ("User:system:kube-scheduler",),
    # Bound to nobody, for clusters from before the node authorizer.
    "system:node": (),
    "system:service-account-issuer-discovery": ("Group:system:serviceaccounts",),
    "system:cluster-trust-bundle-discovery": ("Group:system:serviceaccounts",),
    "k1s:node-network": ("Group:system:nodes",),
}

_LOCKING = (
    "coordination.k8s.io: leases = create get list update watch",
    "coordination.k8s.io: leasecandidates = create get list update watch",
)

# (namespace, name) -> rules
ROLES: dict[tuple[str, str], tuple[str, ...]] = {
    ("kube-system", "extension-apiserver-authentication-reader"): (
        "core: configmaps (extension-apiserver-authentication) = read",
    ),
    ("kube-system", "k1s:node-dns"): ("core: configmaps (k1s-dns kube-dns coredns-custom) = read",),
    ("kube-system", "system:controller:bootstrap-signer"): ("core: secrets = read",),
    ("kube-system", "system:controller:cloud-provider"): ("core: configmaps = create get list watch",),
    ("kube-system", "system:controller:token-cleaner"): ("core: secrets = delete get list watch", _EVENTS),
    ("kube-system", "k1s:load-balancer"): ("core: secrets (k1s-load-balancer) = get list watch",),
    ("kube-system", "system::leader-locking-kube-controller-manager"): _LOCKING,
    ("kube-system", "system::leader-locking-kube-scheduler"): _LOCKING,
    ("kube-public", "system:controller:bootstrap-signer"): (
        "core: configmaps = read",
        "core: configmaps (cluster-info) = update",
        _EVENTS,
    ),
}

# (namespace, name) -> (role, subjects)
ROLE_BINDINGS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("kube-system", "system::extension-apiserver-authentication-reader"): (
        "extension-apiserver-authentication-reader",
        ("User:system:kube-controller-manager", "User:system:kube-scheduler"),
    ),
    ("kube-system", "k1s:load-balancer"): ("k1s:load-balancer", ("Group:system:nodes",)),
    ("kube-system", "k1s:node-dns"): ("k1s:node-dns", ("Group:system:nodes",)),
    ("kube-system", "system::leader-locking-kube-controller-manager"): (
        "system::leader-locking-kube-controller-manager",
        (
            "User:system:kube-controller-manager",
            "ServiceAccount:kube-system:kube-controller-manager",
            "ServiceAccount:kube-system:leader-election-controller",
        ),
    ),
    ("kube-system", "system::leader-locking-kube-scheduler"): (
        "system::leader-locking-kube-scheduler",
        ("User:system:kube-scheduler", "ServiceAccount:kube-system:kube-scheduler"),
    ),
    ("kube-system", "system:controller:bootstrap-signer"): (
        "system:controller:bootstrap-signer",
        ("ServiceAccount:kube-system:bootstrap-signer",),
    ),
    ("kube-system", "system:controller:cloud-provider"): (
        "system:controller:cloud-provider",
        ("ServiceAccount:kube-system:cloud-provider",),
    ),
    ("kube-system", "system:controller:token-cleaner"): (
        "system:controller:token-cleaner",
        ("ServiceAccount:kube-system:token-cleaner",),
    ),
    ("kube-public", "system:controller:bootstrap-signer"): (
        "system:controller:bootstrap-signer",
        ("ServiceAccount:kube-system:bootstrap-signer",),
    ),
}
