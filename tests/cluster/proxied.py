"""A way to the API server that can be disturbed."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import yaml
from kubernetes.aio.client import Configuration

from cluster.runtime_helpers import configure
from cluster.tcp_proxy import TcpProxy


@dataclass
class Proxied:
    """A way to the API server that can be disturbed."""

    proxy: TcpProxy
    port: int

    @classmethod
    async def start(cls) -> "Proxied":
        server = urlsplit((await configure()).host)
        assert server.hostname
        proxy = TcpProxy(server.hostname, server.port or 443)
        return cls(proxy, await proxy.start())

    async def configure(self) -> Configuration:
        configuration = await configure()
        configuration.host = f"https://127.0.0.1:{self.port}"
        return configuration

    async def kubeconfig(self) -> str:
        """For a process of its own."""
        admin = await configure()
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": admin.ssl_ca_cert}
        user = {"client-certificate": admin.cert_file, "client-key": admin.key_file}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "it",
                "clusters": [{"name": "it", "cluster": cluster}],
                "users": [{"name": "it", "user": user}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            }
        )
