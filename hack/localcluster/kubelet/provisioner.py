"""Gives PersistentVolumeClaims of the local StorageClass a folder, so that claims bind as on a cluster with storage."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj

STORAGE_CLASS = "local"
PROVISIONER = "local-folders.moe-operator.dev"
_RETRY = 1.0


def storage_class() -> Obj:
    """The cluster's default class."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def volume_for(claim: Obj, folder: Path) -> Obj:
    """The PersistentVolume for one claim. All nodes share the machine's disk, so every access mode holds."""
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{metadata['uid']}",
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": spec.get("volumeMode", "Filesystem"),
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }


class Provisioner:
    """Follows claims and volumes; makes a folder for each new claim and deletes it with a released volume."""

    def __init__(self, client: ApiClient, directory: Path) -> None:
        self._client, self._directory = client, directory
        self._jobs: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._client.post("/apis/storage.k8s.io/v1/storageclasses", storage_class())
                break
            except ApiError as error:
                if error.status == 409:
                    break
                await asyncio.sleep(_RETRY)

        def claims(items: list[Obj]) -> None:
            for item in items:
                self._claim("ADDED", item)

        def volumes(items: list[Obj]) -> None:
            for item in items:
                self._volume("ADDED", item)

        await asyncio.gather(
            self._client.follow("/api/v1/persistentvolumeclaims", claims, self._claim),
            self._client.follow("/api/v1/persistentvolumes", volumes, self._volume),
        )

    def _claim(self, event: str, claim: Obj) -> None:
        spec = claim["spec"]
        unbound = not spec.get("volumeName") and claim.get("status", {}).get("phase", "Pending") == "Pending"
        if event != "DELETED" and unbound and spec.get("storageClassName") == STORAGE_CLASS:
            folder = self._directory / f"{claim['metadata']['namespace']}-{claim['metadata']['uid']}"
            self._start(self._create(claim, folder))

    def _volume(self, event: str, volume: Obj) -> None:
        ours = (volume["metadata"].get("annotations") or {}).get(
            "pv.kubernetes.io/provisioned-by"
        ) == PROVISIONER
        if ours and event != "DELETED" and volume.get("status", {}).get("phase") == "Released":
            self._start(self._release(volume))

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _create(self, claim: Obj, folder: Path) -> None:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        with contextlib.suppress(ApiError):  # it exists already, or the next event tries again
            await self._client.post("/api/v1/persistentvolumes", volume_for(claim, folder))

    async def _release(self, volume: Obj) -> None:
        with contextlib.suppress(ApiError):
            await self._client.delete(f"/api/v1/persistentvolumes/{volume['metadata']['name']}", {})
            await asyncio.to_thread(shutil.rmtree, volume["spec"]["hostPath"]["path"], True)
