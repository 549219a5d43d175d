"""`python -m demo`: prepares what is cached, then runs the demo inside a cluster of its own.

With USE_EXISTING_CLUSTER=true the cluster that KUBECONFIG names is used; it must know the operator's image.
"""

import os
import subprocess
import sys
import time

from engine.install import install
from engine.tiny_model import tiny_model


def main() -> int:
    """Exit 0 when everything shown is true."""
    started = time.monotonic()
    environment = install()
    model = tiny_model()
    image = f"vllm/vllm-openai*={environment}/bin"
    inside = [sys.executable, "-m", "demo.inside", str(model)]
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        code = subprocess.run(inside, check=False).returncode
    else:
        command = [sys.executable, "-m", "localcluster", "run", "--name", "demo", "--image", image, "--"]
        code = subprocess.run([*command, *inside], check=False).returncode
    print(
        f"\ndemo {'ended well' if code == 0 else f'FAILED ({code})'} after {time.monotonic() - started:.0f} s"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
