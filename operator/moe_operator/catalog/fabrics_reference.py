"""The page of fabrics for users: `python -m moe_operator.catalog.fabrics_reference` prints it."""

import sys
from collections.abc import Iterable, Iterator

from moe_operator.catalog.fabric import Balanced, Candidate, Count, Domain, FabricProfile, Reach, Sends
from moe_operator.catalog.fabrics import FabricCatalog, load_fabrics
from moe_operator.catalog.gone_names import GONE
from moe_operator.catalog.images import ImageTable, load_images

#: Where the generated file is kept, from the repository's root.
FILE = "docs/reference/fabrics.md"

_INTRODUCTION = """\
# Fabrics

This page is generated from the operator's catalogue: how GPUs of a group reach each other, what their pods get for it,
and how tokens are sent to their experts.

A group within a node uses the node's own links. For a wider one the operator takes the first of these that enough of
its nodes show; `spec.hardware.fabric` names another. `kubectl moe plan` prints the choice with the share of a step that
it takes. What a site knows better (names of resources, bandwidths, variables) goes into the operator's configuration,
section `fabrics`: a name of this page changes that fabric field by field, another name adds one.

| Name | What | Nodes show it by | Pods ask for | Bandwidth per GPU | Nodes of a group | /dev/shm |
| --- | --- | --- | --- | --- | --- | --- |
"""

_SETTINGS = """
## What pods get

Variables are those of the engine; `engine.env` overrides them by name. None of these mounts a host path or device:
device plugins, the ComputeDomain's driver and NVIDIA's container toolkit bring what is needed. A site's own fabric can
(`podAnnotations`, `hostPaths`, `hostDevices`; [Google's RDMA](gke.md) is an example). /dev/shm is bounded by the larger
of the fabric's figure and the accelerator's; it is charged as it is used.

| Fabric | Variable | Read by | Why |
| --- | --- | --- | --- |
"""

_CAPABILITIES = """
Linux capabilities, beside none at all. A namespace that enforces the Pod Security Standard `baseline` or `restricted`
refuses pods with them, and a container that does not run as root does not have them; `hardware.fabric: tcp` does
without.

| For | Capability | CPU | Why |
| --- | --- | --- | --- |
"""

_BACKENDS = """
## All-to-all

`--all2all-backend` of vLLM 0.32. It matters for models with experts, in groups of several ranks.

| Name | Sends tokens to | Reaches | Tokens of a step | What |
| --- | --- | --- | --- | --- |
"""

_CANDIDATES = """
The first that holds is taken. `engine.args.all2all-backend` names another: sizes, capabilities and variables then
follow that one.

| Fabric | Backend | Holds for | Why |
| --- | --- | --- | --- |
"""

_IMAGES = """
## Images

What is known of images. Of an image or version that is not here nothing is known, and a backend that needs more than
vLLM itself is then not chosen.

| Image | Contains | Lacks |
| --- | --- | --- |
"""

_WARNINGS = """
A plan's notes say these where they apply.

| Image | vLLM | Holds for | What | Source |
| --- | --- | --- | --- | --- |
"""

_GONE = """
## Variables that vLLM 0.32 no longer reads

Older guides set them. They do nothing, so the operator's configuration refuses them.

| Variable | Instead |
| --- | --- |
"""

_COUNTS = {
    Count.ONE: "1",
    Count.PER_GPU: "1 per GPU",
    Count.SHARE: "its share of the node's",
}


def render(fabrics: FabricCatalog | None = None, images: ImageTable | None = None) -> str:
    """The page as Markdown."""
    known, table = fabrics or load_fabrics(), images or load_images()
    profiles = known.profiles()
    return "".join(
        [
            _INTRODUCTION,
            *(_row(_summary(one)) for one in profiles),
            _SETTINGS,
            *(_row(cells) for one in profiles for cells in _settings(one)),
            _CAPABILITIES,
            *(_row(cells) for cells in _capabilities(known)),
            _BACKENDS,
            *(
                _row(
                    [
                        f"`{one.name}`",
                        "all GPUs" if one.sends is Sends.EVERYWHERE else "their experts' GPUs",
                        _REACHES[one.reach],
                        str(one.tokens_per_step or ""),
                        one.about,
                    ]
                )
                for one in known.backends()
            ),
            _CANDIDATES,
            *(
                _row([f"`{one.name}`", f"`{c.backend.name}`", _holds(c), c.reason])
                for one in profiles
                for c in one.all2all
            ),
            *_image_tables(table),
            _GONE,
            *(_row([f"`{name}`", instead]) for name, instead in GONE.items()),
        ]
    )


