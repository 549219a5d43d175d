"""What `kubectl moe plan` plans: the manifest, the nodes and the model, from files, a cluster or the catalogue."""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.rules import violations
from moe_operator.autoscaler.width_units import with_chosen_width
from moe_operator.catalog.models.catalog import Model, ModelCatalog, load_models
from moe_operator.catalog.models.config_reader import ConfigError
from moe_operator.catalog.models.custom import LARGEST_CONFIG
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.cli import inventory_source
from moe_operator.cli.errors import UsageError
from moe_operator.cli.inventory_source import Nodes, cluster_configured
from moe_operator.cli.manifest import config_text, deployment_of, read_documents, read_text, the_deployment
from moe_operator.cli.plan_report import PlanReport, make_report
from moe_operator.cli.site import add_option, config_of
from moe_operator.planner.plan import Refusal

#: Seconds that a cluster which was not asked for by name has to answer.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Inputs:
    """Everything that a plan is made of."""

    obj: dict[str, Any]
    deployment: ModelDeployment
    nodes: Nodes
    site: OperatorConfig
    models: ModelCatalog
    config: Model | None
    """The model of a config.json."""

    @property
    def placed(self) -> bool:
        """Whether the manifest or `-n` says the namespace."""
        return "namespace" in self.obj["metadata"]

    def model(self) -> Model | None:
        """The model to be planned; None where it is not known."""
        return self.config or self.models.find(self.deployment.spec.model.name)


def add_source(parser: argparse.ArgumentParser) -> None:
    """The options that `read_inputs` reads."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-f", "--filename", help="file with a ModelDeployment; - for standard input")
    source.add_argument("name", nargs="?", help="a ModelDeployment of the cluster")
    parser.add_argument("-n", "--namespace", help="default: the current context's")
    parser.add_argument(
        "--inventory",
        metavar="FILE",
        help="plan for these nodes instead of the cluster's: `kubectl get nodes,pods -A -o yaml`,"
        " or {nodes: [{accelerator: B200, count: 4}]}",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="the model's config.json, for one that the catalogue does not know"
    )
    add_option(parser)


def faults(inputs: Inputs) -> list[Refusal]:
    """What the API server would refuse of the spec."""
    return [Refusal(one.reason, one.message) for one in violations(inputs.deployment)]


def report_of(inputs: Inputs, requests_per_second: float | None = None) -> PlanReport | list[Refusal]:
    """The plan, or why there is none."""
    broken = faults(inputs)
    if broken:
        return broken
    report = make_report(
        inputs.deployment,
        inputs.nodes,
        inputs.site,
        inputs.models,
        config=inputs.config,
        requests_per_second=requests_per_second,
    )
    return [report] if isinstance(report, Refusal) else report


def read_inputs(arguments: argparse.Namespace) -> Inputs:
    """Read files first, and ask a cluster only for what they do not say. Raises UsageError."""
    site = config_of(arguments)
    nodes = inventory_source.from_file(arguments.inventory, site) if arguments.inventory else None
    text = read_text(arguments.config, LARGEST_CONFIG, "a config.json") if arguments.config else None
    if arguments.filename:
        documents = read_documents(arguments.filename)
        obj = the_deployment(documents, arguments.filename)
        _place(obj, arguments.namespace)
        deployment = deployment_of(obj)
        source = deployment.spec.model.config_from
        if source is not None and text is None:
            text = config_text(documents, source.name, source.key)
        nodes, text = _ask(arguments, obj, deployment, nodes, text, site)
    else:
        from moe_operator.cli.cluster import read_for_plan

        read = read_for_plan(
            arguments.kubeconfig,
            arguments.namespace,
            name=arguments.name,
            site=site if nodes is None else None,
            config=text is None,
        )
        obj, nodes, text = read.obj, nodes or read.nodes, text or read.config
        deployment = with_chosen_width(deployment_of(obj))
    assert nodes is not None
    for problem in nodes.inventory.problems:
        print(f"warning: {problem}", file=sys.stderr)
    models = load_models()
    return Inputs(obj, deployment, nodes, site, models, _model(arguments, deployment, models, text))


def _ask(
    arguments: argparse.Namespace,
    obj: dict[str, Any],
    deployment: ModelDeployment,
    nodes: Nodes | None,
    text: str | None,
    site: OperatorConfig,
) -> tuple[Nodes, str | None]:
    """Nodes and config.json that no file says: of the cluster where there is one, else nodes as they usually are."""
    source = deployment.spec.model.config_from
    wants_config = source is not None and text is None
    named = bool(arguments.kubeconfig)
    if (nodes is None or wants_config) and (named or cluster_configured()):
        from moe_operator.cli.cluster import read_for_plan

        try:
            read = read_for_plan(
                arguments.kubeconfig,
                arguments.namespace,
                obj=obj,
                site=site if nodes is None else None,
                config=wants_config,
                patience=None if named else _PATIENCE,
            )
            nodes, text = nodes or read.nodes, text or read.config
        except UsageError as error:
            if named or wants_config:
                raise
            print(f"warning: the cluster was not asked: {error}", file=sys.stderr)
    elif wants_config and source is not None:
        raise UsageError(
            f"spec.model.configFrom: ConfigMap {source.name} is not in the file: give the model's config.json"
            " with --config FILE, or add the ConfigMap to the file"
        )
    return nodes or inventory_source.usual(deployment.spec, site.catalog), text


def _place(obj: dict[str, Any], namespace: str | None) -> None:
    """The namespace of `-n`, for an object that says none."""
    meta = obj.setdefault("metadata", {}) or {}
    obj["metadata"] = meta
    if not namespace:
        return
    if meta.setdefault("namespace", namespace) != namespace:
        raise UsageError(
            f"metadata.namespace: is {meta['namespace']!r}, but -n says {namespace!r}: leave one of them out"
        )


def _model(
    arguments: argparse.Namespace, deployment: ModelDeployment, models: ModelCatalog, text: str | None
) -> Model | None:
    if text is None:
        return None
    try:
        return models.from_config(deployment.spec.model.name, text)
    except ConfigError as error:
        where = arguments.config or f"spec.model.configFrom: ConfigMap {_config_map(deployment)}"
        raise UsageError(f"{where}: {error}") from error


def _config_map(deployment: ModelDeployment) -> str:
    source = deployment.spec.model.config_from
    return source.name if source else ""
