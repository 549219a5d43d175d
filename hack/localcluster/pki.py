"""The cluster's certificate authority, certificates and keys, made afresh for each cluster."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster.network import DOMAIN, KUBERNETES_IP, LOOPBACK, POD_CIDR

_LIFETIME = datetime.timedelta(days=365)
#: Clocks of a machine that was just resumed may be behind.
_BACKDATE = datetime.timedelta(hours=1)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

#: Every address that a node may have: the first of each /24 of the pods' range but the first /24.
_NODE_ADDRESSES = tuple(
    str(share[1]) for share in [*ipaddress.ip_network(POD_CIDR).subnets(new_prefix=24)][1:]
)
#: Server certificates: file name -> names and addresses they are valid for.
SERVERS: dict[str, tuple[str, ...]] = {
    "apiserver": (
        LOOPBACK,
        KUBERNETES_IP,
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{DOMAIN}",
    ),
    "kubelet": (LOOPBACK, "localhost", *_NODE_ADDRESSES),
    "lws": (LOOPBACK, "localhost"),
}
#: Client certificates: file name -> (user, group). RBAC knows these names from the API server's bootstrap
#: policy.
CLIENTS: dict[str, tuple[str, str | None]] = {
    "admin": ("kubernetes-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),
}
#: By this client the API server is known to API servers that it passes requests on to.
FRONT_PROXY = "front-proxy-client"


@dataclass(frozen=True)
class Authority:
    """A certificate and the key that signs others with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_authority(now: datetime.datetime, common_name: str = "localcluster-ca") -> Authority:
    """A self-signed authority with the extensions that strict verifiers (Python >= 3.13, Go) insist on."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = _key_usage(signs_certificates=True)
    certificate = (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(
    authority: Authority,
    now: datetime.datetime,
    common_name: str,
    *,
    organization: str | None = None,
    names: tuple[str, ...] = (),
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for a server (``names`` given: DNS names and IP addresses) or else for a client."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = authority.certificate
    builder = (
        _builder(x509.Name(attributes), issuer.subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
    return builder.sign(authority.key, hashes.SHA256()), key


def write_all(directory: Path, now: datetime.datetime | None = None) -> None:
    """Write ``ca``, every server and client certificate (``<name>.crt``, ``<name>.key``), those of the front proxy and
    ``sa.key``, all PEM.
    """
    moment = now or datetime.datetime.now(datetime.UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = new_authority(moment)
    _write(directory, "ca", authority.certificate, authority.key)
    for name, names in SERVERS.items():
        _write(directory, name, *issue(authority, moment, name, names=names))
    for name, (user, group) in CLIENTS.items():
        _write(directory, name, *issue(authority, moment, user, organization=group))
    proxy = new_authority(moment, "front-proxy-ca")
    _write(directory, "front-proxy-ca", proxy.certificate, proxy.key)
    _write(directory, FRONT_PROXY, *issue(proxy, moment, FRONT_PROXY))
    # ServiceAccount tokens are signed with RSA: every client library can verify RS256.
    _write_secret(directory / "sa.key", _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(directory: Path, name: str, certificate: x509.Certificate, key: PrivateKey) -> None:
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_secret(directory / f"{name}.key", _pem(key))


def _write_secret(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
