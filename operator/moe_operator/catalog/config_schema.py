"""JSON schema of the operator's configuration: what the chart lets through is what `operator_config` reads.

It is made of the models that read the file, so that a field of the one is a field of the other. It knows types, names,
patterns and bounds. What only the reader knows (that a name is in the catalogue, that two fields go together) passes
here, and keeps the operator from starting.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from moe_operator.catalog import accelerators, device_drivers, fabrics, operator_config
from moe_operator.catalog.fabric import Count

#: Where the chart's schema is kept, from the repository's root: this one is its property `config`.
FILE = "charts/moe-operator/values.schema.json"

Schema = dict[str, Any]

#: What says nothing to those who check values.
_LEFT_OUT = ("title", "default", "$defs")


def config_schema() -> Schema:
    """The schema of `config`, without references, in the words of draft 7 that Helm reads."""
    made = _plain(operator_config.FORM)
    sections = made["properties"]
    vendors = accelerators.catalog_data()["vendors"]
    sections["vendors"] |= {
        "propertyNames": {"enum": list(vendors)},
        "additionalProperties": _differing(accelerators.VENDOR_FORM),
    }
    sections["accelerators"]["additionalProperties"] = _differing(accelerators.ACCELERATOR_FORM)
    fabric = _differing(fabrics.FORM)
    fabric["properties"]["rdmaCount"] = {"enum": [one.value for one in Count], "type": "string"}
    for named in ("env", "podAnnotations"):
        values = fabric["properties"][named]
        # A site may write `NAME: value`.
        values["additionalProperties"] = {"anyOf": [{"type": "string"}, values["additionalProperties"]]}
    sections["fabrics"] |= {
        "propertyNames": _plain(fabrics.FORM)["properties"]["name"],
        "additionalProperties": fabric,
    }
    sections["deviceClasses"]["propertyNames"] = {"enum": list(device_drivers.BY_RESOURCE)}
    return made


def _differing(form: type[BaseModel]) -> Schema:
    """Of an entry over one of the catalogue's: only fields that differ, and those of its mappings likewise. Its name is
    the key."""
    made = _plain(form)
    made["properties"].pop("name", None)
    for node in (made, *_branches(made["properties"].values())):
        node.pop("required", None)
    return made


def _branches(nodes: Any) -> list[Schema]:
    return [branch for node in nodes for branch in node.get("anyOf", [node])]


def _plain(form: type[BaseModel]) -> Schema:
    schema = form.model_json_schema(by_alias=True)
    return _inlined(schema, schema.get("$defs", {}))


def _inlined(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    made = dict(node)
    if "$ref" in made:
        made = {**definitions[made.pop("$ref").rpartition("/")[2]], **made}
    made = {key: value for key, value in made.items() if key not in _LEFT_OUT}
    if made.get("type") == "object" or "enum" in made:
        made.pop("description", None)  # of the class, not of the field
    if "description" in made:
        made["description"] = " ".join(made["description"].split())
    if "patternProperties" in made:
        # Keys that fit no pattern would pass.
        ((pattern, values),) = made.pop("patternProperties").items()
        made |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
    if "properties" in made:
        made["properties"] = {
            name: _inlined(child, definitions) for name, child in made["properties"].items()
        }
    for keyword in ("items", "additionalProperties"):
        if isinstance(made.get(keyword), Mapping):
            made[keyword] = _inlined(made[keyword], definitions)
    if "anyOf" in made:
        made["anyOf"] = [_inlined(branch, definitions) for branch in made["anyOf"]]
    return made
