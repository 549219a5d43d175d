"""Certificates, flags, files and options: mistakes here show as a local cluster that does not start."""

from __future__ import annotations

import argparse
import base64
import datetime
import ipaddress
import os
import ssl
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster import cli, flags, imagetable, kubeconfig, lws, namespace, netlink, network, nodes, pki
from localcluster.errors import LocalClusterError
from localcluster.kubelet import images as kubelet_images
from localcluster.layout import ClusterDirs


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.write_all(directory)
    return directory


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_clients_reach_the_api_server_under_all_its_names(certificates: Path) -> None:
    names = (
        load(certificates / "apiserver.crt")
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    addresses = names.get_values_for_type(x509.IPAddress)
    assert {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address(network.KUBERNETES_IP)} <= set(addresses)
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)
    assert "localhost" in names.get_values_for_type(x509.DNSName)


def test_components_are_the_users_that_rbac_knows(certificates: Path) -> None:
    def subject(name: str, field: x509.ObjectIdentifier) -> list[str | bytes]:
        return [
            each.value for each in load(certificates / f"{name}.crt").subject.get_attributes_for_oid(field)
        ]

    assert subject("admin", NameOID.ORGANIZATION_NAME) == ["system:masters"]
    assert subject("controller-manager", NameOID.COMMON_NAME) == ["system:kube-controller-manager"]
    assert subject("scheduler", NameOID.COMMON_NAME) == ["system:kube-scheduler"]
    assert subject("scheduler", NameOID.ORGANIZATION_NAME) == []


def test_no_certificate_serves_both_purposes(certificates: Path) -> None:
    for name in [*pki.SERVERS, *pki.CLIENTS]:
        usage = (
            load(certificates / f"{name}.crt").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        )
        expected = ExtendedKeyUsageOID.SERVER_AUTH if name in pki.SERVERS else ExtendedKeyUsageOID.CLIENT_AUTH
        assert list(usage) == [expected], name


def test_a_strict_client_accepts_the_chain(certificates: Path) -> None:
    """Python 3.13 verifies strictly by default; a missing extension would cut its clients off."""
    authority = load(certificates / "ca.crt")
    for name in [*pki.SERVERS, *pki.CLIENTS]:
        certificate = load(certificates / f"{name}.crt")
        certificate.verify_directly_issued_by(authority)
        key_id = certificate.extensions.get_extension_for_class(
            x509.AuthorityKeyIdentifier
        ).value.key_identifier
        assert key_id == authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")


def test_no_client_can_pass_for_the_front_proxy(certificates: Path) -> None:
    """Its authority is its own: API servers behind it believe what it says of users."""
    proxy = load(certificates / f"{pki.FRONT_PROXY}.crt")
    proxy.verify_directly_issued_by(load(certificates / "front-proxy-ca.crt"))
    with pytest.raises(ValueError, match="does not match"):
        proxy.verify_directly_issued_by(load(certificates / "ca.crt"))


def test_certificates_are_valid_now_and_for_a_while(certificates: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    certificate = load(certificates / "kubelet.crt")
    assert certificate.not_valid_before_utc < now
    assert certificate.not_valid_after_utc > now + datetime.timedelta(days=300)


def test_keys_are_readable_by_their_owner_only(certificates: Path) -> None:
    keys = [*certificates.glob("*.key")]
    # Besides: two authorities, the front proxy, and what signs tokens.
    assert len(keys) == 4 + len(pki.SERVERS) + len(pki.CLIENTS)
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)


def test_a_kubeconfig_carries_everything_inside() -> None:
    document = yaml.safe_load(kubeconfig.kubeconfig(b"ca", b"crt", b"key", name="demo"))
    assert document["current-context"] == "demo"
    assert document["clusters"][0]["cluster"]["server"] == network.API_URL
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]) == b"key"


def test_flags_from_the_command_line_replace_their_namesakes(tmp_path: Path) -> None:
    dirs = ClusterDirs.of("demo", tmp_path)
    base = flags.kube_controller_manager(dirs)
    merged = flags.merge(base, ["--node-monitor-grace-period=5s", "--v=4"])
    assert merged.count("--node-monitor-grace-period=5s") == 1
    assert "--node-monitor-grace-period=20s" not in merged
    assert len(merged) == len(base) + 1


def test_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    dirs = ClusterDirs.of("demo", tmp_path)
    for component in (flags.etcd, flags.kube_apiserver, flags.kube_controller_manager, flags.kube_scheduler):
        for flag in component(dirs):
            name, _, value = flag.partition("=")
            if "listen" in name or "bind" in name:
                assert "127.0.0.1" in value, flag


def test_webhooks_are_called_where_the_manager_listens() -> None:
    rewritten = lws.by_url(
        {
            "metadata": {"name": "mutating"},
            "webhooks": [
                {"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/mutate--v1-pod"}}},
                {"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/mutate-lws-v1-lws"}}},
            ],
        },
        b"pem",
    )
    pod, own = rewritten["webhooks"]
    assert pod["clientConfig"]["url"] == "https://127.0.0.1:9443/mutate--v1-pod"
    assert base64.b64decode(pod["clientConfig"]["caBundle"]) == b"pem"
    assert "service" not in pod["clientConfig"]
    # Without the selector, no pod at all could be created while the manager is away.
    assert pod["objectSelector"]["matchExpressions"][0]["key"] == "leaderworkerset.sigs.k8s.io/name"
    assert "objectSelector" not in own


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "..", "a" * 31])
def test_names_that_cannot_be_directories_or_labels_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(LocalClusterError, match="name"):
        ClusterDirs.of(name, tmp_path)


