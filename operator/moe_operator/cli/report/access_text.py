"""Who may change and read in a namespace, in a record's text. Pure."""

from collections.abc import Iterator

from moe_operator.cli.report.blocks import Block, Heading, Paragraph, Table
from moe_operator.cli.report.data import AccessRecord, Grant


def access_blocks(access: AccessRecord) -> Iterator[Block]:
    """Below a heading of the namespace."""
    yield Heading(3, f"Namespace {access.namespace}")
    parts: tuple[tuple[str, list[Grant] | None], ...] = (
        ("Change ModelDeployments", access.change),
        ("Read ModelDeployments", access.read),
        ("Reach engines past NetworkPolicies", access.reach),
        ("Read Secrets", access.secrets),
    )
    if access.change is None:
        yield Paragraph(
            "Not readable: needs list rolebindings and clusterrolebindings (rbac.authorization.k8s.io)."
        )
        return
    rows = [
        (
            what,
            f"{grant.kind} {grant.name}",
            ", ".join(grant.verbs) + (f" (only {', '.join(grant.only)})" if grant.only else ""),
            grant.by,
        )
        for what, grants in parts
        for grant in grants or ()
    ]
    yield Table(("May", "Who", "Verbs", "By"), tuple(rows))
    if access.undetermined:
        yield Paragraph(
            f"Roles that could not be read, so that these are not judged: {'; '.join(access.undetermined)}."
        )
