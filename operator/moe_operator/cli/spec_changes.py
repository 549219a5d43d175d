"""Two specs side by side: what differs, field by field, and the patch that leads from one to the other. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One field that differs."""

    path: str
    """`engine.args.max-num-seqs`; items of lists that have names by these: `engine.env[HF_HOME].value`."""
    before: Any
    """None where it was not there."""
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every field that differs, in the order of their paths."""
    return list(_changes("", before, after))


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    one, other = _named(before), _named(after)
    absent = before is _ABSENT or after is _ABSENT
    if (isinstance(one, dict) or one is _ABSENT) and (isinstance(other, dict) or other is _ABSENT):
        left: dict[str, Any] = one if isinstance(one, dict) else {}
        right: dict[str, Any] = other if isinstance(other, dict) else {}
        if absent and not left and not right:
            yield Change(path, _value(before), _value(after))
        for key in sorted({*left, *right}):
            inner = key if key.startswith("[") or not path else f".{key}"
            yield from _changes(f"{path}{inner}", left.get(key, _ABSENT), right.get(key, _ABSENT))
    elif before != after:
        yield Change(path, _value(before), _value(after))


def _named(value: Any) -> Any:
    """A list whose items have names, by these: so that items are compared, and not places in the list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        keyed = {f"[{item.get('name', item.get('mountPath', ''))}]": item for item in value}
        if len(keyed) == len(value) and "[]" not in keyed:
            return keyed
    return value


def _value(value: Any) -> Any:
    return None if value is _ABSENT else value


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7396) that makes `after` of `before`: null removes, lists are replaced as a whole."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key, _ABSENT)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = merge_patch(old, value)
            if inner:
                patch[key] = inner
        elif old is _ABSENT or old != value:
            patch[key] = value
    return dict(sorted(patch.items()))


def change_text(change: Change) -> str:
    """`engine.image: vllm/vllm-openai v0.10.0 -> v0.11.0`."""
    (repository, tag), (other, other_tag) = _tagged(change.before), _tagged(change.after)
    if repository and repository == other:
        return f"{change.path}: {repository} {tag} -> {other_tag}"
    return f"{change.path}: {_words(change.before)} -> {_words(change.after)}"


def change_texts(change: Change) -> tuple[str | None, str | None]:
    """Before and after in words; None: not set."""
    return (
        None if change.before is None else _words(change.before),
        None if change.after is None else _words(change.after),
    )


def _tagged(image: Any) -> tuple[str, str]:
    """Repository and tag of an image, empty for anything else."""
    if not isinstance(image, str):
        return "", ""
    repository, colon, tag = image.rpartition(":")
    return (repository, tag) if colon and "/" in repository and "/" not in tag else ("", "")


def _words(value: Any) -> str:
    if value is None:
        return "(not set)"
    if value == "":
        return "(bare)"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_words, value))}]"
    return str(value)


def one_line(found: Sequence[Change], width: int) -> str:
    """As many changes as fit in so many columns, what people ask for first: image, arguments, model, parallelism."""
    order = sorted(found, key=lambda change: (_weight(change.path), change.path))
    for texts in ([_short_text(change) for change in order], [_short_path(change.path) for change in order]):
        for shown in range(len(texts), 0, -1):
            rest = len(texts) - shown
            line = "; ".join(texts[:shown]) + (f"; +{rest} more" if rest else "")
            if len(line) <= width:
                return line
    return cut(f"{len(order)} fields", width)


def _short_text(change: Change) -> str:
    """`image = vllm/vllm-openai:v0.11.0`, `args.max-num-seqs 64 -> 128`, `no podTemplate.labels.team`."""
    path = _short_path(change.path)
    if change.after is None:
        return f"no {path}"
    if change.before is None:
        return f"{path} = {_words(change.after)}"
    (repository, tag), (other, other_tag) = _tagged(change.before), _tagged(change.after)
    if repository and repository == other:
        return f"{path} {tag} -> {other_tag}"
    return f"{path} {_words(change.before)} -> {_words(change.after)}"


def _short_path(path: str) -> str:
    return path.removeprefix("engine.")


def _weight(path: str) -> int:
    first = (
        "engine.image",
        "image",
        "engine.args",
        "arguments",
        "model",
        "parallelism",
        "layout",
        "hardware",
    )
    return next((i for i, start in enumerate(first) if path.startswith(start)), len(first))


def cut(text: str, width: int) -> str:
    """The text in so many columns at most."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."
