"""Events as the cluster's own controllers write them: one for each object and reason, counted up."""

from fakecluster.api_server import ApiServer
from moe_operator.api.times import format_time
from moe_operator.controller.kube import CORE_EVENT, Kind, Obj


def tell(
    server: ApiServer, kind: Kind, about: Obj, reason: str, message: str, type_: str = "Warning"
) -> None:
    """Write an Event about an object."""
    meta = about["metadata"]
    name = f"{meta['name']}.{meta['uid'][-6:]}.{reason.lower()}"
    now = format_time(server.clock())
    known = server.get(CORE_EVENT, meta["namespace"], name)
    if known is not None:
        news = {"lastTimestamp": now, "message": message, "count": known["count"] + 1}
        server.patch(CORE_EVENT, meta["namespace"], name, news, "controller")
        return
    body: Obj = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": meta["namespace"]},
        "involvedObject": {"kind": kind.kind, "name": meta["name"], "uid": meta["uid"]},
        "type": type_,
        "reason": reason,
        "message": message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    server.create(CORE_EVENT, body, "controller")
