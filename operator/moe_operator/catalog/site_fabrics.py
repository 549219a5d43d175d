"""The section `fabrics` of the operator's configuration: what a site says of its networks.

    fabrics:
      infiniband:
        rdmaResource: nvidia.com/hostdev
        rdmaCount: PerGpu
        gpuInitiated: Available
        env: {NCCL_IB_HCA: ibp}
      slingshot:
        about: HPE Slingshot
        resources: [{pattern: "beta.hpe.com/cxi", count: PerGpu}]
        bandwidthPerGpu: 25000000000

A name of the catalogue changes that fabric field by field, variables name by name; another adds one, which goes before
those of the catalogue.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from moe_operator.catalog.fabrics import (
    DEFAULT_BACKEND,
    FabricCatalog,
    fabrics_data,
    load_fabrics,
    read_fabrics,
)

#: What a fabric of the site's own has where it says nothing.
_OWN: dict[str, Any] = {
    "reach": "Network",
    "latencyUs": 60,
    "domain": "Preferred",
    "capabilities": [{"name": "IPC_LOCK", "reason": "adapters read memory that must stay where it is"}],
    "env": {
        name: {"value": "eth0", "reason": "ranks find each other over the pod network"}
        for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
    },
    "allToAll": [{"backend": DEFAULT_BACKEND}],
}


class SiteFabricsError(ValueError):
    """The section cannot be used: the message begins with the path of the field at fault."""


def site_fabrics(section: Mapping[str, Mapping[str, Any]]) -> FabricCatalog:
    """The catalogue's fabrics with what the site says. Raises SiteFabricsError."""
    if not section:
        return load_fabrics()
    data = fabrics_data()
    rows = {row["name"]: row for row in data["fabrics"]}
    own: dict[str, Any] = {}
    for name, fields in section.items():
        at = f"fabrics.{name}"
        if "name" in fields:
            raise SiteFabricsError(f"{at}.name: is the key itself; leave it out")
        given = _resource(at, fields)
        if name in rows:
            rows[name] = _over(rows[name], given)
            _check(at, {**data, "fabrics": [rows[name]]})
        else:
            own[name] = {"name": name, **_over(_OWN, given)}
            _check(at, {**data, "fabrics": [own[name]]})
    return read_fabrics({**data, "fabrics": [*own.values(), *rows.values()]})


def _resource(at: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`rdmaResource` and `rdmaCount` as the one resource that pods ask for."""
    given = dict(fields)
    count = given.pop("rdmaCount", None)
    name = given.get("rdmaResource")
    if name is None:
        if count is not None:
            raise SiteFabricsError(f"{at}.rdmaCount: says how many of rdmaResource: add its name")
        return given
    if "resources" in given:
        raise SiteFabricsError(f"{at}.rdmaResource: leave it out, or resources: both name what pods ask for")
    if not isinstance(name, str) or set("*?[") & set(name):
        raise SiteFabricsError(
            f"{at}.rdmaResource: is one resource's full name such as rdma/ib, not {name!r}"
        )
    given["resources"] = [{"pattern": name, **({"count": count} if count is not None else {})}]
    return given


def _over(known: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    joined = {
        key: {**known[key], **value}
        if isinstance(value, Mapping) and isinstance(known.get(key), Mapping)
        else value
        for key, value in fields.items()
    }
    return {**known, **joined}


def _check(at: str, data: dict[str, Any]) -> None:
    """Read one fabric alone, so that a fault has its path."""
    try:
        read_fabrics(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        path = [str(part) for part in fault["loc"]][2:]
        raise SiteFabricsError(f"{'.'.join([at, *path])}: {fault['msg']}") from error
    except ValueError as error:
        raise SiteFabricsError(f"fabrics.{error}") from error
