"""A hub: its file API as huggingface.co answers it, and the content network that it sends large files to."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from weights.faulty_server import Answer, FaultyServer, ranged

_SMALL = 1000  # bytes up to which a file is git's own, not LFS


@dataclass
class Repository:
    """Branches, commits, files."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str] = field(default_factory=dict)
    token: str = ""
    """Wanted for every answer, if not empty."""
    gated: bool = False
    """The token's account has not accepted the licence."""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer(FaultyServer):
    """`repositories` by ORG/NAME."""

    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, Repository] = {}

    def add(self, name: str, files: dict[str, bytes], commit: str = "a" * 40) -> Repository:
        repository = Repository({commit: files}, {"main": commit})
        self.repositories[name] = repository
        return repository

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Answer:
        parts = unquote(path).strip("/").split("/")
        if parts[0] == "cdn":
            assert "authorization" not in headers, "a token must not reach the content network"
            return self._content(parts[1], headers)
        if parts[:2] == ["api", "models"]:
            return self._info("/".join(parts[2:4]), "/".join(parts[5:]) or "main", query, headers)
        if parts[:2] == ["api", "resolve-cache"]:
            return self._file("/".join(parts[3:5]), parts[5], "/".join(parts[6:]), headers, moved=True)
        return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), headers, moved=False)

    def _refused(self, repository: Repository | None, headers: Mapping[str, str]) -> Answer | None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if repository is None:
            return _error(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.token and token != repository.token:
            return _error(401, "", "Invalid username or password.")
        return None

    def _info(self, name: str, revision: str, query: str, headers: Mapping[str, str]) -> Answer:
        repository = self.repositories.get(name)
        if refused := self._refused(repository, headers):
            return refused
        assert repository is not None
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blobs = parse_qs(query).get("blobs", [""])[0].lower() in ("true", "1")
        siblings = [
            {"rfilename": file} | (_blob(content) if blobs else {})
            for file, content in repository.commits[commit].items()
        ]
        told = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def _file(
        self, name: str, revision: str, file: str, headers: Mapping[str, str], *, moved: bool
    ) -> Answer:
        repository = self.repositories.get(name)
        if refused := self._refused(repository, headers):
            return refused
        assert repository is not None
        if repository.gated:
            return _error(403, "GatedRepo", "Access to this model is restricted")
        commit = repository.branches.get(revision, revision)
        content = repository.commits.get(commit, {}).get(file)
        if content is None:
            return _error(404, "EntryNotFound", "Entry not found")
        about = {"X-Repo-Commit": commit}
        if len(content) > _SMALL:
            sha256 = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha256}"'}
            return Answer(302, about | linked | {"Location": f"{self.cdn}/cdn/{sha256}?Signature=secret"})
        if not moved:
            return Answer(307, about | {"Location": f"/api/resolve-cache/models/{name}/{commit}/{file}"})
        return ranged(content, headers, about | {"ETag": f'"{git_sha1(content)}"'})

    @property
    def cdn(self) -> str:
        """The same server under another name: for credentials, another host."""
        return self.url.replace("127.0.0.1", "localhost")

    def _content(self, sha256: str, headers: Mapping[str, str]) -> Answer:
        for repository in self.repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == sha256:
                        return ranged(content, headers, {"ETag": f'"{sha256}"'})
        return Answer(403)


def _blob(content: bytes) -> dict[str, object]:
    blob: dict[str, object] = {"blobId": git_sha1(content), "size": len(content)}
    if len(content) > _SMALL:
        sha256 = hashlib.sha256(content).hexdigest()
        blob["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 135}
    return blob


def _error(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, headers, json.dumps({"error": message}).encode())
