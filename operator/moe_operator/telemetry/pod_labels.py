"""Whose a series is by its labels: an exporter's own, those of earlier versions, and what a Prometheus in between makes
of them."""

from collections.abc import Mapping

Pod = tuple[str, str]
"""Namespace and name."""

#: Prometheus (without honorLabels) keeps `pod` for the pod that it scraped, and renames the exporter's own.
_SPELLINGS = (
    ("exported_namespace", "exported_pod", "exported_container", "exported_pod_uid"),
    ("namespace", "pod", "container", "pod_uid"),
    ("pod_namespace", "pod_name", "container_name", "pod_uid"),
)


def pod_of(labels: Mapping[str, str]) -> Pod | None:
    """Namespace and name of the pod."""
    spelling = _spelling(labels)
    return (labels[spelling[0]], labels[spelling[1]]) if spelling else None


def container_of(labels: Mapping[str, str]) -> str:
    """Its container; empty where the exporter does not say."""
    spelling = _spelling(labels)
    return labels.get(spelling[2], "") if spelling else ""


def uid_of(labels: Mapping[str, str]) -> str:
    """Its uid; empty where the exporter does not say (it is an option of DCGM exporter)."""
    spelling = _spelling(labels)
    return labels.get(spelling[3], "") if spelling else ""


def _spelling(labels: Mapping[str, str]) -> tuple[str, str, str, str] | None:
    return next((s for s in _SPELLINGS if labels.get(s[0]) and labels.get(s[1])), None)
