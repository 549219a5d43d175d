"""Who may send requests to a deployment, for its record. Pure."""

from moe_operator.cli.report.data import CallersRecord, KeyRecord
from moe_operator.cli.report.network import ingress, published, services_of
from moe_operator.cli.report.reading import Missing
from moe_operator.cli.report.subject import Subject


def callers_of(subject: Subject) -> CallersRecord:
    """By Services, what publishes them, NetworkPolicies and the API key."""
    deployment, collected = subject.deployment, subject.collected
    limited, clients = ingress(subject.policies)
    services = services_of(collected.services, deployment.namespace, subject.labels)
    asked = deployment.spec.engine.api_key_secret
    present = collected.secrets.get((deployment.namespace, asked.name)) if asked else None
    return CallersRecord(
        endpoint=subject.status.endpoint,
        services=None if services is None else [f"{name} ({type_})" for name, type_ in services.items()],
        published=published(
            collected.ingresses,
            collected.routes,
            deployment.namespace,
            {deployment.name, *(services or ())},
        ),
        ingress_limited=limited,
        ingress_from=clients,
        api_key=KeyRecord(
            required=asked is not None,
            secret=asked.name if asked else None,
            key=asked.key if asked else None,
            present=None if isinstance(present, Missing) else present,
        ),
    )
