"""Set up the loopback of a fresh network namespace by rtnetlink, as a bare machine has no ``ip`` program."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_REPLACE = 0x1, 0x4, 0x400, 0x100
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWROUTE = 16, 20, 21, 24
_IFF_UP = 0x1
_RT_TABLE_LOCAL, _RTPROT_BOOT, _RT_SCOPE_HOST, _RTN_LOCAL = 255, 3, 254, 2
_RTA_DST, _RTA_OIF = 1, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    """One netlink message: header (length, type, flags, sequence, port) and body."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def link_up(index: int) -> bytes:
    """RTM_NEWLINK that sets IFF_UP on interface ``index`` (struct ifinfomsg)."""
    return _message(
        _RTM_NEWLINK,
        _NLM_F_REQUEST | _NLM_F_ACK,
        struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP),
    )


def local_route(network: str, index: int) -> bytes:
    """RTM_NEWROUTE that makes every address of ``network`` local, so that it can be bound and dialled at
    once.
    """
    net = ipaddress.IPv4Network(network)
    rtmsg = struct.pack(
        "=BBBBBBBBI",
        socket.AF_INET,
        net.prefixlen,
        0,
        0,
        _RT_TABLE_LOCAL,
        _RTPROT_BOOT,
        _RT_SCOPE_HOST,
        _RTN_LOCAL,
        0,
    )
    attributes = _attribute(_RTA_DST, net.network_address.packed) + _attribute(
        _RTA_OIF, struct.pack("=i", index)
    )
    return _message(
        _RTM_NEWROUTE,
        _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_REPLACE,
        rtmsg + attributes,
    )


def address(kind: int, ip: str, index: int) -> bytes:
    """RTM_NEWADDR or RTM_DELADDR of one address, /32, on interface ``index`` (struct ifaddrmsg)."""
    packed = ipaddress.IPv4Address(ip).packed
    flags = _NLM_F_REQUEST | _NLM_F_ACK | (_NLM_F_CREATE | _NLM_F_REPLACE if kind == _RTM_NEWADDR else 0)
    ifaddrmsg = struct.pack("=BBBBI", socket.AF_INET, 32, 0, _RT_SCOPE_HOST, index)
    return _message(
        kind, flags, ifaddrmsg + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    )


def acknowledge(reply: bytes) -> int:
    """The errno that the kernel's reply carries (0: done). Raises ValueError for anything but an
    acknowledgement.
    """
    _, kind = struct.unpack_from("=IH", reply)
    if kind != _NLMSG_ERROR:
        raise ValueError(f"unexpected netlink reply of type {kind}")
    (code,) = struct.unpack_from("=i", reply, 16)
    return -int(code)


def _ask(*requests: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(5)
        for request in requests:
            link.send(request)
            error = acknowledge(link.recv(65536))
            if error:
                raise OSError(error, f"netlink request refused: {os.strerror(error)}")


def hold_address(ip: str) -> None:
    """Put an address on ``lo``. Routes make it local already, but programs look for their address among the
    interfaces' (gloo refuses to start without finding it there). Raises OSError.
    """
    _ask(address(_RTM_NEWADDR, ip, socket.if_nametoindex("lo")))


def drop_address(ip: str) -> None:
    """Take an address off ``lo``; the route of its range stays. Raises OSError."""
    _ask(address(_RTM_DELADDR, ip, socket.if_nametoindex("lo")))


def configure_loopback(networks: tuple[str, ...]) -> None:
    """Bring ``lo`` up and make all addresses of ``networks`` (IPv4, CIDR) local in this network namespace."""
    index = socket.if_nametoindex("lo")
    _ask(link_up(index), *(local_route(network, index) for network in networks))
