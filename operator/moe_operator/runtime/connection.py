"""Where the API server is and how to sign in: in the cluster by ServiceAccount, elsewhere by kubeconfig.

The ServiceAccount's token changes about every hour: it is read anew from its file for every request.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, list_kube_config_contexts, load_kube_config
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class NoConnectionError(Exception):
    """No usable description of an API server; the message says where it was looked for."""


async def load_configuration(
    kubeconfig: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    token_file: str = SERVICE_TOKEN_FILENAME,
    ca_file: str = SERVICE_CERT_FILENAME,
) -> Configuration:
    """A fresh client configuration: from the given kubeconfig, else the pod's ServiceAccount, else
    $KUBECONFIG or ~/.kube/config.

    Raises NoConnectionError when there is none or it cannot be read.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None and environ.get("KUBERNETES_SERVICE_HOST") and Path(token_file).is_file():  # noqa: ASYNC240
            InClusterConfigLoader(  # type: ignore[no-untyped-call]
                token_filename=token_file, cert_filename=ca_file, environ=environ, try_refresh_token=False
            ).load_and_set(configuration)
            read = _token_reader(Path(token_file))
            configuration.refresh_api_key_hook = read  # type: ignore[assignment]
            return configuration
        path = kubeconfig or environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        loader = await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, OSError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "ServiceAccount, $KUBECONFIG and ~/.kube/config"
        raise NoConnectionError(
            f"no usable connection to an API server ({where}): {error}; "
            f"run inside a cluster, or give --kubeconfig FILE"
        ) from error

    async def sign_in_again(fresh: Configuration) -> None:
        # Exec plugins look at their expiry themselves; a token file may have been rewritten.
        await loader.load_and_set(fresh)

    configuration.refresh_api_key_hook = sign_in_again  # type: ignore[assignment]
    return configuration


def _token_reader(path: Path) -> Callable[[Configuration], None]:
    """Reads the token before every request: a small file in memory, and no request goes out with a stale one."""

    def read(configuration: Configuration) -> None:
        # While the kubelet swaps the file it may be missing for a moment: the old token is still good then.
        with contextlib.suppress(OSError):
            if token := path.read_text().strip():
                configuration.api_key["BearerToken"] = f"Bearer {token}"

    return read


def context_namespace(kubeconfig: str | None = None, *, environ: Mapping[str, str] = os.environ) -> str:
    """The namespace that kubectl would use: the current context's, else `default`."""
    path = kubeconfig or environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        _, active = list_kube_config_contexts(path)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError):
        return "default"
    return str((active.get("context") or {}).get("namespace") or "default")


def context_names(
    kubeconfig: str | None = None, *, environ: Mapping[str, str] = os.environ
) -> tuple[str | None, str | None]:
    """The current context and its cluster, as the kubeconfig names them; None where none is used, as in a pod."""
    if kubeconfig is None and environ.get("KUBERNETES_SERVICE_HOST"):
        return None, None
    path = kubeconfig or environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        _, active = list_kube_config_contexts(path)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError):
        return None, None
    cluster = (active.get("context") or {}).get("cluster")
    return str(active.get("name") or "") or None, str(cluster) if cluster else None


def current_namespace(environ: Mapping[str, str] = os.environ) -> str:
    """The operator's own namespace: $POD_NAMESPACE, else the ServiceAccount's, else `default`."""
    if named := environ.get("POD_NAMESPACE"):
        return named
    try:
        return _NAMESPACE_FILE.read_text().strip() or "default"
    except OSError:
        return "default"
