"""An S3 store: listings in pages, heads with checksums, parts, ranges bound to an ETag, signed requests."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from weights.faulty_server import Answer, FaultyServer, ranged

_PAGE = 3


@dataclass
class Object:
    """Content, how it was uploaded, and what the store keeps of that."""

    content: bytes
    part_size: int = 0
    """Of a multipart upload; 0 for one put."""
    headers: dict[str, str] = field(default_factory=dict)
    """Checksums and encryption, as a head with checksum mode tells them."""

    @property
    def etag(self) -> str:
        if not self.part_size:
            return f'"{hashlib.md5(self.content).hexdigest()}"'
        digests = [hashlib.md5(part).digest() for part in self._parts()]
        return f'"{hashlib.md5(b"".join(digests)).hexdigest()}-{len(digests)}"'

    def _parts(self) -> list[bytes]:
        starts = range(0, len(self.content), self.part_size)
        return [self.content[start : start + self.part_size] for start in starts]

    def first_part(self) -> bytes:
        return self._parts()[0] if self.part_size else self.content


def sha256_header(content: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return {"x-amz-checksum-sha256": digest, "x-amz-checksum-type": "FULL_OBJECT"}


class S3Server(FaultyServer):
    """Path-style, with one bucket. `access_key` is wanted if it is not empty."""

    def __init__(self, bucket: str = "models") -> None:
        super().__init__()
        self.bucket, self.access_key = bucket, ""
        self.objects: dict[str, Object] = {}

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Answer:
        signed = re.match(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/us-east-1/s3/aws4_request",
            headers.get("authorization", ""),
        )
        if self.access_key and (signed is None or signed[1] != self.access_key):
            return _error(403, "InvalidAccessKeyId" if signed else "AccessDenied")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        if bucket != self.bucket:
            return _error(404, "NoSuchBucket")
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if not key:
            return self._listing(asked)
        found = self.objects.get(key)
        if found is None:
            return _error(404, "NoSuchKey")
        if asked.get("partNumber") and headers.get("if-match"):
            return _error(412, "PreconditionFailed")  # some stores compare with the part's own ETag
        if headers.get("if-match", found.etag) != found.etag:
            return _error(412, "PreconditionFailed")
        more = {"ETag": found.etag}
        if headers.get("x-amz-checksum-mode") == "ENABLED":
            more |= found.headers
        if asked.get("partNumber") == "1":
            part = found.first_part()
            return Answer(206, more | {"x-amz-mp-parts-count": "1"}, part)
        return ranged(found.content, headers, more)

    def _listing(self, asked: Mapping[str, str]) -> Answer:
        keys = sorted(key for key in self.objects if key.startswith(asked.get("prefix", "")))
        begin = int(asked.get("continuation-token", "0"))
        page = keys[begin : begin + _PAGE]
        more = begin + _PAGE < len(keys)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>{escape(self.objects[key].etag)}</ETag>"
            f"<Size>{len(self.objects[key].content)}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{begin + _PAGE}</NextContinuationToken>" if more else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{contents}{token}</ListBucketResult>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, body.encode())


def _error(status: int, code: str) -> Answer:
    return Answer(status, {}, f"<Error><Code>{code}</Code></Error>".encode())
