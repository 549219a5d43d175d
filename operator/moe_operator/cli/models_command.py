"""`kubectl moe models`: the models that the operator knows, without a cluster."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

import yaml

from moe_operator.catalog.models.catalog import ModelCatalog, load_models
from moe_operator.cli.models_text import describe_model, list_models, model_data

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: Names to suggest for one that is not known.
_SUGGESTED = 3


class UnknownModelError(Exception):
    """No model has this name, alias or repository; the message has the closest names."""


def add_parser(commands: "Commands") -> None:
    """Adds the command to those of `kubectl moe`."""
    parser = commands.add_parser(
        "models", help="the models that the operator knows: sizes, precisions, context"
    )
    parser.add_argument(
        "name", nargs="?", help="one in detail: its name, an alias, or a checkpoint's repository"
    )
    parser.add_argument("-o", "--output", choices=("json", "yaml"), help="data instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where there is no such model."""
    try:
        print(models_text(load_models(), arguments.name, arguments.output))
    except UnknownModelError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 1
    return 0


def models_text(catalog: ModelCatalog, name: str | None = None, output: str | None = None) -> str:
    """All models, or one in detail. `output` is None for text, `json` or `yaml`. Raises UnknownModelError."""
    names = catalog.names() if name is None else (name,)
    models = [model for known in names if (model := catalog.find(known)) is not None]
    if name is not None and not models:
        close = ", ".join(catalog.closest(name)[:_SUGGESTED])
        raise UnknownModelError(
            f"there is no model {name!r}; close to it are {close}. `kubectl moe models` lists all; another model is"
            " described by its config.json in spec.model"
        )
    if output is None:
        return list_models(models) if name is None else describe_model(models[0])
    data = [model_data(model) for model in models] if name is None else model_data(models[0])
    if output == "json":
        return json.dumps(data, indent=2)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
