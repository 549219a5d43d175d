"""Carries out `kubectl moe report`: reads, has the record made, and writes it."""

import argparse
import sys
import time
from importlib.metadata import version

from moe_operator.cli.cluster import run_reading
from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import ClusterError
from moe_operator.cli.report.building import Asked, build
from moe_operator.cli.report.data import Report, Scope
from moe_operator.cli.report.html_page import html_page
from moe_operator.cli.report.markdown import markdown
from moe_operator.cli.report.outline import outline
from moe_operator.cli.report.period import period
from moe_operator.cli.report.prometheus import (
    PrometheusError,
    checked,
    matches_of,
    read_prometheus,
    shown,
    token_of,
)
from moe_operator.cli.report.reading import MetadataReader, collect
from moe_operator.runtime.connection import context_names, context_namespace


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where ModelDeployments cannot be read. What else is missing the record says. Raises UsageError."""
    now = float(int(time.time()))
    span = period(arguments.since, arguments.begin, arguments.end, now)
    url = None if arguments.prometheus is None else checked(arguments.prometheus)
    token = token_of(arguments.prometheus_token_file, url)
    matches = matches_of(arguments.prometheus_match)
    kubeconfig = arguments.kubeconfig
    namespace = None if arguments.all_namespaces else arguments.namespace or context_namespace(kubeconfig)
    context, cluster = context_names(kubeconfig)

    async def reading(client: MetadataReader) -> Report:
        collected = await collect(client, namespace)
        figures = None
        if url is not None:
            keys = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in collected.deployments]
            answer = await read_prometheus(url, token, keys, namespace, span, matches)
            figures = str(answer) if isinstance(answer, PrometheusError) else answer
        asked = Asked(
            span=span,
            now=now,
            scope=Scope(namespace=namespace, context=context, cluster=cluster),
            program=f"kubectl-moe {version('moe-operator')}",
            prometheus=None if url is None else shown(url),
        )
        return build(collected, figures, asked)

    try:
        report = run_reading(kubeconfig, reading)
    except ClusterError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 1
    print(text_of(report, arguments.output))
    return 0


def text_of(report: Report, output: str) -> str:
    """The record as `md`, `html` or `json`, without a line break at its end."""
    if output == "json":
        return data_text(report.model_dump(mode="json", by_alias=True), "json")
    blocks = outline(report)
    return (html_page(blocks) if output == "html" else markdown(blocks)).removesuffix("\n")
