"""Which local programs stand for which container images: the table that the kubelet looks images up in.

An entry says which directories to put first on PATH for containers of the images that ``match`` fits (``*``
and ``?`` as in a shell). Images without an entry cannot be pulled, as on a real node. Paths are found when a
cluster starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from engine.install import InstallError, vllm_command
from localcluster.errors import LocalClusterError

Entry = dict[str, Any]


def default_entries(repository: Path, engine: Path | None) -> list[Entry]:
    """vLLM (``engine``: the directory of its command, if it is installed), the operator from this checkout's
    virtual environment, and the machine's own programs.
    """
    environment = repository / ".venv" / "bin"
    vllm = [{"match": "vllm/vllm-openai*", "pathPrepend": [str(engine)]}] if engine else []
    return [
        *vllm,
        {"match": "*moe-operator*", "pathPrepend": [str(environment)]},
        {"match": "python*", "pathPrepend": [str(environment)]},
        {"match": "busybox*", "pathPrepend": []},
    ]


def installed_engine() -> Path | None:
    """Where `python -m engine install` put the vllm command; None if it did not run yet."""
    try:
        return vllm_command().parent
    except InstallError:
        return None


def parse_option(text: str) -> Entry:
    """``vllm/vllm-openai*=/opt/vllm/bin`` -> an entry. Raises LocalClusterError."""
    match, separator, directories = text.rpartition("=")
    if not separator or not match:
        raise LocalClusterError(f"--image {text!r}: write PATTERN=DIRECTORY[:DIRECTORY…].")
    paths = [Path(each).absolute() for each in directories.split(":") if each]
    for path in paths:
        if not path.is_dir():
            raise LocalClusterError(f"--image {text!r}: {path} is not a directory.")
    return {"match": match, "pathPrepend": [str(path) for path in paths]}


def read_entries(path: Path) -> list[Entry]:
    """The ``images`` list of a file of the user's. Raises LocalClusterError."""
    try:
        content = yaml.safe_load(path.read_text())
        entries = content["images"]
        if not all(isinstance(each["match"], str) for each in entries):
            raise TypeError("an entry's match is not a string")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise LocalClusterError(
            f"{path}: expected YAML with a list `images` of {{match, pathPrepend}}: {error}"
        ) from error
    return list(entries)


def table(entries: list[Entry]) -> str:
    """YAML of the table; earlier entries win."""
    return yaml.safe_dump({"images": entries}, sort_keys=False)
