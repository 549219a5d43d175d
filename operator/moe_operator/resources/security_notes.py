"""What is worth saying of a revision's security: what is unusual, and what the nodes must give for it."""

from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.catalog.policy import PodSecurityLevel
from moe_operator.resources.hardening import is_restricted
from moe_operator.resources.network_policy import denies_egress
from moe_operator.resources.pod_security import template_security
from moe_operator.resources.revision import Revision
from moe_operator.resources.source_ports import unknown_address


def security_notes(
    deployment: ModelDeployment, revision: Revision, config: OperatorConfig
) -> tuple[str, ...]:
    """One line each, for the plan's notes."""
    notes: list[str] = []
    security = template_security(revision.template)
    if security.level is PodSecurityLevel.PRIVILEGED:
        notes.append(
            f"pods need a namespace of the Pod Security level privileged: {', '.join(security.reasons)}"
        )
    transport = revision.plan.transport
    if is_restricted(deployment.spec.engine) and transport is not None and transport.rdma_resource:
        notes.append(
            "engine.podSecurity Restricted: RDMA locks memory, which needs nodes whose container runtime sets no"
            " limit on it (LimitMEMLOCK=infinity)"
        )
    if moves(revision.image):
        notes.append(
            f"image {revision.image} names no version: pods of one group may run different ones; name a version"
            " or a digest in engine.image"
        )
    pod = revision.template["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    if denies_egress(deployment, config) and (secret := unknown_address(pod)) is not None:
        notes.append(
            f"egress is denied but for port 443, where AWS answers: if Secret {secret} names another store"
            " (AWS_ENDPOINT_URL), which the operator does not read, name it in weights.s3Endpoint of the operator's"
            " configuration, or in engine.env where the engine itself reads it"
        )
    return tuple(notes)


def moves(image: str) -> bool:
    """Whether an image is named by no tag or by one that is meant to move."""
    if "@" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest", "nightly") or tag.startswith("latest-")
