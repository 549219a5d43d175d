"""What stands for pulling an image: finding it in the table, and the states of a pull that fails."""

from __future__ import annotations

from collections.abc import Callable

from localcluster.kubelet.backoff import INITIAL
from localcluster.kubelet.container import Container
from localcluster.kubelet.images import Image, ImageTable
from localcluster.kubelet.records import Waiting

#: Seconds for which a failed pull shows as ErrImagePull before it shows as ImagePullBackOff.
_ERROR_SHOWN = 1.0


def pull(
    container: Container, table: ImageTable, event: Callable[[str, str, str], None], now: float
) -> Image | float:
    """The image, or seconds until it is worth another look; the container then says why it waits.

    ``now``: seconds of the event loop's clock.
    """
    reference = container.record.spec["image"]
    image = table.find(reference)
    if image is not None:
        return image
    failed_at = container.pull_failed_at
    if failed_at is not None:
        if now < failed_at + _ERROR_SHOWN:
            return failed_at + _ERROR_SHOWN - now
        left = container.pull_backoff.remaining(failed_at, now)
        if left > 0:
            text = f'Back-off pulling image "{reference}"'
            if container.record.state != Waiting("ImagePullBackOff", text):
                event("Normal", "BackOff", text)
            container.waiting("ImagePullBackOff", text)
            return left
    if container.record.spec.get("imagePullPolicy") == "Never":
        container.waiting("ErrImageNeverPull", f'Container image "{reference}" is not in the image table')
        return INITIAL
    text = f'failed to pull image "{reference}": no entry of the local image table matches it'
    container.waiting("ErrImagePull", text)
    event("Warning", "Failed", f"Failed to pull image: {text}")
    container.pull_failed_at = now
    container.pull_backoff.started(now, now)
    return _ERROR_SHOWN
