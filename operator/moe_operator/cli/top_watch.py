"""Looking again and again. Clock and reads come in as arguments."""

from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from moe_operator.cli.errors import ClusterError

_T = TypeVar("_T")


async def again(
    look: Callable[[], Awaitable[_T]],
    show: Callable[[_T, str | None], None],
    sleep: Callable[[float], Awaitable[None]],
    every: float,
) -> NoReturn:
    """Look, show, wait for `every` seconds, for ever. While the API server does not answer, the last look is shown with
    what it said.

    Raises ClusterError where it does not answer at first, or another try would say the same.
    """
    last = await look()
    trouble: str | None = None
    while True:
        show(last, trouble)
        await sleep(every)
        try:
            last, trouble = await look(), None
        except ClusterError as error:
            if error.final:
                raise
            trouble = f"the API server does not answer: {error}"
