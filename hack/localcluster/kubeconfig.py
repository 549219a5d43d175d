"""Kubeconfigs with everything inside, so that one file can be handed on."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from localcluster.network import API_URL


def kubeconfig(ca: bytes, certificate: bytes, key: bytes, *, name: str, server: str = API_URL) -> str:
    """YAML of a kubeconfig with one context called ``name``; the arguments are PEM."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": encoded(certificate),
                        "client-key-data": encoded(key),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        },
        sort_keys=False,
    )


def write_for(pki: Path, client: str, destination: Path, *, name: str) -> None:
    """Write the kubeconfig of one of pki.CLIENTS, readable by its owner only."""
    destination.touch(mode=0o600)
    destination.write_text(
        kubeconfig(
            (pki / "ca.crt").read_bytes(),
            (pki / f"{client}.crt").read_bytes(),
            (pki / f"{client}.key").read_bytes(),
            name=name,
        )
    )
