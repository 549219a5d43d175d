"""The page of accelerators for users: `python -m moe_operator.catalog.reference` prints it."""

import sys

from moe_operator.catalog.accelerators import AcceleratorProfile, Catalog, load_catalog

#: Where the generated file is kept, from the repository's root.
FILE = "docs/reference/accelerators.md"

_INTRODUCTION = """\
# Accelerators

This page is generated from the operator's catalogue. `spec.hardware.accelerator` takes a name or an alias; upper
and lower case, blanks, dashes and underscores make no difference.

GPUs per node are read from the nodes; the figure here is used where the operator may not read them. What is
requested can be changed with `spec.engine.resources`, what is set with `spec.engine.args` and `spec.engine.env`.

| Name | GPUs per node | Requested per GPU | Image | Aliases |
| --- | --- | --- | --- | --- |
"""

_FIGURES = """
## What each can do

Per GPU. A node's own label of its memory goes before the figure here. TFLOPS are of dense matrices. The NVLink
domain is how many GPUs reach each other over NVLink or xGMI; what follows is the bandwidth to them in one direction,
PCIe's where the domain is one GPU. Prices are defaults for estimates; they change from month to month.

| Name | Memory | Bandwidth | BF16 / FP8 / FP4 TFLOPS | NVLink domain | To peers | GPU-hour | Price's source |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

_LABELS = """
## How nodes are recognised

A node has an accelerator if it carries one of these labels and offers the resource. Shared GPUs and MIG slices
have other label values and do not count, as a rank needs whole GPUs.

| Name | Resource | Label | Values |
| --- | --- | --- | --- |
"""

_SETTINGS = """
## What is set for the engine

| Name | Environment | Arguments |
| --- | --- | --- |
"""


def render(catalog: Catalog | None = None) -> str:
    """The page as Markdown."""
    known = catalog or load_catalog()
    profiles = [profile for name in known.names() if (profile := known.accelerator(name))]
    return "".join(
        [
            _INTRODUCTION,
            *(_row(_summary(profile)) for profile in profiles),
            _FIGURES,
            *(_row(_figures(profile)) for profile in profiles),
            _LABELS,
            *(_row(cells) for profile in profiles for cells in _labels(profile)),
            _SETTINGS,
            *(_row(_settings(profile)) for profile in profiles),
        ]
    )


def _summary(profile: AcceleratorProfile) -> list[str]:
    requested = profile.pod_requests(1)
    values = {value for _, values in profile.node_labels for value in values}
    return [
        f"`{profile.name}`",
        str(profile.gpus_per_node) if profile.resource_name else f"{profile.gpus_per_node} (ranks per pod)",
        f"{requested['cpu']} CPU, {requested['memory']}",
        f"`{profile.default_image}`",
        ", ".join(f"`{alias}`" for alias in profile.aliases if alias not in values),
    ]


def _figures(profile: AcceleratorProfile) -> list[str]:
    tflops, price = profile.tflops, profile.price
    return [
        f"`{profile.name}`",
        f"{profile.memory_mib} MiB" if profile.memory_mib else "",
        f"{profile.memory_bandwidth} GB/s" if profile.memory_bandwidth else "",
        " / ".join(str(n or "-") for n in (tflops.bf16, tflops.fp8, tflops.fp4)) if tflops else "",
        str(profile.nvlink_domain) if profile.resource_name else "",
        f"{profile.interconnect_bandwidth} GB/s" if profile.interconnect_bandwidth else "",
        f"${price.usd_per_gpu_hour}" if price else "",
        price.source if price else "no public price found" if profile.resource_name else "",
    ]


def _labels(profile: AcceleratorProfile) -> list[list[str]]:
    name, resource = f"`{profile.name}`", f"`{profile.resource_name}`"
    if not profile.node_labels:
        return [[name, "none", "any node that takes ordinary pods", ""]]
    return [
        [name, resource, f"`{key}`", ", ".join(f"`{value}`" for value in values)]
        for key, values in profile.node_labels
    ]


def _settings(profile: AcceleratorProfile) -> list[str]:
    return [
        f"`{profile.name}`",
        ", ".join(f"`{name}={value}`" for name, value in profile.env),
        ", ".join(f"`{name}: {value!r}`" if value else f"`{name}`" for name, value in profile.args),
    ]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    """Print the page."""
    sys.stdout.write(render())


if __name__ == "__main__":
    main()
