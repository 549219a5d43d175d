"""The Jobs that work on a shared claim with the operator's own program: one pod under Pod Security restricted."""

from collections.abc import Mapping, Sequence
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.catalog.weights_layout import EXIT_CODES, Reason
from moe_operator.catalog.weights_site import WeightsSite
from moe_operator.resources.pod_parts import Object
from moe_operator.resources.weights import CACHE_PATH, VOLUME

_PASSING = (Reason.UNREACHABLE, Reason.BUSY, Reason.INTERRUPTED)
#: Exit codes of the program after which another try at once would end the same way.
FINAL_EXIT_CODES = tuple(
    sorted({code for reason, code in EXIT_CODES.items() if code and reason not in _PASSING})
)
#: Pods of a Job that may end otherwise before the Job counts as failed: Kubernetes waits 10 s, 20 s ... in between.
_BACKOFF_LIMIT = 4
#: Who writes the files of a shared claim. They are readable by all, so engines may run as anybody.
_USER = 65532
_TERMINATION_MESSAGE = "/dev/termination-log"


def owner(deployment: ModelDeployment) -> Object:
    """One of several owners of a Job: it goes with the last of them. Not its controller: there can be only one."""
    reference = deployment.owner_reference()
    return {key: reference[key] for key in ("apiVersion", "kind", "name", "uid")}


def job_labels(component: str) -> dict[str, str]:
    """Of a Job and its pods."""
    return {
        "app.kubernetes.io/name": VOLUME,
        "app.kubernetes.io/component": component,
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
    }


def cache_volume(claim: str) -> Object:
    """The claim, to be written to."""
    return {"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}}


def claim_of(obj: Mapping[str, Any]) -> str | None:
    """The claim that such a Job, or a pod of it, works on."""
    spec = obj["spec"]
    pod = spec["template"]["spec"] if "template" in spec else spec
    for volume in pod.get("volumes") or ():
        if volume["name"] == VOLUME and volume.get("persistentVolumeClaim"):
            return str(volume["persistentVolumeClaim"]["claimName"])
    return None


def program_container(
    site: WeightsSite, arguments: Sequence[str], env: Sequence[Object], **more: Any
) -> Object:
    """Runs the program on the cache. `more`: further fields."""
    return {
        "name": names.FETCH_CONTAINER,
        "image": site.program_image,
        "command": ["moe-operator"],
        "args": [*arguments, "--message-file", _TERMINATION_MESSAGE],
        "env": list(env),
        "terminationMessagePath": _TERMINATION_MESSAGE,
        # The program writes it; where it could not (a kill), the end of its log has to do.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": VOLUME, "mountPath": CACHE_PATH}],
        **more,
    }


def locked(**more: Any) -> Object:
    """A container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        **more,
    }


def cache_job(
    deployment: ModelDeployment,
    name: str,
    claim: str,
    container: Object,
    site: WeightsSite,
    profile: AcceleratorProfile | None,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    final: Sequence[int] = FINAL_EXIT_CODES,
    pod_annotations: Mapping[str, str] | None = None,
    deadline: int | None = None,
) -> Object:
    """A Job whose pod keeps off the accelerator's nodes where it can, and is allowed on them, as the storage may be
    there alone. `final`: exit codes that fail the Job at once. `deadline`: seconds that it gets."""
    user = deployment.spec.pod_template
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            # A claim of some terabytes must not be gone through file by file whenever a pod starts.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                **container,
                "volumeMounts": [*container["volumeMounts"], {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [cache_volume(claim), {"name": "tmp", "emptyDir": {}}],
        "nodeSelector": dict(site.node_selector),
        "affinity": _off_accelerators(profile) if profile else {},
        "tolerations": [
            *(map(dict, profile.tolerations) if profile else ()),
            *user.tolerations,
            *site.tolerations,
        ],
        "imagePullSecrets": list(user.image_pull_secrets),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": deployment.namespace,
            "labels": dict(labels),
            **({"annotations": dict(annotations)} if annotations else {}),
            "ownerReferences": [owner(deployment)],
        },
        "spec": {
            "backoffLimit": _BACKOFF_LIMIT,
            **({"activeDeadlineSeconds": deadline} if deadline is not None else {}),
            "podFailurePolicy": {
                "rules": [
                    # Evicted, preempted or drained: it goes on where it stopped, and that counts as no failure.
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.FETCH_CONTAINER,
                            "operator": "In",
                            "values": list(final),
                        },
                    },
                ]
            },
            "template": {
                "metadata": {
                    # A proxy beside it would keep the pod from ending.
                    "labels": {**labels, "sidecar.istio.io/inject": "false"},
                    **({"annotations": dict(pod_annotations)} if pod_annotations else {}),
                },
                "spec": {field: value for field, value in pod.items() if value not in ([], {})},
            },
        },
    }


def _off_accelerators(profile: AcceleratorProfile) -> Object:
    keys = sorted({key for key, _ in profile.node_labels})
    if not keys:
        return {}
    expressions = [{"key": key, "operator": "DoesNotExist"} for key in keys]
    term = {"weight": 100, "preference": {"matchExpressions": expressions}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
