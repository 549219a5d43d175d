"""A pod's /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]


@dataclass(frozen=True)
class DnsSettings:
    """The cluster's DNS server, its domain, and the machine's own resolv.conf."""

    server: str
    domain: str
    machine: str


def hostname(pod: Obj) -> str:
    """The pod's host name: at most 63 characters of spec.hostname or the pod's name."""
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    name = name[:63].rstrip("-.")
    if pod["spec"].get("setHostnameAsFQDN"):
        return full_name(pod, name) or name
    return name


def full_name(pod: Obj, name: str) -> str | None:
    """The pod's name in cluster DNS, where it has a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    return f"{name}.{subdomain}.{pod['metadata']['namespace']}.svc.cluster.local" if subdomain else None


def hosts(pod: Obj, pod_ip: str) -> str:
    """/etc/hosts with the pod's own names and its hostAliases."""
    name = (pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")
    full = full_name(pod, name)
    lines = [
        "# Written by the kubelet; do not edit.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{pod_ip}\t" + (f"{full}\t{name}" if full else name),
    ]
    lines += [
        f"{alias['ip']}\t" + "\t".join(alias["hostnames"]) for alias in pod["spec"].get("hostAliases") or []
    ]
    return "\n".join(lines) + "\n"


def resolv_conf(pod: Obj, dns: DnsSettings) -> str:
    """/etc/resolv.conf by the pod's dnsPolicy and dnsConfig."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers: list[str] = []
    search: list[str] = []
    options: list[tuple[str, str | None]] = []
    if policy == "Default":
        servers, search, options = _parse(dns.machine)
    elif policy != "None":
        servers = [dns.server]
        search = [f"{namespace}.svc.{dns.domain}", f"svc.{dns.domain}", dns.domain]
        options = [("ndots", "5")]
    config = spec.get("dnsConfig") or {}
    servers = list(dict.fromkeys([*servers, *(config.get("nameservers") or [])]))
    search = list(dict.fromkeys([*search, *(config.get("searches") or [])]))
    merged = dict(options) | {entry["name"]: entry.get("value") for entry in config.get("options") or []}
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append("search " + " ".join(search))
    if merged:
        lines.append("options " + " ".join(f"{k}:{v}" if v is not None else k for k, v in merged.items()))
    return "\n".join(lines) + "\n"


def _parse(text: str) -> tuple[list[str], list[str], list[tuple[str, str | None]]]:
    servers: list[str] = []
    search: list[str] = []
    options: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "nameserver":
            servers += words[1:2]
        elif words[0] == "search":
            search = words[1:]
        elif words[0] == "options":
            for word in words[1:]:
                key, colon, value = word.partition(":")
                options.append((key, value if colon else None))
    return servers, search, options