_REACHES = {Reach.NODE: "a node", Reach.DOMAIN: "an NVLink domain", Reach.NETWORK: "any network"}


def _summary(profile: FabricProfile) -> list[str]:
    asked = [f"`{one.pattern}`: {_COUNTS[one.count]}" for one in profile.resources]
    asked += [f"`{name}`: {amount}" for name, amount in profile.huge_pages]
    asked += ["an IMEX channel (ComputeDomain)"] if profile.compute_domain else []
    shown = (
        f"label `{profile.node_label}`"
        if profile.node_label
        else "these resources"
        if profile.resources
        else "-"
    )
    speed = profile.bandwidth_per_gpu
    near = {
        Domain.NONE: "one" if profile.reach is Reach.NODE else "any",
        Domain.PREFERRED: "near each other if possible",
        Domain.REQUIRED: f"of one `{profile.node_label}`",
    }
    return [
        f"`{profile.name}`",
        profile.about,
        shown,
        ", ".join(asked) or "-",
        f"{speed / 1e9:.3g} GB/s" if speed else "the GPU's own links",
        near[profile.domain],
        f"{profile.shared_memory_mib} MiB" if profile.shared_memory_mib else "the accelerator's",
    ]


def _settings(profile: FabricProfile) -> Iterator[list[str]]:
    for one in profile.env:
        only = f" (with {', '.join(f'`{name}`' for name in one.backends)})" if one.backends else ""
        yield [f"`{profile.name}`", f"`{one.name}={one.value}`{only}", one.reads, one.reason]


def _capabilities(fabrics: FabricCatalog) -> Iterator[list[str]]:
    owners = [(one.name, one.capabilities) for one in fabrics.profiles()]
    owners += [(one.name, one.capabilities) for one in fabrics.backends()]
    for owner, capabilities in owners:
        for one in capabilities:
            yield [f"`{owner}`", f"`{one.name}`", ", ".join(one.architectures) or "all", one.reason]


def _holds(candidate: Candidate) -> str:
    parts = [
        _listed("", candidate.accelerators),
        _listed("compute capability ", candidate.capabilities),
        _listed("weights in ", candidate.precisions),
        _listed("role ", candidate.roles),
        "no EPLB" if candidate.balanced is Balanced.REFUSED else "",
        "the site says `gpuInitiated: Available`" if candidate.gpu_initiated else "",
    ]
    return "; ".join(part for part in parts if part) or "all"


def _listed(what: str, names: Iterable[str]) -> str:
    joined = ", ".join(names)
    return f"{what}{joined}" if joined else ""


def _image_tables(images: ImageTable) -> Iterator[str]:
    yield _IMAGES
    for family in images.families:
        contents = (
            ", ".join(f"{c.component}{c.versions}" for c in group) or "-"
            for group in (family.contains, family.lacks)
        )
        yield _row([", ".join(f"`{name}`" for name in family.repositories), *contents])
    yield _WARNINGS
    for one in images.warnings:
        holds = [
            _listed("", one.architectures),
            _listed("", (f"`{name}`" for name in one.fabrics)),
            _listed("", (f"`{name}`" for name in one.backends)),
        ]
        yield _row(
            [
                ", ".join(f"`{name}`" for name in one.repositories) or "all",
                str(one.versions).strip() or "all",
                "; ".join(part for part in holds if part) or "all",
                one.text,
                one.source,
            ]
        )


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    """Print the page."""
    sys.stdout.write(render())


if __name__ == "__main__":
    main()
