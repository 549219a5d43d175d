"""The Hugging Face hub and its mirrors: listing by `huggingface_hub`, bytes by ranged requests of our own.

The library's downloader is not used: since 1.18 it begins every broken file again (huggingface_hub #4306) and it
compares no content with its SHA-256 (#3643). Its listing knows the hub's errors, which a plain request would have to
learn.
"""

import os
from collections.abc import Sequence
from urllib.parse import quote, urljoin

from moe_operator.catalog.weights_layout import Reason, SourceAddress
from moe_operator.weights.digests import Digest
from moe_operator.weights.errors import FetchError, SourceChangedError, TransientError
from moe_operator.weights.http import Answer, Http, origin, place, range_start, transient
from moe_operator.weights.source import Listing, Opened, RemoteFile

_HOPS = 5
_LISTING_TIMEOUT = 30.0
_ENDPOINT = "https://huggingface.co"


class Hub:
    """One repository of a hub."""

    def __init__(self, address: SourceAddress, http: Http, endpoint: str | None = None) -> None:
        self._address, self._http = address, http
        self._endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
        self._token = os.environ.get("HF_TOKEN", "").strip()

    def listing(self, revision: str | None) -> Listing:
        # 0.3 s to import: a complete cache never gets here.
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        api = HfApi(endpoint=self._endpoint, token=self._token or False, library_name="moe-operator")
        try:
            info = api.model_info(
                self._address.location, revision=revision, files_metadata=True, timeout=_LISTING_TIMEOUT
            )
        except HfHubHTTPError as error:
            answer = error.response
            code = answer.headers.get("X-Error-Code", "")
            raise self._refusal(
                answer.status_code, code, revision, answer.headers.get("Retry-After")
            ) from error
        except httpx2.HTTPError as error:
            raise TransientError(f"{self._endpoint}: {error or type(error).__name__}") from error
        except (HFValidationError, httpx2.InvalidURL) as error:
            raise FetchError(Reason.BAD_SOURCE, f"{self._address}: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise FetchError(
                Reason.BAD_SOURCE, f"{self._endpoint} does not answer as a hub does: {error}"
            ) from error
        if not info.sha:
            raise FetchError(
                Reason.BAD_SOURCE, f"{self._endpoint} names no commit of {self._address.location}"
            )
        files = []
        for sibling in info.siblings or ():
            if sibling.size is None:
                raise FetchError(
                    Reason.BAD_SOURCE,
                    f"{self._endpoint} gives no size of {sibling.rfilename}: a mirror must answer ?blobs=true",
                )
            files.append(RemoteFile(sibling.rfilename, sibling.size, _digest(sibling.lfs, sibling.blob_id)))
        return Listing(info.sha, tuple(files))

    def described(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        return list(files)

    def open(self, commit: str, file: RemoteFile, offset: int) -> Opened:
        url = f"{self._endpoint}/{self._address.location}/resolve/{commit}/{quote(file.name)}"
        home = origin(url)
        for _ in range(_HOPS):
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            if self._token and origin(url) == home:  # never to a content network
                headers["Authorization"] = f"Bearer {self._token}"
            answer = self._http.request("GET", url, headers)
            if origin(url) == home:
                _same_file(answer, commit, file)
            if answer.status in (301, 302, 303, 307, 308):
                answer.text()  # read to its end, so that the connection serves again
                url = urljoin(url, answer.headers.get("Location", ""))
                continue
            if answer.status in (200, 206):
                return Opened(range_start(answer, offset, file.size), answer)
            raise self._failed(answer, origin(url) == home, commit)
        raise TransientError(f"{place(url)}: more than {_HOPS} redirects")

    def _failed(self, answer: Answer, at_home: bool, commit: str) -> Exception:
        if later := transient(answer):
            return later
        answer.close()
        if answer.status == 416:
            return SourceChangedError(f"{answer.where} is shorter than it was listed")
        if not at_home:
            # An address of a content network is signed for a while: the hub gives a new one.
            return TransientError(f"{answer.where} answers {answer.status}")
        return self._refusal(answer.status, answer.headers.get("X-Error-Code", ""), commit, None)

    def _refusal(self, status: int, code: str, revision: str | None, later: str | None) -> Exception:
        """The error for a status of the hub. It answers 401 for what is not there and for what is private."""
        model, hub = self._address.location, self._endpoint
        token = "the token in HF_TOKEN" if self._token else "no token (HF_TOKEN)"
        if status == 429 or status >= 500 or status == 408:
            seconds = float(later) if later and later.replace(".", "", 1).isdigit() else None
            return TransientError(f"{hub} answers {status} for {model}", seconds)
        if code == "GatedRepo":
            return FetchError(
                Reason.UNAUTHORIZED,
                f"{model} is gated and {token} has no access to it: accept its licence at {hub}/{model} and give "
                "a token of that account in a Secret",
            )
        if code == "RevisionNotFound":
            return FetchError(
                Reason.NOT_FOUND,
                f"{model} has no revision {revision!r} at {hub}: name a branch, tag or commit",
            )
        if status in (401, 403):
            return FetchError(
                Reason.UNAUTHORIZED,
                f"{hub} answers {status} for {model} with {token}: it is private or does not exist. Check the name, "
                "and give a token that may read it in a Secret",
            )
        if status == 404:
            return FetchError(Reason.NOT_FOUND, f"{hub} has no {model} that {token} may see: check the name")
        return FetchError(Reason.BAD_SOURCE, f"{hub} answers {status} for {model}")


def _digest(lfs: object, blob_id: str | None) -> Digest | None:
    """SHA-256 of a large file, git's own hash of a small one."""
    if sha256 := getattr(lfs, "sha256", None):
        return Digest("sha256", str(sha256).lower())
    return Digest("git-sha1", blob_id.lower()) if blob_id and len(blob_id) == 40 else None


def _same_file(answer: Answer, commit: str, file: RemoteFile) -> None:
    """Raises SourceChangedError if the hub's headers speak of another commit, size or content."""
    headers = answer.headers
    expected = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size)}
    if file.digest is not None and file.digest.kind == "sha256":
        expected["X-Linked-ETag"] = file.digest.value
    for name, value in expected.items():
        found = headers.get(name, "").removeprefix("W/").strip('"')
        if found and found.lower() != value.lower():
            answer.close()
            raise SourceChangedError(f"{answer.where}: {name} is {found}, was listed as {value}")
