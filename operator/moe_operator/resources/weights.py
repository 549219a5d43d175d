"""Where the engines of a group read their weights: in a cache that one download filled, or at the source itself.

The folder in the cache follows from source and revision alone. So a template names it before anything is downloaded,
and two deployments of one model share it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.api.weights import CacheSpec, Caching, Loader
from moe_operator.catalog.weights_layout import MODEL_FOLDER, entry_name, parse_source
from moe_operator.catalog.weights_site import WeightsSite
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.resources.model_source import ModelSource, Scheme, model_source
from moe_operator.resources.pod_parts import Object, PodParts

#: Where the cache is mounted, in the pods that download and in the engines.
CACHE_PATH = "/var/cache/moe-weights"
VOLUME = "moe-weights"
_CLAIM_PLACE = "claim "
#: Of the claims that the operator makes.
_CLAIM_PREFIX = "moe-weights-"
_LONGEST_NAME = 63

#: What a source may ask for, all of it optional.
CREDENTIALS = {
    Scheme.HUB: ("HF_TOKEN",),
    Scheme.BUCKET: (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
    ),
}

#: `--load-format`. Auto leaves the choice to vLLM, which streams from object storage.
LOAD_FORMATS = {
    Loader.STANDARD: "safetensors",
    Loader.STREAMER: "runai_streamer",
    Loader.FAST_SAFETENSORS: "fastsafetensors",
    Loader.INSTANT_TENSOR: "instanttensor",
}


@dataclass(frozen=True)
class Kept:
    """Weights that a cache keeps. Stored with the revision, as its template names the folder."""

    source: str
    """URL."""
    revision: str | None
    entry: str
    """Folder in the cache."""
    claim: str | None = None
    """PersistentVolumeClaim of the cache."""
    storage_class: str | None = None
    """Class of a claim that the operator makes; None for one that is there."""
    host_path: str | None = None
    """Folder of the nodes, in place of a claim."""
    secret: str | None = None
    """With credentials for the source."""
    adapters: tuple[str, ...] = ()
    """URLs of LoRA adapters on the hub that are kept beside it."""

    @property
    def folder(self) -> str:
        """The model in the engine's container."""
        return f"{CACHE_PATH}/{self.entry}/{MODEL_FOLDER}"

    @property
    def entries(self) -> tuple[str, ...]:
        """All folders in the cache, the model's first."""
        return (self.entry, *map(entry_name, self.adapters))

    def adapter_folder(self, source: str) -> str | None:
        """An adapter in the engine's container; None for one that the cache does not keep."""
        url = source.rstrip("/")
        return f"{CACHE_PATH}/{entry_name(url)}/{MODEL_FOLDER}" if url in self.adapters else None

    @property
    def place(self) -> str:
        """The cache in a few words, as the status shows it."""
        return f"{_CLAIM_PLACE}{self.claim}" if self.claim else f"hostPath {self.host_path}"

    def volume(self, *, read_only: bool) -> Object:
        """The cache as a volume of a pod."""
        if self.claim is None:
            return {"name": VOLUME, "hostPath": {"path": self.host_path, "type": "DirectoryOrCreate"}}
        claim: Object = {"claimName": self.claim}
        return {
            "name": VOLUME,
            "persistentVolumeClaim": {**claim, "readOnly": True} if read_only else claim,
        }


@dataclass(frozen=True)
class Weights:
    """The weights of a spec at a site."""

    source: ModelSource
    kept: Kept | None
    """None: engines read the source itself."""
    secret: str | None
    loader: Loader
    endpoint: str | None
    s3_endpoint: str | None = None
    hub_adapters: bool = False
    """Whether engines fetch LoRA adapters from the hub: nothing is kept to keep them beside."""

    @property
    def argument(self) -> str:
        """The model argument of `vllm serve`."""
        return self.kept.folder if self.kept else self.source.argument

    @property
    def load_format(self) -> str | None:
        """`--load-format`; None for vLLM's choice."""
        return LOAD_FORMATS.get(self.loader)

    def parts(self) -> PodParts:
        """What the engines' pods need to read them."""
        if self.kept is not None:
            return PodParts(
                env=({"name": "HF_HUB_OFFLINE", "value": "1"},),
                volumes=(self.kept.volume(read_only=True),),
                mounts=({"name": VOLUME, "mountPath": CACHE_PATH, "readOnly": True},),
                reasons={
                    "HF_HUB_OFFLINE": "the weights are in the cache: the hub is not asked",
                    CACHE_PATH: f"the weights, downloaded once into {self.kept.place}",
                },
            )
        parts = self.source.parts()
        schemes = [self.source.scheme] if self.source.remote else []
        if self.hub_adapters and Scheme.HUB not in schemes:
            schemes.append(Scheme.HUB)
        env = [*parts.env]
        if Scheme.HUB in schemes and self.endpoint is not None:
            env.append({"name": "HF_ENDPOINT", "value": self.endpoint})
        if Scheme.BUCKET in schemes and self.s3_endpoint is not None:
            env.append({"name": "AWS_ENDPOINT_URL", "value": self.s3_endpoint})
        given = {one["name"] for one in env}
        env += [one for one in credentials(schemes, self.secret) if one["name"] not in given]
        why = {
            **dict.fromkeys(
                (key for scheme in schemes for key in CREDENTIALS[scheme]),
                "what the source may ask for, as weights.credentialsSecret says",
            ),
            "HF_ENDPOINT": "the site's mirror of the hub",
            **({"AWS_ENDPOINT_URL": "the site's object store"} if "AWS_ENDPOINT_URL" in given else {}),
        }
        return replace(parts, env=tuple(env), reasons={**parts.reasons, **why})


