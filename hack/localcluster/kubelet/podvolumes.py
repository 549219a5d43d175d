"""A pod's volumes on this machine: where each lies, and keeping those that show API objects current."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from localcluster.kubelet import atomicdir, environment, payload, quantity
from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj
from localcluster.kubelet.payload import NotReadyError
from localcluster.kubelet.rootfs import MountSpec
from localcluster.kubelet.tokens import PodTokens

#: A container engine's size of a pod's /dev/shm where no volume replaces it.
SHM_BYTES = 64 * 2**20
_HOST_PATH_CHECKS: dict[str, Callable[[int], bool]] = {
    "Directory": stat.S_ISDIR,
    "DirectoryOrCreate": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "FileOrCreate": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


class PodVolumes:
    """The volumes of one pod below its own directory."""

    def __init__(self, client: ApiClient, directory: Path) -> None:
        self._client = client
        self._directory = directory
        self._places: dict[str, str] = {}
        self.tokens = PodTokens(client)
        self.shm = directory / "shm"

    def prepare(self, pod: Obj) -> list[Obj]:
        """Make the pod's directories; returns the memory volumes to mount, as the launcher wants them."""
        self.shm.mkdir(parents=True, exist_ok=True)
        memory: list[Obj] = [{"path": str(self.shm), "size": SHM_BYTES, "mode": 0o1777}]
        for volume in pod["spec"].get("volumes") or []:
            if volume.get("emptyDir") is None and not payload.is_payload(volume):
                continue
            place = self._directory / "volumes" / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            self._places[volume["name"]] = str(place)
            if volume.get("emptyDir") is not None:
                place.chmod(0o777)
                if volume["emptyDir"].get("medium") == "Memory":
                    limit = volume["emptyDir"].get("sizeLimit")
                    size = quantity.whole(limit) if limit and quantity.whole(limit) else 0
                    memory.append({"path": str(place), "size": size, "mode": 0o1777})
        return memory

    async def fill(self, pod: Obj, facts: environment.PodFacts, lookup: environment.Lookup) -> None:
        """Make every volume show what it must, now. Raises NotReadyError (FailedMount) or ApiError."""
        await self.tokens.renew(pod)
        for volume in pod["spec"].get("volumes") or []:
            name = volume["name"]
            if payload.is_payload(volume):
                files = payload.files(volume, pod, facts, lookup, self.tokens.of_volume(name))
                try:
                    atomicdir.write(Path(self._places[name]), files)
                except ValueError as error:
                    raise NotReadyError(f"volume {name}: {error}") from error
            elif name not in self._places:
                self._places[name] = await self._external(volume, pod)

    async def _external(self, volume: Obj, pod: Obj) -> str:
        if volume.get("hostPath"):
            return _host_path(volume["hostPath"])
        claim: str | None = None
        if volume.get("persistentVolumeClaim"):
            claim = volume["persistentVolumeClaim"]["claimName"]
        elif volume.get("ephemeral"):
            claim = f"{pod['metadata']['name']}-{volume['name']}"
        if claim is None:
            kinds = sorted(set(volume) - {"name"})
            raise NotReadyError(f"volume {volume['name']}: {kinds} is not supported by this kubelet")
        return await self._claimed(pod["metadata"]["namespace"], claim)

    async def _claimed(self, namespace: str, claim: str) -> str:
        try:
            found = await self._client.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
            name = found["spec"].get("volumeName")
            if not name or found.get("status", {}).get("phase") != "Bound":
                raise NotReadyError(f'persistentvolumeclaim "{claim}" is not bound')
            spec = (await self._client.get(f"/api/v1/persistentvolumes/{name}"))["spec"]
        except ApiError as error:
            if error.status == 404:
                raise NotReadyError(str(error)) from error
            raise
        if spec.get("hostPath"):
            return _host_path({"type": "DirectoryOrCreate", **spec["hostPath"]})
        if spec.get("local"):
            return _host_path({"type": "DirectoryOrCreate", "path": spec["local"]["path"]})
        raise NotReadyError(
            f'persistent volume "{name}" is neither hostPath nor local: not supported by this kubelet'
        )

    def mounts(self, pod: Obj, container: Obj, env: dict[str, str]) -> list[MountSpec]:
        """The container's volume mounts. Raises ConfigError for a subPath that cannot be used."""
        kinds = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
        out: list[MountSpec] = []
        for mount in container.get("volumeMounts") or []:
            volume = kinds[mount["name"]]
            sub_path = mount.get("subPath") or environment.expand(mount.get("subPathExpr") or "", env)
            if sub_path.startswith("/") or ".." in sub_path.split("/"):
                raise environment.ConfigError(
                    f"subPath {sub_path!r} must be relative and must not contain '..'"
                )
            claimed = (volume.get("persistentVolumeClaim") or {}).get("readOnly", False)
            out.append(
                MountSpec(
                    source=self._places[mount["name"]],
                    target=mount["mountPath"],
                    sub_path=sub_path,
                    read_only=bool(mount.get("readOnly") or claimed or payload.is_payload(volume)),
                )
            )
        return out


def _host_path(source: Obj) -> str:
    path: str = source["path"]
    kind: str = source.get("type") or ""
    if kind == "DirectoryOrCreate":
        Path(path).mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not Path(path).exists():
        Path(path).touch()
    elif kind == "" and not Path(path).exists():
        Path(path).mkdir(parents=True)  # a container engine makes the directory
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise NotReadyError(f"hostPath {path}: {error.strerror}") from error
    check = _HOST_PATH_CHECKS.get(kind)
    if check is not None and not check(mode):
        raise NotReadyError(f"hostPath type check failed: {path} is not a {kind}")
    return path


async def remove_tree(directory: Path) -> None:
    """Delete a directory and all below it, beside the event loop. Leaves what cannot be deleted."""

    def again(function: Callable[[str], object], path: str, _: object) -> None:
        # An overlay's work directory has no permissions, and without root they count.
        try:
            Path(path).chmod(0o700)
            function(path)
        except OSError:
            return

    await asyncio.to_thread(shutil.rmtree, directory, False, again)
