"""`moe-operator`: runs the operator, prints its CRD, or fills a cache of weights."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with the command's code.

    Each half is imported when it is called: what fetches weights starts in every serving pod and needs no client of
    Kubernetes.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["weights"]:
        from moe_operator.cli import weights_command

        weights_command.end(weights_command.main(given[1:]))
    from moe_operator.cli import run_command

    run_command.main(given)


if __name__ == "__main__":
    main()