def credentials(schemes: Iterable[Scheme], secret: str | None) -> list[Object]:
    """Variables from the user's Secret, of those that sources of these schemes may ask for."""
    if secret is None:
        return []
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
        for scheme in schemes
        for key in CREDENTIALS[scheme]
    ]


def weights_of(spec: ModelDeploymentSpec, plan: Plan, site: WeightsSite) -> Weights:
    """Where engines of this spec read their weights. Raises ValueError for a source that no cache can keep."""
    repository = plan.sizing.repository if plan.sizing is not None else None
    source = model_source(spec.model, repository)
    given = spec.weights
    cache = _cache(spec, source, site)
    adapters = _hub_adapters(spec)
    kept = None
    if cache is not None:
        revision = spec.model.revision if source.scheme is Scheme.HUB else None
        kept = Kept(
            source=source.url,
            revision=revision,
            entry=entry_name(source.url, revision),
            claim=cache.claim or (claim_name(cache.storage_class_name) if cache.storage_class_name else None),
            storage_class=cache.storage_class_name,
            host_path=cache.host_path,
            secret=given.credentials_secret,
            adapters=adapters,
        )
        for adapter in adapters:
            parse_source(adapter)
    return Weights(
        source,
        kept,
        given.credentials_secret,
        given.loader,
        site.endpoint,
        site.s3_endpoint,
        hub_adapters=bool(adapters) and kept is None,
    )


def kept_by_status(deployment: ModelDeployment) -> Kept | None:
    """What is kept in a claim by the status alone, for when the revisions that say more are gone already."""
    said = deployment.status.weights
    if said is None or not said.cache.startswith(_CLAIM_PLACE):
        return None
    return Kept(
        source=said.source,
        revision=said.revision,
        entry=said.entry,
        claim=said.cache.removeprefix(_CLAIM_PLACE),
        adapters=_hub_adapters(deployment.spec),
    )


def _hub_adapters(spec: ModelDeploymentSpec) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(a.source.rstrip("/") for a in spec.model.adapters if Scheme.HUB.names(a.source))
    )


def _cache(spec: ModelDeploymentSpec, source: ModelSource, site: WeightsSite) -> CacheSpec | None:
    if not source.remote or spec.weights.caching is Caching.DISABLED:
        return None
    return spec.weights.cache or site.cache


def cache_size(spec: ModelDeploymentSpec, site: WeightsSite, storage_class: str) -> str | None:
    """What this spec asks of the operator's claim of a class; None where it asks for no such claim."""
    for cache in (spec.weights.cache, site.cache):
        if cache is not None and cache.storage_class_name == storage_class:
            return cache.size
    return None


def claim_name(storage_class: str) -> str:
    """The operator's claim of a class, one in a namespace."""
    name = f"{_CLAIM_PREFIX}{storage_class}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{_CLAIM_PREFIX}{hashlib.sha256(storage_class.encode()).hexdigest()[:10]}"


def weights_refusal(spec: ModelDeploymentSpec, plan: Plan, site: WeightsSite) -> Refusal | None:
    """Why weights cannot be kept or read as the spec says."""
    try:
        weights = weights_of(spec, plan, site)
    except ValueError as error:
        return Refusal(reasons.INVALID_SPEC, f"weights.cache: {error}")
    kept = weights.kept
    if kept is not None and kept.host_path is not None and not site.allows(kept.host_path):
        allowed = ", ".join(site.host_paths) or "none"
        return Refusal(
            reasons.HOST_PATH_NOT_ALLOWED,
            f"weights.cache.hostPath {kept.host_path} is not allowed here (allowed: {allowed}): use one of these, a"
            " claim, or have it added to weights.hostPaths of the operator's configuration",
        )
    streamed = weights.source.scheme is Scheme.BUCKET and kept is None
    if streamed and weights.loader not in (Loader.AUTO, Loader.STREAMER):
        return Refusal(
            reasons.INVALID_SPEC,
            f"weights.loader {weights.loader} reads files, and {weights.source.url} is object storage: set"
            " weights.cache, or weights.loader: Streamer",
        )
    return None


def kept_to_data(kept: Kept) -> dict[str, Any]:
    """As JSON stores it."""
    return {name: value for name, value in asdict(kept).items() if value not in (None, ())}


def kept_from_data(data: Mapping[str, Any] | None) -> Kept | None:
    """What `kept_to_data` wrote, in this or a later version. Raises TypeError if it is something else."""
    if data is None:
        return None
    known = {f.name: data[f.name] for f in fields(Kept) if f.name in data}
    return Kept(**{"revision": None, **known, "adapters": tuple(known.get("adapters", ()))})
