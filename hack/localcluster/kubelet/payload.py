"""The files of a volume whose content comes from the API: configMap, secret, downwardAPI, projected. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from localcluster.kubelet import environment
from localcluster.kubelet.environment import Lookup, Obj, PodFacts

DEFAULT_MODE = 0o644
Files = dict[str, tuple[bytes, int]]


class NotReadyError(Exception):
    """The volume cannot be filled yet (reason FailedMount); the text is for the pod's Events."""


def is_payload(volume: Obj) -> bool:
    """Whether ``volume`` is one of the kinds that this module fills."""
    return any(volume.get(key) is not None for key in ("configMap", "secret", "downwardAPI", "projected"))


def files(volume: Obj, pod: Obj, facts: PodFacts, lookup: Lookup, tokens: Mapping[str, str]) -> Files:
    """The files to show. ``tokens``: service account tokens by the path they are projected to.

    Raises NotReadyError for missing objects or keys that are not optional.
    """
    if volume.get("configMap") is not None:
        source = volume["configMap"]
        return _object("ConfigMap", source["name"], source, _mode(source), lookup, pod)
    if volume.get("secret") is not None:
        source = volume["secret"]
        return _object("Secret", source["secretName"], source, _mode(source), lookup, pod)
    if volume.get("downwardAPI") is not None:
        source = volume["downwardAPI"]
        return _downward(source.get("items") or [], _mode(source), pod, facts)
    out: Files = {}
    mode = _mode(volume["projected"])
    for source in volume["projected"].get("sources") or []:
        if source.get("configMap"):
            out |= _object("ConfigMap", source["configMap"]["name"], source["configMap"], mode, lookup, pod)
        elif source.get("secret"):
            out |= _object("Secret", source["secret"]["name"], source["secret"], mode, lookup, pod)
        elif source.get("downwardAPI"):
            out |= _downward(source["downwardAPI"].get("items") or [], mode, pod, facts)
        elif source.get("serviceAccountToken"):
            path = source["serviceAccountToken"]["path"]
            out[path] = (tokens[path].encode(), mode)
        else:
            raise NotReadyError(f"projected source {sorted(source)} is not supported by this kubelet")
    return out


def _mode(source: Obj) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else int(mode)


def _bytes(kind: str, obj: Obj) -> dict[str, bytes]:
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    out = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return out | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def _object(kind: str, name: str, source: Obj, mode: int, lookup: Lookup, pod: Obj) -> Files:
    obj = lookup(kind, name)
    if obj is None:
        if source.get("optional"):
            return {}
        raise NotReadyError(f'{kind.lower()} "{name}" not found')
    data = _bytes(kind, obj)
    if not source.get("items"):
        return {key: (content, mode) for key, content in data.items()}
    out: Files = {}
    for item in source["items"]:
        if item["key"] not in data:
            if source.get("optional"):
                continue
            namespace = pod["metadata"]["namespace"]
            raise NotReadyError(f"{kind.lower()} {namespace}/{name} has no key {item['key']!r}")
        out[item["path"]] = (data[item["key"]], mode if item.get("mode") is None else int(item["mode"]))
    return out


def _downward(items: list[Obj], mode: int, pod: Obj, facts: PodFacts) -> Files:
    out: Files = {}
    for item in items:
        try:
            if item.get("fieldRef"):
                text = environment.field_value(pod, item["fieldRef"]["fieldPath"], facts)
            else:
                text = environment.resource_value(
                    pod, pod["spec"]["containers"][0], item["resourceFieldRef"], facts
                )
        except environment.ConfigError as error:
            raise NotReadyError(str(error)) from error
        out[item["path"]] = (text.encode(), mode if item.get("mode") is None else int(item["mode"]))
    return out


def token_requests(pod: Obj) -> list[tuple[str, Obj]]:
    """Every projected service account token of the pod: (volume name, its source)."""
    return [
        (volume["name"], source["serviceAccountToken"])
        for volume in pod["spec"].get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
        if source.get("serviceAccountToken")
    ]
