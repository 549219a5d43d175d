"""Data as JSON or YAML text, as all commands print it. Pure."""

import json
from functools import cache
from typing import Any

#: Characters of a line.
WIDTH = 110


def data_text(data: Any, kind: str) -> str:
    """`kind` is `json` or `yaml`. Keys stay in their order; no line break at the end."""
    if kind == "json":
        return json.dumps(data, indent=2)
    import yaml

    return yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=WIDTH).rstrip()


@cache
def _dumper() -> Any:
    """A YAML dumper for readers: texts of several lines as blocks, and what stands twice written twice."""
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