def test_a_state_directory_too_long_for_sockets_is_refused_with_the_way_out() -> None:
    with pytest.raises(LocalClusterError, match="MOE_OPERATOR_STATE"):
        ClusterDirs.of("demo", Path("/" + "x" * 100))


def test_the_nodes_that_come_with_the_project() -> None:
    cpu = nodes.load("default")
    assert [node["name"] for node in cpu] == ["cpu-0", "cpu-1", "cpu-2"]
    assert cpu[0]["labels"]["kubernetes.io/hostname"] == "cpu-0"
    gpu = nodes.load("gpu")
    assert all(node["capacity"]["nvidia.com/gpu"] == "8" for node in gpu)
    assert gpu[1]["labels"]["nvidia.com/gpu.memory"] == "183359"
    assert all(isinstance(value, str) for node in cpu + gpu for value in node["labels"].values())
    assert nodes.load("none") == []
    assert len(nodes.load("default,gpu")) == 5


def test_mistakes_in_a_file_of_nodes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    for text, complaint in (
        ("[{name: a}]", "capacity"),
        ("[{name: a, capacity: {cpu: 1}, label: {}}]", "label"),
        ("[{name: a, capacity: {cpu: 1}}, {name: a, capacity: {cpu: 1}}]", "several"),
        ("a: b", "list"),
        ("[", "YAML"),
    ):
        file.write_text(text)
        with pytest.raises(LocalClusterError, match=complaint):
            nodes.load(str(file))
    with pytest.raises(LocalClusterError, match="default, dra, gpu"):
        nodes.load("no-such-file")


def test_the_kubelet_understands_the_image_table(tmp_path: Path) -> None:
    entries = [
        imagetable.parse_option(f"mine:*={tmp_path}"),
        *imagetable.default_entries(tmp_path, tmp_path / "engine"),
    ]
    table = kubelet_images.parse(yaml.safe_load(imagetable.table(entries)))
    mine = table.find("mine:1")
    assert mine is not None
    assert mine.path.startswith(f"{tmp_path}:")
    vllm = table.find("vllm/vllm-openai:v0.32.0")
    assert vllm is not None
    assert vllm.path.startswith(f"{tmp_path}/engine:")
    assert table.find("moe-operator:dev") is not None
    assert table.find("nobody/knows:this") is None


def test_an_engine_that_is_not_installed_has_no_image(tmp_path: Path) -> None:
    """A pod of it then says that its image cannot be pulled, instead of running something else."""
    table = kubelet_images.parse({"images": imagetable.default_entries(tmp_path, None)})
    assert table.find("vllm/vllm-openai:v0.32.0") is None


def parsed(*words: str) -> argparse.Namespace:
    return cli.parser().parse_args(words)


def test_a_command_after_two_dashes_keeps_its_own_options() -> None:
    arguments = parsed("run", "--name", "t", "--", "pytest", "--name", "x", "--", "y")
    assert arguments.name == "t"
    assert cli.argv_of(arguments) == ["pytest", "--name", "x", "--", "y"]
    with pytest.raises(LocalClusterError, match="no command"):
        cli.argv_of(parsed("exec", "--name", "t", "--"))


def test_component_flags_are_checked() -> None:
    options = cli.cluster_options(
        parsed("up", "--nodes", "none", "--flag", "kube-apiserver=--max-requests-inflight=0", "--no-lws")
    )
    assert options.extra_flags == {"kube-apiserver": ["--max-requests-inflight=0"]}
    assert not options.lws
    for wrong in ("kube-proxy=--v=1", "kube-apiserver=v=1", "kube-apiserver"):
        with pytest.raises(LocalClusterError, match="--flag"):
            cli.cluster_options(parsed("up", "--flag", wrong))


def test_programs_inside_get_the_cluster_and_no_proxy(tmp_path: Path) -> None:
    """A proxy of the machine cannot be reached from inside, and clients would send the cluster's traffic
    to it.
    """
    dirs = ClusterDirs.of("demo", tmp_path)
    environment = namespace.inner_environment(
        dirs, {"PATH": "/usr/bin", "HTTPS_PROXY": "x", "http_proxy": "y", "A": "1"}
    )
    assert environment["KUBECONFIG"] == str(dirs.kubeconfig)
    assert environment["PATH"] == f"{dirs.bin}:/usr/bin"
    assert environment["A"] == "1"
    assert not [key for key in environment if key.lower().endswith("_proxy")]


def test_a_record_of_another_process_with_the_same_pid_is_not_alive(tmp_path: Path) -> None:
    """Else taking a crashed cluster down could kill whatever got its pid since."""

    mine = namespace.Record.of(os.getpid(), user_namespace=False)
    assert mine.alive()
    mine.write(tmp_path / "record")
    assert namespace.Record.read(tmp_path / "record") == mine
    assert not namespace.Record(mine.pid, mine.start_time + 1, user_namespace=False).alive()
    assert namespace.Record.read(tmp_path / "absent") is None


def test_netlink_messages_are_those_of_the_kernel_headers() -> None:
    """Fields in the order of struct nlmsghdr, ifinfomsg, rtmsg and rtattr; a wrong one leaves a cluster
    without network.
    """
    up = netlink.link_up(1)
    assert len(up) == 32
    assert up[4:6] == (16).to_bytes(2, "little")
    assert up[16:].hex() == "00000000010000000100000001000000"
    route = netlink.local_route("10.244.0.0/16", 1)
    assert int.from_bytes(route[:4], "little") == len(route) == 44
    assert route[16:28].hex() == "02100000ff03fe0200000000"
    assert route[28:].hex() == "080001000af400000800040001000000"
