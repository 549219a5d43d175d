"""What makes an engine run code that is not in its image, or opens pages that administer it: flags and variables.

Of vLLM 0.32; a flag is listed where its value names a module, a file or a repository whose code is then imported.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Flags of `vllm serve` without dashes, and what each does.
ARGUMENTS = {
    "trust-remote-code": "runs Python files that come with the model's repository",
    "model-class-overrides": "imports the module that it names in place of a model's class",
    "worker-cls": "imports the class that it names",
    "worker-extension-cls": "imports the class that it names",
    "scheduler-cls": "imports the class that it names",
    "logits-processors": "imports the classes that it names",
    "middleware": "imports the module that it names into the API server",
    "tool-parser-plugin": "runs the Python file that it names",
    "reasoning-parser-plugin": "runs the Python file that it names",
    "io-processor-plugin": "loads a plugin into the API server",
    "tool-server": "lets requests use tools, a Python interpreter among them",
}

#: Fields inside flags that take JSON, whose values name modules, classes or files to import.
_FIELD = re.compile(r"(module_path|_cls|_plugin)$")
#: Fields that import what they name only where it is a dotted path (`package.module.Class`); else it is built in.
_DOTTED_FIELD = re.compile(r"(^|_)(backend|policy|detector)$")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

#: Flags that begin another one's name and are harmless themselves: the parser takes them as they are written.
_EXACT = frozenset({"reasoning-parser"})

#: Environment variables of the engine, and what each does.
VARIABLES = {
    "LD_PRELOAD": "loads a library into every process",
    "LD_AUDIT": "loads a library into every process",
    "PYTHONPATH": "lets Python import from another folder",
    "PYTHONHOME": "lets Python import from another folder",
    "PYTHONSTARTUP": "names a Python file to run",
    "PYTHONUSERBASE": "lets Python import from another folder",
    "VLLM_PLUGINS": "chooses the plugins that are loaded",
    "VLLM_RUST_FRONTEND_PATH": "names a program to run",
    "VLLM_NCCL_SO_PATH": "names a library to load",
    "VLLM_CUDART_SO_PATH": "names a library to load",
    "VLLM_MODEL_REDIRECT_PATH": "loads other models than those that are named",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "accepts pickled objects, which can hold code",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "lets requests load adapters from any place",
    "VLLM_SERVER_DEV_MODE": "serves pages that administer the engine, to anyone who reaches it",
}


def in_arguments(args: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name to allow, as it is written, what it does) of every flag in `engine.args` that loads code."""
    for written, value in args.items():
        flag, _, field = written.replace("_", "-").partition(".")
        for name, does in ARGUMENTS.items():
            # vLLM's parser takes abbreviations too.
            if name == flag or (name.startswith(flag) and flag not in _EXACT):
                yield name, written, does
        path = [part.replace("-", "_") for part in field.split(".") if part]
        for name in _in_json(_nested(path, _parsed(value)), ()):
            yield f"{flag}.{name}", f"{written}: {name}", "imports what it names"


def in_environment(env: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(name, what it does) of every variable in `engine.env` that loads code."""
    for variable in env:
        name = str(variable.get("name", ""))
        if name in VARIABLES:
            yield name, VARIABLES[name]


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _nested(path: list[str], value: Any) -> Any:
    """`--flag.a.b 1` as the parser reads it: {"a": {"b": 1}}."""
    for part in reversed(path):
        value = {part: value}
    return value


def _in_json(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and item and _imports(str(key), item):
                yield ".".join((*path, str(key)))
            else:
                yield from _in_json(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _in_json(item, path)


def _imports(key: str, value: str) -> bool:
    if _FIELD.search(key) or (key, value) == ("method", "custom_class"):
        return True
    return bool(_DOTTED_FIELD.search(key) and _DOTTED.fullmatch(value))
