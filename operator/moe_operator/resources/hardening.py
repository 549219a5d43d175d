"""What `engine.podSecurity: Restricted` changes in the pods of a group.

vLLM's CUDA images start as root and carry a user `vllm` (2000, group 0, vllm #40275) whose home is writable: they run
as it unchanged. The root file system is read-only, so all that engines and their compilers write goes to volumes.
"""

from moe_operator.api.spec import EngineSpec, PodSecurityProfile
from moe_operator.resources.pod_parts import PodParts

#: The user `vllm` of vLLM's images. Group 0 owns what they must write, for users of any number.
_USER, _GROUP = 2000, 0


def is_restricted(engine: EngineSpec) -> bool:
    """Whether the engine is to keep to the restricted standard."""
    return engine.pod_security is PodSecurityProfile.RESTRICTED


def hardened(engine: EngineSpec, cache: str) -> PodParts:
    """Folders to write to; nothing for the profile Baseline. `cache`: a folder that is one already."""
    if not is_restricted(engine):
        return PodParts()
    # PyTorch asks for the user's name when it is imported, and a user without an entry in /etc/passwd has none.
    env = {
        "HOME": cache,
        "USER": "vllm",
        "XDG_CACHE_HOME": f"{cache}/.cache",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
    }
    return PodParts(
        env=tuple({"name": name, "value": value} for name, value in env.items()),
        volumes=({"name": "moe-tmp", "emptyDir": {}},),
        mounts=({"name": "moe-tmp", "mountPath": "/tmp"},),
        reasons={
            **dict.fromkeys(env, "the image's file system is read-only"),
            "USER": "PyTorch asks for its user's name",
            "/tmp": "the image's file system is read-only",
        },
    )


def engine_context(
    engine: EngineSpec, capabilities: tuple[str, ...], *, privileged: bool = False
) -> dict[str, object]:
    """`securityContext` of the engine's container. Other containers of the pod say for themselves whom they run as.

    Capabilities that a fabric asks for are left out where the engine does not run as root: they would have no effect
    there (Kubernetes has no ambient capabilities, KEP-2763), and locked memory has to come from the node's limits.
    """
    dropped: dict[str, object] = {"drop": ["ALL"]}
    if is_restricted(engine):
        return {
            "allowPrivilegeEscalation": False,
            "capabilities": dropped,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": engine.run_as_user or _USER,
            "runAsGroup": _GROUP,
        }
    if privileged:
        return {"privileged": True}  # which has every capability, and cannot be kept from gaining more
    if capabilities:
        dropped["add"] = list(capabilities)
    # Not runAsNonRoot: vLLM's default images start as root, and a kubelet would refuse them.
    return {"allowPrivilegeEscalation": False, "capabilities": dropped}
