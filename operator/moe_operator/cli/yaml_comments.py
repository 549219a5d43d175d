"""Comments in YAML that is written by a library which knows of none. Pure."""

import textwrap
from collections.abc import Mapping

import yaml

from moe_operator.cli.data_text import WIDTH

#: Keys and indexes from the document's root.
Path = tuple[str | int, ...]


def commented(text: str, comments: Mapping[Path, str]) -> str:
    """The block-style document `text` with a comment at each of these places; what it says stays the same.

    A comment stands at the end of its line where there is room and where the value ends on that line, else above it.
    KeyError for a place that the document does not have.
    """
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    lines = text.split("\n")
    above: dict[int, list[str]] = {}
    for path, comment in comments.items():
        line, alone = _place(root, path)
        if alone and len(lines[line]) + len(comment) + 4 <= WIDTH and " # " not in lines[line]:
            lines[line] += f"  # {comment}"
        else:
            indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
            above.setdefault(line, []).extend(as_comment(comment, indent))
    return "\n".join(part for number, line in enumerate(lines) for part in (*above.get(number, ()), line))


def as_comment(text: str, indent: str = "") -> list[str]:
    """Lines of a comment, broken at blanks."""
    before = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=before,
        subsequent_indent=before,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _place(root: yaml.Node | None, path: Path) -> tuple[int, bool]:
    """The line where the value at `path` begins, its key included, and whether a comment may follow on that line."""
    node, line = root, 0
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [(k, v) for k, v in node.value if k.value == step]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            pairs = [(node.value[step], node.value[step])]
        else:
            pairs = []
        if not pairs:
            raise KeyError(path)
        key, node = pairs[0]
        line = key.start_mark.line
    return line, _ends_on(node, line)


def _ends_on(node: yaml.Node | None, line: int) -> bool:
    """Whether what stands on the line of a value that begins there is complete."""
    if isinstance(node, yaml.ScalarNode):
        return bool(node.start_mark.line == node.end_mark.line == line)
    if isinstance(node, yaml.MappingNode) and node.value and node.start_mark.line == line:
        return _ends_on(node.value[0][1], line) or node.value[0][1].start_mark.line > line
    return True
