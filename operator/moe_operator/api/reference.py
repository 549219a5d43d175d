"""The API reference for users, generated: `python -m moe_operator.api.reference` prints docs/reference/api.md."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moe_operator.api import names, reasons, reserved
from moe_operator.api.base import DURATION_PATTERN
from moe_operator.api.crd import PRINTER_COLUMNS, schema
from moe_operator.api.reserved import Reserved
from moe_operator.api.rules import BEYOND_CEL, RULES
from moe_operator.api.structural import walk

#: Where the generated file is kept, from the repository's root.
FILE = "docs/reference/api.md"

_INTRODUCTION = f"""\
# API reference: {names.KIND} `{names.API_VERSION}`

This page is generated from the operator's API models; `kubectl explain mdep.spec` shows the same.
Durations are written as `30s`, `5m`, `1h30m` or `50ms`. Fields without a default may be left out, but those
marked *required*.
"""

_RESERVED: tuple[tuple[str, str, tuple[Reserved, ...]], ...] = (
    (
        "`spec.engine.args`",
        "Dashes and underscores are the same, and an abbreviation of a flag or its `no-` form is refused too.",
        reserved.ARGUMENTS,
    ),
    ("`spec.engine.env`", "", reserved.ENVIRONMENT),
    ("`spec.engine.resources`", "", reserved.RESOURCES),
    ("`spec.podTemplate.labels` and `annotations`", "", reserved.METADATA),
    ("`spec.podTemplate.volumes`", "", reserved.VOLUMES),
    ("`spec.podTemplate.volumeMounts`", "", reserved.MOUNT_PATHS),
    ("`spec.podTemplate.containers`", "", reserved.CONTAINERS),
)


def render() -> str:
    """The page as Markdown."""
    root = schema()
    return "\n".join(
        [
            _INTRODUCTION,
            "## spec\n",
            *_fields("spec", root["properties"]["spec"]),
            "## Rules\n",
            "Beyond the bounds of single fields, the API server refuses:\n",
            *_rules(),
            "## Reserved names\n",
            *_reserved(),
            "## status\n",
            "Written by the operator alone.\n",
            *_fields("status", root["properties"]["status"]),
            "## Columns of `kubectl get mdep`\n",
            *_table(("Column", "Field", "Shown"), map(_column, PRINTER_COLUMNS)),
            "## Conditions\n",
            *_table(
                ("Type", "True means", "Present"),
                ((f"`{c.name}`", c.meaning, c.present) for c in reasons.condition_types()),
            ),
            "## Reasons\n",
            *_reasons(),
        ]
    )


def _fields(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    yield from _table(("Field", "Type", "Default", "Meaning"), _rows(name, node))


def _rows(root: str, node: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    required = {
        f"{path}.{name}" if path else name for path, inner in walk(node) for name in inner.get("required", ())
    }
    for path, inner in walk(node):
        if not path or path.endswith(("{}", "[]")) or path.rpartition(".")[0] in _passed_on(node):
            continue
        default = inner.get("default")
        shown = "" if default in (None, {}) else f"`{default}`"
        meaning = inner.get("description", "")
        if path in required and root == "spec":
            meaning = f"*Required.* {meaning}".strip()
        yield f"`{path}`", _kind(inner), shown, meaning


def _passed_on(node: Mapping[str, Any]) -> set[str]:
    """Nodes whose fields are Kubernetes' own."""
    return {path for path, inner in walk(node) if inner.get("x-kubernetes-preserve-unknown-fields")}


def _kind(node: Mapping[str, Any]) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    kind = str(node.get("type", ""))
    if kind == "array":
        return f"list of {_kind(node['items'])}s" + _bounds(node, "minItems", "maxItems", " items")
    if kind == "object" and isinstance(node.get("additionalProperties"), Mapping):
        return f"map to {_kind(node['additionalProperties'])}" + _bounds(
            node, "", "maxProperties", " entries"
        )
    if kind == "object":
        return "Kubernetes object" if node.get("x-kubernetes-preserve-unknown-fields") else "object"
    if node.get("pattern") == DURATION_PATTERN:
        limits = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
        return ", ".join(["duration", *(limit.removeprefix("must be ") for limit in limits)])
    if kind == "integer":
        return kind + _bounds(node, "minimum", "maximum", "")
    return kind


def _bounds(node: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    low, high = node.get(least), node.get(most)
    if low is not None and high is not None:
        return f", {low} to {high}{unit}"
    return f", at most {high}{unit}" if high is not None else ""


def _rules() -> Iterator[str]:
    own = {group.advice for _, _, groups in _RESERVED for group in groups}
    for rule in (*RULES, *BEYOND_CEL):
        if not any(rule.message.endswith(advice) for advice in own):
            yield f"- `{rule.path or 'metadata.name'}`: {rule.message}"
    yield ""


def _reserved() -> Iterator[str]:
    for where, note, groups in _RESERVED:
        yield f"### {where}\n"
        if note:
            yield f"{note}\n"
        yield from _table(("Refused", "Instead"), map(_group, groups))


def _group(group: Reserved) -> tuple[str, str]:
    shown = ", ".join(f"`{name}`" for name in (*group.exact, *(f"{p}*" for p in group.prefixes)))
    return shown, group.advice + (" (only while the agent is enabled)" if group.agent_only else "")


def _column(column: tuple[str, str, str, bool]) -> tuple[str, str, str]:
    name, _, path, wide = column
    return name.upper(), f"`{path}`", "with `-o wide`" if wide else "always"


def _reasons() -> Iterator[str]:
    for group in dict.fromkeys(reason.group for reason in reasons.all_reasons()):
        yield f"### {group}\n"
        entries = (r for r in reasons.all_reasons() if r.group == group)
        yield from _table(
            ("Reason", "When", "What to do"), ((f"`{r.name}`", r.when, r.remedy) for r in entries)
        )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell.replace("\n", " ") for cell in row) + " |"
    yield ""


def main() -> None:
    """Print the page."""
    sys.stdout.write(render())


if __name__ == "__main__":
    main()
