"""LeaderWorkerSet run outside of the cluster: its configuration, and its objects with webhooks called by
URL.
"""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import yaml

from localcluster import network as net

Object = dict[str, Any]

#: The pod template of every LeaderWorkerSet carries it. Without a selector on it, every pod of the cluster
#: could only be created while the LeaderWorkerSet manager answers.
_POD_SELECTOR = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}
_POD_PATH_SUFFIX = "--v1-pod"


def manager_configuration(certificates: Path) -> str:
    """YAML of the manager's Configuration; ``certificates`` holds tls.crt and tls.key."""
    return yaml.safe_dump(
        {
            "apiVersion": "config.lws.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "webhook": {"host": net.LOOPBACK, "port": net.LWS_WEBHOOK_PORT, "certDir": str(certificates)},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": f"{net.LOOPBACK}:{net.LWS_HEALTH_PORT}"},
        },
        sort_keys=False,
    )


def crds(manifests: Path) -> list[Object]:
    """Every CRD of the release: the manager starts controllers for all of them and fails if one is
    missing.
    """
    found = [
        document for path in sorted((manifests / "crds").glob("*.yaml")) for document in _documents(path)
    ]
    if not found:
        raise FileNotFoundError(f"no CRDs in {manifests / 'crds'}")
    return found


def webhooks(manifests: Path, ca: bytes) -> list[Object]:
    """The release's webhook configurations, pointed at the manager on this machine; ``ca`` is PEM."""
    return [by_url(document, ca) for document in _documents(manifests / "webhooks.yaml")]


def by_url(configuration: Object, ca: bytes) -> Object:
    """A copy of a webhook configuration whose services are replaced by the URL at which the manager
    listens.
    """
    result = copy.deepcopy(configuration)
    result["metadata"]["name"] = f"lws-{result['metadata']['name']}"
    for webhook in result["webhooks"]:
        path = webhook["clientConfig"].pop("service")["path"]
        webhook["clientConfig"] = {
            "url": f"https://{net.LOOPBACK}:{net.LWS_WEBHOOK_PORT}{path}",
            "caBundle": base64.b64encode(ca).decode(),
        }
        if path.endswith(_POD_PATH_SUFFIX):
            webhook["objectSelector"] = copy.deepcopy(_POD_SELECTOR)
    return result


def _documents(path: Path) -> list[Object]:
    # The CRDs take the loader written in Python 5 s: it only stands in where the other was not built.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(path.read_text(), loader) if document]
