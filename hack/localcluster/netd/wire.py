"""DNS messages: parse a query, write the reply (RFC 1035, with EDNS0's payload size from RFC 6891). Pure."""

from __future__ import annotations

import dnslib  # type: ignore[import-untyped]
from dnslib import QTYPE, RCODE, RR, DNSError, DNSHeader, DNSRecord

from localcluster.netd.records import TTL, Rcode, Record, resolve
from localcluster.netd.table import ServiceTable
from localcluster.network import DOMAIN

#: Largest UDP reply to a client that states no size, and the most that is sent to one that does.
PLAIN_UDP_SIZE = 512
MAX_UDP_SIZE = 4096
_HEADER_SIZE = 12


def reply_to(message: bytes, table: ServiceTable, *, udp: bool) -> bytes | None:
    """The reply's bytes; None for what deserves none (not a query, or too short to hold an id).

    A reply that does not fit a UDP client's payload size is sent empty with the truncation bit, which makes
    the client ask again over TCP.
    """
    if len(message) < _HEADER_SIZE or message[2] & 0x80:
        return None
    try:
        query = DNSRecord.parse(message)
    except (DNSError, ValueError, UnicodeError):
        return _failure(message, RCODE.FORMERR)
    if query.header.opcode != 0:
        return _failure(message, RCODE.NOTIMP)
    if len(query.questions) != 1:
        return _failure(message, RCODE.FORMERR)
    question = query.questions[0]
    answer = resolve(str(question.qname), QTYPE.get(question.qtype), table)
    reply = query.reply(ra=1, aa=1)
    reply.header.rcode = int(answer.rcode)
    for record in answer.records:
        reply.add_answer(_resource_record(record))
    for record in answer.additional:
        reply.add_ar(_resource_record(record))
    if not answer.records:
        reply.add_auth(_authority())
    size = PLAIN_UDP_SIZE
    for record in query.ar:
        if record.rtype == QTYPE.OPT:
            size = max(PLAIN_UDP_SIZE, min(int(record.edns_len), MAX_UDP_SIZE))
            reply.add_ar(dnslib.EDNS0(udp_len=MAX_UDP_SIZE))
    packed = bytes(reply.pack())
    return bytes(reply.truncate().pack()) if udp and len(packed) > size else packed


def _resource_record(record: Record) -> RR:
    match record.kind:
        case "A":
            data = dnslib.A(record.value)
        case "SRV":
            data = dnslib.SRV(priority=0, weight=100, port=record.port, target=record.value)
        case "CNAME":
            data = dnslib.CNAME(record.value)
        case "PTR":
            data = dnslib.PTR(record.value)
    return RR(record.name, getattr(QTYPE, record.kind), rdata=data, ttl=TTL)


def _authority() -> RR:
    """Who says that there is nothing, and for how many seconds that may be believed (the last of the
    times).
    """
    soa = dnslib.SOA(f"ns.dns.{DOMAIN}", f"hostmaster.{DOMAIN}", (1, 7200, 1800, 86400, TTL))
    return RR(DOMAIN, QTYPE.SOA, rdata=soa, ttl=TTL)


def _failure(message: bytes, rcode: int) -> bytes:
    identifier = int.from_bytes(message[:2], "big")
    return bytes(DNSRecord(DNSHeader(id=identifier, qr=1, ra=1, rcode=rcode)).pack())


__all__ = ["MAX_UDP_SIZE", "PLAIN_UDP_SIZE", "Rcode", "reply_to"]
