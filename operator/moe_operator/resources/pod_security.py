"""Which of the Pod Security Standards a pod keeps to, and what keeps it from a stricter one.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, as far as pods made here can go: fields that
neither the operator nor `podTemplate` can set are not looked at. A test holds it against the API server's admission.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.catalog.policy import PodSecurityLevel

_BASELINE_CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
_RESTRICTED_CAPABILITIES = frozenset(("NET_BIND_SERVICE",))
_RESTRICTED_VOLUMES = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)
_SECCOMP = ("RuntimeDefault", "Localhost")


@dataclass(frozen=True)
class PodSecurity:
    """What a namespace must allow for a pod to be admitted."""

    level: PodSecurityLevel
    reasons: tuple[str, ...] = ()
    """What keeps it from the next stricter level; empty for restricted."""


def pod_security(pod: Mapping[str, Any]) -> PodSecurity:
    """The strictest level that this pod spec keeps to."""
    if reasons := tuple(_beyond_baseline(pod)):
        return PodSecurity(PodSecurityLevel.PRIVILEGED, reasons)
    if reasons := tuple(_beyond_restricted(pod)):
        return PodSecurity(PodSecurityLevel.BASELINE, reasons)
    return PodSecurity(PodSecurityLevel.RESTRICTED)


def template_security(template: Mapping[str, Any]) -> PodSecurity:
    """The same for the pods of a group, by a template of `group.render_template`."""
    return pod_security(template["leaderWorkerTemplate"]["workerTemplate"]["spec"])


def _beyond_baseline(pod: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes") or ():
        if "hostPath" in volume:
            path = (volume["hostPath"] or {}).get("path")
            yield f"hostPath volume {volume.get('name')} ({path})"
    yield from _unconfined(pod.get("securityContext") or {}, "pod")
    for name, container in _containers(pod):
        context = container.get("securityContext") or {}
        if context.get("privileged"):
            yield f"privileged container {name}"
        for capability in _added(context) - _BASELINE_CAPABILITIES:
            yield f"capability {capability} of container {name}"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f"host port of container {name}"
        yield from _unconfined(context, f"container {name}")


def _unconfined(context: Mapping[str, Any], whose: str) -> Iterator[str]:
    for field in ("seccompProfile", "appArmorProfile"):
        if (context.get(field) or {}).get("type") == "Unconfined":
            yield f"{field} Unconfined of {whose}"
    if context.get("procMount") not in (None, "Default"):
        yield f"procMount of {whose}"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("user") or selinux.get("role"):
        yield f"seLinuxOptions of {whose}"


def _beyond_restricted(pod: Mapping[str, Any]) -> Iterator[str]:
    shared = pod.get("securityContext") or {}
    for volume in pod.get("volumes") or ():
        if not _RESTRICTED_VOLUMES & set(volume):
            yield f"kind of volume {volume.get('name')}"
    if shared.get("runAsUser") == 0:
        yield "runAsUser 0"
    for name, container in _containers(pod):
        own = container.get("securityContext") or {}
        if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
            yield f"container {name} may run as root"
        if own.get("runAsUser") == 0:
            yield f"runAsUser 0 of container {name}"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"container {name} may gain privileges"
        if "ALL" not in ((own.get("capabilities") or {}).get("drop") or ()):
            yield f"container {name} keeps capabilities"
        for capability in _added(own) - _RESTRICTED_CAPABILITIES:
            yield f"capability {capability} of container {name}"
        seccomp = own.get("seccompProfile") or shared.get("seccompProfile") or {}
        if seccomp.get("type") not in _SECCOMP:
            yield f"container {name} has no seccomp profile"


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for field in ("initContainers", "containers"):
        for container in pod.get(field) or ():
            yield str(container.get("name")), container


def _added(context: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((context.get("capabilities") or {}).get("add") or ())
