"""The CustomResourceDefinition, made of the models and rules; `python -m moe_operator.api.crd` prints it."""

import sys
from typing import Any

import yaml

from moe_operator.api import names
from moe_operator.api.rules import RULES, Rule
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.api.status import ModelDeploymentStatus
from moe_operator.api.structural import NotStructuralError, Schema, assert_structural, to_structural

#: Where the generated file is kept, from the repository's root.
FILE = f"crds/{names.GROUP}_{names.PLURAL}.yaml"

_HEADER = (
    f"# Generated from operator/moe_operator/api by `python -m moe_operator.api.crd > {FILE}`; do not edit.\n"
)

_READY_REASON = '.status.conditions[?(@.type=="Ready")].reason'

#: (name, type, path, only with -o wide)
PRINTER_COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    ("Model", "string", ".spec.model.name", False),
    ("Ready", "string", ".status.groups.summary", False),
    ("Width", "integer", ".status.plan.width", False),
    ("Tok/s", "integer", ".status.throughput.outputTokensPerSecond", False),
    ("HBM", "string", ".status.hbm.summary", False),
    ("$/Mtok", "string", ".status.cost.perMillionTokens", False),
    ("Reason", "string", _READY_REASON, False),
    ("Precision", "string", ".status.plan.precision", True),
    ("Context", "integer", ".status.plan.contextLength", True),
    ("Endpoint", "string", ".status.endpoint", True),
    ("Image", "string", ".status.plan.image", True),
    ("Age", "date", ".metadata.creationTimestamp", False),
)


def schema() -> Schema:
    """The structural schema of a whole ModelDeployment. Raises NotStructuralError if a model has none."""
    spec = to_structural(ModelDeploymentSpec.model_json_schema(by_alias=True))
    status = to_structural(ModelDeploymentStatus.model_json_schema(by_alias=True), defaults=False)
    root: Schema = {
        "type": "object",
        "description": "A model served by groups of GPUs that run it expert-parallel with vLLM.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    for rule in RULES:
        _node(root, rule.path).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    assert_structural(root)
    return root


def custom_resource_definition() -> dict[str, Any]:
    """The CRD as a plain dict."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.PLURAL}.{names.GROUP}",
            "labels": {"app.kubernetes.io/name": "moe-operator"},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["mdep"],
                "categories": ["moe"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(*column) for column in PRINTER_COLUMNS],
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                }
            ],
        },
    }


def render() -> str:
    """The CRD as YAML, as it is kept in the repository."""
    return _HEADER + yaml.dump(
        custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )


def _node(root: Schema, path: str) -> Schema:
    node = root
    for part in filter(None, path.split(".")):
        try:
            node = node["properties"][part]
        except KeyError:
            raise NotStructuralError(f"a rule is about {path}, which the schema does not have") from None
    return node


def _validation(rule: Rule) -> dict[str, str]:
    return {"rule": rule.cel, "message": rule.message}


def _column(name: str, kind: str, path: str, wide: bool) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    return column | {"priority": 1} if wide else column


class _Dumper(yaml.SafeDumper):
    """Never writes an alias for a value that stands twice: other readers of the file choke on them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> None:
    """Print the CRD."""
    sys.stdout.write(render())


if __name__ == "__main__":
    main()
