"""S3 and stores that speak it, for example MinIO and Ceph.

Credentials and signatures come from the AWS common runtime (environment, profile, web or pod identity, instance);
requests are plain ones, as what the store says of checksums is in headers that clients of a higher level do not show.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from moe_operator.catalog.weights_layout import Reason, SourceAddress
from moe_operator.weights.digests import Digest, from_base64
from moe_operator.weights.errors import FetchError, SourceChangedError, TransientError
from moe_operator.weights.http import Answer, Http, range_start, retry_after, transient
from moe_operator.weights.s3_signing import Signer
from moe_operator.weights.source import Listing, Opened, RemoteFile

_MOST_OBJECTS = 20_000  # a model's folder has some hundred; more is a prefix that is not a model's
_HEADS_AT_ONCE = 8
_SHA256_HEX = 40


class Bucket:
    """One prefix of a bucket."""

    def __init__(self, address: SourceAddress, http: Http, endpoint: str | None = None) -> None:
        self._address, self._http = address, http
        environ = os.environ
        self._endpoint = (
            endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        ).rstrip("/")
        self._region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._signer = Signer()

    def listing(self, revision: str | None) -> Listing:
        if revision:
            raise FetchError(
                Reason.BAD_SOURCE,
                f"{self._address}: a bucket has no revisions; put each version under a prefix of its own",
            )
        files = tuple(self._objects())
        if not files:
            raise FetchError(Reason.NOT_FOUND, f"{self._address}: nothing is stored under this prefix")
        content = "\n".join(f"{file.name}\0{file.etag}\0{file.size}" for file in files)
        return Listing(hashlib.sha256(content.encode()).hexdigest()[:_SHA256_HEX], files)

    def _objects(self) -> Iterator[RemoteFile]:
        prefix, token, seen = f"{self._address.prefix}/", "", 0
        while True:
            query = {"list-type": "2", "prefix": prefix} | ({"continuation-token": token} if token else {})
            answer = self._ask("GET", "", query=query)
            try:
                page = ElementTree.fromstring(answer.text(limit=16 * 2**20))
            except ElementTree.ParseError as error:
                raise FetchError(
                    Reason.BAD_SOURCE, f"{answer.where} does not answer as S3 does: {error}"
                ) from error
            for item in page.iterfind("{*}Contents"):
                key = item.findtext("{*}Key") or ""
                if key.endswith("/"):
                    continue  # consoles make such objects for folders
                seen += 1
                yield RemoteFile(
                    key.removeprefix(prefix),
                    int(item.findtext("{*}Size") or 0),
                    etag=item.findtext("{*}ETag") or "",
                )
            token = page.findtext("{*}NextContinuationToken") or ""
            if not token:
                return
            if seen > _MOST_OBJECTS:
                raise FetchError(
                    Reason.BAD_SOURCE,
                    f"{self._address}: more than {_MOST_OBJECTS} objects; name the folder that holds config.json",
                )

    def described(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
            return list(pool.map(self._described, files))

    def _described(self, file: RemoteFile) -> RemoteFile:
        headers = self._head(file, {"x-amz-checksum-mode": "ENABLED"})
        parts = re.fullmatch(r"([0-9a-f]{32})-(\d+)", file.etag.strip('"'))
        composite = headers.get("x-amz-checksum-type") == "COMPOSITE"
        size = 0
        if parts or composite:
            size = self._first_part(file)
        digest = _digest(file, headers, size)
        return RemoteFile(file.name, file.size, digest, file.etag)

    def _first_part(self, file: RemoteFile) -> int:
        """Bytes of an object's first part; 0 where the store does not tell."""
        # Without If-Match: some stores compare it with the part's own ETag.
        answer = self._request("HEAD", file.name, {}, {"partNumber": "1"})
        if later := transient(answer):
            raise later
        answer.close()
        return int(answer.headers.get("Content-Length") or 0) if answer.status in (200, 206) else 0

    def _head(
        self, file: RemoteFile, headers: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        answer = self._ask("HEAD", file.name, {**headers, "If-Match": file.etag}, query)
        answer.close()
        return answer.headers

    def open(self, commit: str, file: RemoteFile, offset: int) -> Opened:
        headers = {"If-Match": file.etag} | ({"Range": f"bytes={offset}-"} if offset else {})
        answer = self._ask("GET", file.name, headers)
        return Opened(range_start(answer, offset, file.size), answer)

    def _ask(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """A good answer, or an error that says why not."""
        for _ in range(2):
            answer = self._request(method, name, headers or {}, query or {})
            if answer.status in (200, 206):
                return answer
            region = answer.headers.get("x-amz-bucket-region", "")
            if self._endpoint or not region or region == self._region:
                break
            answer.close()
            self._region = region  # the store says where the bucket is: once is enough
        raise self._failed(answer, name)

    def _request(
        self, method: str, name: str, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Answer:
        url = self._url(name) + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        wanted = {key: value for key, value in headers.items() if value}
        return self._http.request(method, url, self._signer.signed(method, url, wanted, self._region))

    def _url(self, name: str) -> str:
        bucket = self._address.location
        path = quote(f"{self._address.prefix}/{name}") if name else ""
        if self._endpoint:
            return f"{self._endpoint}/{bucket}/{path}" if path else f"{self._endpoint}/{bucket}"
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        if "." in bucket:  # a certificate's wildcard covers one label
            return f"https://s3.{self._region}.{domain}/{bucket}/{path}"
        return f"https://{bucket}.s3.{self._region}.{domain}/{path}"

    def _failed(self, answer: Answer, name: str) -> Exception:
        if later := transient(answer):
            return later
        where = f"{self._address}/{name}" if name else str(self._address)
        host = urlsplit(answer.where).netloc
        if answer.status in (412, 416):
            answer.close()
            return SourceChangedError(f"{where} is no longer the object that was listed")
        code = re.search(r"<Code>(\w+)</Code>", answer.text())
        says = f"{host} answers {answer.status}" + (f" ({code[1]})" if code else "")
        if code and code[1] in ("SlowDown", "RequestTimeout"):
            return TransientError(says, retry_after(answer.headers))
        if answer.status in (400, 401, 403) and (answer.status != 400 or (code and "Token" in code[1])):
            return FetchError(
                Reason.UNAUTHORIZED,
                f"{where}: {says}, asked {self._signer.identity}. Give a Secret with AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a ServiceAccount that may list the bucket and read its objects",
            )
        if answer.status == 404:
            return FetchError(Reason.NOT_FOUND, f"{where}: {says}. Check bucket, prefix and endpoint")
        return FetchError(
            Reason.BAD_SOURCE, f"{where}: {says}. Check the endpoint and AWS_REGION (now {self._region})"
        )


def _digest(file: RemoteFile, headers: Mapping[str, str], part_size: int) -> Digest | None:
    """The strongest checksum that the store states, or None."""
    # Of an upload in parts a checksum is of the whole only where that is said.
    composite = headers.get("x-amz-checksum-type", "COMPOSITE" if "-" in file.etag else "") == "COMPOSITE"
    equal_parts = part_size > 0
    for kind in ("sha256", "crc64nvme", "crc32c", "crc32"):
        text = headers.get(f"x-amz-checksum-{kind}", "")
        try:
            if text and not composite and "-" not in text:
                return from_base64(kind, text)
            if text and kind == "sha256" and equal_parts and _parts(text) == -(-file.size // part_size):
                return from_base64("sha256-parts", text.partition("-")[0], part_size)
        except ValueError:
            continue
    # With keys of KMS or of the client an ETag is no MD5:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    if headers.get("x-amz-server-side-encryption", "AES256") != "AES256" or headers.get(
        "x-amz-server-side-encryption-customer-algorithm"
    ):
        return None
    etag = file.etag.strip('"')
    if re.fullmatch(r"[0-9a-f]{32}", etag):
        return Digest("md5", etag)
    if re.fullmatch(r"[0-9a-f]{32}-\d+", etag) and equal_parts and _parts(etag) == -(-file.size // part_size):
        return Digest("md5-parts", etag[:32], part_size)
    return None


def _parts(text: str) -> int:
    number = text.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
