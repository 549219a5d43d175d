"""`kubectl moe accelerators`: what the catalogue knows of accelerators. Needs no cluster."""

import argparse
import json
import sys
from typing import Any, Protocol

import yaml

from moe_operator.catalog.accelerators import AcceleratorProfile, Catalog
from moe_operator.cli.site import add_option, config_of
from moe_operator.cli.tables import table

_HEADER = (
    "NAME",
    "MEMORY",
    "BANDWIDTH",
    "FP8/FP4 TFLOPS",
    "GPUS/NODE",
    "NVLINK DOMAIN",
    "$/GPU-HOUR",
    "SOURCE OF THE PRICE",
)


class _Commands(Protocol):
    """What `argparse.ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...  # noqa: A002


def add_parser(commands: _Commands) -> None:
    """Add the command to `kubectl moe`."""
    parser = commands.add_parser("accelerators", help="accelerators of the catalogue: memory, speed, price")
    parser.add_argument("name", nargs="?", help="a name, an alias or a node's label value; default: all")
    parser.add_argument(
        "-o", "--output", choices=["table", "json", "yaml"], default="table", help="json and yaml say all"
    )
    add_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is asked for. Exit code 0, or 1 if the catalogue has no such accelerator."""
    catalog = config_of(arguments).catalog
    if arguments.name and catalog.accelerator(arguments.name) is None:
        known = ", ".join(catalog.closest(arguments.name))
        print(
            f"kubectl moe: the catalogue has no accelerator {arguments.name!r}; it has {known}",
            file=sys.stderr,
        )
        return 1
    print(describe(catalog, arguments.name, arguments.output))
    return 0


def describe(catalog: Catalog, name: str | None, output: str) -> str:
    """The accelerator of this name (a known one), or all, as `table`, `json` or `yaml`."""
    names = [name] if name else catalog.names()
    profiles = [profile for n in names if (profile := catalog.accelerator(n))]
    if output == "table":
        return table(_HEADER, [_cells(profile) for profile in profiles])
    details: Any = [details_of(profile) for profile in profiles]
    if name:
        details = details[0]
    if output == "json":
        return json.dumps(details, indent=2)
    return yaml.safe_dump(details, sort_keys=False, allow_unicode=True).rstrip()


def details_of(profile: AcceleratorProfile) -> dict[str, Any]:
    """All that is known, in JSON's types; what does not apply or is not known is null. Prices are texts."""
    tflops, price = profile.tflops, profile.price
    return {
        "name": profile.name,
        "aliases": list(profile.aliases),
        "resource": profile.resource_name,
        "architecture": profile.architecture,
        "computeCapability": profile.compute_capability,
        "memoryMib": profile.memory_mib,
        "memoryBandwidthGBs": profile.memory_bandwidth,
        "tflops": {"bf16": tflops.bf16, "fp8": tflops.fp8, "fp4": tflops.fp4} if tflops else None,
        "gpusPerNode": profile.gpus_per_node,
        "nvlinkDomain": profile.nvlink_domain,
        "interconnectBandwidthGBs": profile.interconnect_bandwidth,
        "price": {"usdPerGpuHour": str(price.usd_per_gpu_hour), "source": price.source} if price else None,
        "nodeLabels": {key: list(values) for key, values in profile.node_labels},
        "image": profile.default_image,
        "notes": list(profile.notes),
    }


def _cells(profile: AcceleratorProfile) -> tuple[str, ...]:
    tflops, price = profile.tflops, profile.price
    return (
        profile.name,
        f"{profile.memory_mib / 1024:.1f} GiB" if profile.memory_mib else "-",
        f"{profile.memory_bandwidth} GB/s" if profile.memory_bandwidth else "-",
        f"{tflops.fp8 or '-'}/{tflops.fp4 or '-'}" if tflops else "-",
        str(profile.gpus_per_node) if profile.resource_name else "-",
        str(profile.nvlink_domain) if profile.resource_name else "-",
        str(price.usd_per_gpu_hour) if price else "-",
        price.source if price else "no public price found" if profile.resource_name else "-",
    )
