"""An inventory from a file: what `kubectl get` prints of a cluster, or a short description of one.

    kubectl get nodes,pods,resourceslices,resourceclaims -A -o yaml

A List, typed lists, single objects, several YAML documents and JSON are read alike; kinds that say nothing of
hardware are passed over. Where there is no cluster, `{nodes: [{accelerator: B200, count: 4, gpus: 8}]}` makes nodes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.planner.facts import SiteNames
from moe_operator.planner.inventory import Inventory, inventory_from
from moe_operator.planner.object_shapes import SHAPES, checked, field_at
from moe_operator.planner.object_shapes import InventoryError as InventoryError
from moe_operator.planner.synthetic_nodes import synthetic_nodes

#: Largest file. YAML is read at about 1 MiB a second, JSON thirty times as fast.
LARGEST_MIB = 64
#: Deepest nesting; objects of Kubernetes have about ten levels. LibYAML's loader recurses in C: beyond about 20,000
#: levels it ends the process.
_DEEPEST = 1000


def read_inventory(text: str, catalog: Catalog | None = None, site: SiteNames | None = None) -> Inventory:
    """The inventory that a file describes. What is in use is known if the file has pods.

    Raises InventoryError, whose message begins with where in the file the fault is.
    """
    # Encoded length: a character may take four bytes.
    size = len(text) if len(text) > LARGEST_MIB * 2**20 else len(text.encode("utf-8", "replace"))
    if size > LARGEST_MIB * 2**20:
        raise InventoryError(
            f"the file has {-(-size // 2**20)} MiB, the most is {LARGEST_MIB}: leave out what is no node, pod,"
            " ResourceSlice or ResourceClaim"
        )
    catalog = catalog or load_catalog()
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in SHAPES}
    kinds: set[str] = set()
    for path, obj in _objects(_documents(text), catalog):
        kind = str(obj.get("kind"))
        kinds.add(kind)
        if kind in found:
            found[kind].append(checked(kind, path, obj))
    if not found["Node"]:
        said = f"kinds found: {', '.join(sorted(kinds))}" if kinds else "it is empty"
        raise InventoryError(
            f"the file has no nodes ({said}): write one with `kubectl get nodes -o yaml`, or as"
            " {nodes: [{accelerator: B200, count: 4}]}"
        )
    _refuse_doubles(found["Node"])
    return inventory_from(
        found["Node"],
        found["Pod"] if "Pod" in kinds else None,
        found["ResourceSlice"],
        found["ResourceClaim"],
        catalog=catalog,
        site=site,
    )


def _documents(text: str) -> list[Any]:
    try:
        if text.lstrip()[:1] in ("{", "["):
            try:
                return [json.loads(text)]
            except ValueError as error:
                # YAML may begin so too, but nobody writes this much of it by hand.
                if len(text) > 2**20:
                    raise InventoryError(f"the file is not JSON: {error}") from error
        _refuse_depth(text)
        return [
            _plain(document) for document in yaml.load_all(text, yaml.CSafeLoader) if document is not None
        ]
    except InventoryError:
        raise
    except yaml.YAMLError as error:
        raise InventoryError(f"the file is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    except ValueError as error:
        # A date that is none, for one: the parser makes values of what is not quoted.
        raise InventoryError(f"the file has a value that cannot be read: {error}") from error
    except RecursionError as error:
        raise InventoryError(_TOO_DEEP) from error


_TOO_DEEP = "the file nests deeper than any Kubernetes object"
_INDENT = re.compile(r"^[ ?:-]{1000,}", re.MULTILINE)


def _refuse_depth(text: str) -> None:
    """Count levels from the parser's events, which do not recurse, where brackets or indents could be too many."""
    if text.count("[") + text.count("{") < _DEEPEST and _INDENT.search(text) is None:
        return
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise InventoryError(_TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _plain(document: Any) -> Any:
    """The document, if it has no aliases: a small file of them unfolds without end."""
    seen: set[int] = set()
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            if id(value) in seen:
                raise InventoryError("the file uses YAML aliases (`*name`): write the values out")
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return document


def _objects(documents: list[Any], catalog: Catalog) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, object) of all that the documents hold, lists unfolded."""
    several = len(documents) > 1
    for number, document in enumerate(documents, 1):
        where = f"document {number}: " if several else ""
        if isinstance(document, list):
            yield from _items(f"{where}", document, "")
        elif not isinstance(document, dict):
            raise InventoryError(f"{where}{str(document)[:40]!r} is neither an object nor a list of them")
        elif "kind" not in document and "nodes" in document:
            yield from _items(f"{where}nodes", synthetic_nodes(document, where, catalog), "Node")
        elif "items" in document:
            items = document["items"]
            if not isinstance(items, list):
                raise InventoryError(f"{where}items: is not a list")
            # Typed lists of the API (NodeList) leave their items' kind out.
            yield from _items(f"{where}items", items, str(document.get("kind", "")).removesuffix("List"))
        else:
            yield from _items(where, [document], "", numbered=False)


def _items(
    where: str, items: list[Any], kind: str, *, numbered: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, item in enumerate(items):
        path = f"{where}[{index}]" if numbered else where
        if not isinstance(item, dict):
            raise InventoryError(f"{path}: {str(item)[:40]!r} is not an object")
        named = item if item.get("kind") else {**item, "kind": kind}
        if not named["kind"]:
            raise InventoryError(
                f"{field_at(path, '.kind')}: is missing; Node, Pod, ResourceSlice or ResourceClaim is needed"
            )
        yield path, named


def _refuse_doubles(nodes: Iterable[Mapping[str, Any]]) -> None:
    seen: set[str] = set()
    for node in nodes:
        name = node["metadata"]["name"]
        if name in seen:
            raise InventoryError(f"node {name} is there twice: its GPUs would count twice; leave one out")
        seen.add(name)
