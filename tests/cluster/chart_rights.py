"""The operator as a process with exactly the rights that its chart grants."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from cluster.replica import Replica
from cluster.runtime_helpers import configure
from harness.kubectl import helm, kubectl

CHART = Path(__file__).resolve().parents[2] / "charts" / "moe-operator"


async def start(
    place: str, folder: Path, *settings: str, key: str = "", arguments: Sequence[str] = ()
) -> Replica:
    """Install the chart without pods, and run the operator as its account. `key`: the Secret of its agents' key;
    `arguments`: further ones."""
    options = [arg for setting in ("replicas=0", *settings) for arg in ("--set", setting)]
    helm("install", place, str(CHART), "-n", place, *options)
    account = f"{place}-moe-operator"
    token = kubectl("create", "token", account, "-n", place).strip()
    admin = await configure()
    assert admin.ssl_ca_cert
    cluster = {"server": admin.host, "certificate-authority": admin.ssl_ca_cert}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "it",
                "clusters": [{"name": "it", "cluster": cluster}],
                "users": [{"name": "it", "user": {"token": token}}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            }
        )
    )
    own = [f"--kubeconfig={kubeconfig}", f"--lease-name={account}"]
    own.append(f"--agent-key-secret={key or f'{account}-agent-key'}")
    # The chart's own arguments say which namespaces; here the same values are given to the process.
    watched = [s.partition("=")[2].strip("{}") for s in settings if s.startswith("watch.namespaces")]
    return await Replica.start(place, "op", folder, *own, *arguments, namespaces=watched)
