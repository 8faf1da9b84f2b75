"""The version numbers that k1s tells its clients.

Owns: the one place where a version is written. Called by: cli, apiserver (/version), agent (kubeletVersion).
Never does: I/O or imports.
"""

K1S_VERSION = "0.1.0"
KUBERNETES_MAJOR = "1"
KUBERNETES_MINOR = "37"
# The git version clients see; client-go parses it as semver, so the k1s part stands in the build metadata.
GIT_VERSION = "v1.37.0+k1s1"
