"""A model that the catalogue does not know, from the `config.json` of its repository."""

import json
import re
from collections.abc import Mapping
from typing import Any

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.layer_regex import RegexError
from moe_operator.catalog.models.model import Checkpoint, Model
from moe_operator.catalog.models.quantization_config import Quantization, read_quantization
from moe_operator.catalog.models.read import read_architecture
from moe_operator.catalog.models.scheme import DTYPES, ELEMENT_BYTES, Precision

#: Bytes. Those of the largest models are below 200 KiB, long lists of excluded modules included.
LARGEST_CONFIG = 2**20

#: Layers of any kind; builders list them one by one. The deepest model so far has 126.
_MOST_LAYERS = 512
_COUNTS_LAYERS = re.compile(r"layers|modules|depth")

#: Of an error message, which ends up in a status: a mistyped value may be a long one.
_LONGEST_MESSAGE = 400


def model_from_config(
    name: str, config_json: str | bytes, *, repository: str | None = None, licence: str | None = None
) -> Model:
    """A model with the one checkpoint that the config describes. Keys that no family reads are ignored.

    Raises ConfigError with the path of the field: larger than LARGEST_CONFIG, not JSON (with line and column), an
    architecture or a quantisation method that is not known, a value that is missing or senseless.
    """
    try:
        data = _parse(config_json)
        _check_counts(data, "")
        architecture = read_architecture(data)
        _check_dtype(architecture, data)
        return Model(
            name=name,
            architecture=architecture,
            checkpoints=(_checkpoint(architecture, read_quantization(data), repository),),
            licence=licence,
            custom=True,
        )
    except ConfigError as error:
        message = str(error)
        if len(message) <= _LONGEST_MESSAGE:
            raise
        raise ConfigError(message[: _LONGEST_MESSAGE - 1] + "…") from error


def _parse(config_json: str | bytes) -> dict[str, Any]:
    size = len(config_json if isinstance(config_json, bytes) else config_json.encode(errors="surrogatepass"))
    if size > LARGEST_CONFIG:
        raise ConfigError(f"config.json: has {size} bytes; at most {LARGEST_CONFIG} are read")
    try:
        text = config_json.decode("utf-8-sig") if isinstance(config_json, bytes) else config_json
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"config.json: is not JSON: line {error.lineno}, column {error.colno}: {error.msg}; is it cut off?"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config.json: is not UTF-8 at byte {error.start}") from error
    except ValueError as error:  # A number of thousands of digits.
        raise ConfigError(f"config.json: has a number that is too long: {error}") from error
    except RecursionError as error:
        raise ConfigError("config.json: is nested too deeply") from error
    if not isinstance(data, dict):
        raise ConfigError("config.json: is not an object")
    return data


def _check_counts(data: Mapping[str, Any], path: str) -> None:
    """Of layers and the like, before anything is made for each of them."""
    for key, value in data.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            _check_counts(value, where)
        elif isinstance(value, int) and value > _MOST_LAYERS and _COUNTS_LAYERS.search(key):
            raise ConfigError(f"{where}: {value} is more than any model has; at most {_MOST_LAYERS} are read")


def _check_dtype(architecture: Architecture, data: Mapping[str, Any]) -> None:
    if architecture.dtype in ELEMENT_BYTES:
        return
    top = ConfigReader(data)
    inner = top.within("text_config")
    found = (r.path(k) for r in (top, inner) if r for k in ("torch_dtype", "dtype") if k in r)
    known = ", ".join(ELEMENT_BYTES)
    raise ConfigError(f"{next(found, 'dtype')}: {architecture.dtype!r} is not one of {known}")


def _checkpoint(
    architecture: Architecture, quantization: Quantization | None, repository: str | None
) -> Checkpoint:
    plain = next(precision for precision, dtype in DTYPES.items() if dtype == architecture.dtype)
    if quantization is None:
        return Checkpoint(plain, repository)
    probe = Checkpoint(Precision.FP8, repository, quantization.rules)
    try:
        # Every format is looked up here once, so that an intractable pattern is an error of the config.
        used = {scheme for tensor in architecture.tensors for scheme, _ in probe.schemes(tensor)}
    except RegexError as error:
        raise ConfigError(f"quantization_config: an expression for layers' names {error}") from error
    narrow = [(scheme.bits, scheme.precision) for scheme in used if scheme.precision]
    precision = min(narrow)[1] if narrow else plain
    return Checkpoint(precision, repository, quantization.rules, kv_cache=quantization.kv_cache)
