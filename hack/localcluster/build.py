"""Build a recipe once, into the cache: atomically, under a lock, and never silently."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from localcluster import toolchain
from localcluster.errors import LocalClusterError
from localcluster.locks import exclusive
from localcluster.recipes import Recipe, cache_key
from localcluster.say import Say, duration
from localcluster.tell import run_telling

#: Linking and compiling Kubernetes takes up to this much memory per parallel job.
_MEMORY_PER_JOB = 2 << 30
_TAIL_LINES = 30


def built_directory(recipe: Recipe, cache: Path) -> Path:
    """Where this recipe's build is, or would be."""
    return cache / "built" / f"{recipe.name}-{cache_key(recipe, toolchain.find_go(cache).version)}"


def jobs() -> int:
    """Parallel jobs for ``go build``: one per core that has memory for it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _MEMORY_PER_JOB))


def ensure_built(recipe: Recipe, cache: Path, say: Say) -> Path:
    """The directory of the finished build; builds if the cache has none. Raises LocalClusterError if that
    fails.
    """
    home = built_directory(recipe, cache)
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(home.parent / f".{recipe.name}.lock", say, f"the build of {recipe.name}"):
        if home.is_dir():
            return home
        go = toolchain.install_go(cache, say)
        partial = home.with_name(f".{home.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        say(f"building {recipe.name} with {go.version} (minutes the first time, then cached in {home})")
        started = time.monotonic()
        for target in recipe.targets:
            command = [str(go.command), "build", "-v", "-p", str(jobs()), *recipe.flags]
            command += ["-o", str(partial / target.output), target.package]
            _run_go(command, recipe, partial / f"{target.output}.log", f"{recipe.name}/{target.output}", say)
        for name in recipe.links:
            (partial / name).symlink_to(recipe.targets[0].output)
        _copy_assets(recipe, go.command, partial)
        partial.rename(home)
        say(f"built {recipe.name} in {duration(time.monotonic() - started)}")
    return home


def go_environment() -> dict[str, str]:
    """The user's environment (proxy and caches stay theirs) with what would change the result pinned."""
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOOS": "linux",
    }


def _run_go(command: list[str], recipe: Recipe, log: Path, what: str, say: Say) -> None:
    """Run Go, telling how far it is: ``-v`` names each package as it is compiled."""

    def tell(seconds: float) -> None:
        lines = log.read_bytes().splitlines()
        fetched = sum(line.startswith(b"go: downloading") for line in lines)
        compiled = len(lines) - fetched
        say(f"{what}: {duration(seconds)}, {fetched} modules fetched, {compiled} packages compiled")

    status = run_telling(command, log, tell, directory=recipe.module, environment=go_environment())
    if status != 0:
        tail = b"\n".join(log.read_bytes().splitlines()[-_TAIL_LINES:]).decode(errors="replace")
        raise LocalClusterError(
            f"building {what} failed (exit status {status}); the end of {log}:\n{tail}\n"
            "If modules could not be fetched, check GOPROXY and the network and try again."
        )


def _fetch(go: Path, recipe: Recipe, module: str) -> None:
    done = subprocess.run(
        [str(go), "mod", "download", module],
        cwd=recipe.module,
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalClusterError(
            f"module {module} could not be fetched: {done.stderr.strip()}; check GOPROXY and the network and try again."
        )


def _copy_assets(recipe: Recipe, go: Path, destination: Path) -> None:
    for module, inside, name in recipe.assets:
        if not recipe.targets:
            # No build has fetched it.
            _fetch(go, recipe, module)
        found = subprocess.run(
            [str(go), "list", "-m", "-f", "{{.Dir}}", module],
            cwd=recipe.module,
            env=go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        source = Path(found.stdout.strip()) / inside
        if found.returncode != 0 or not found.stdout.strip() or not source.exists():
            raise LocalClusterError(f"module {module} has no {inside}: {found.stderr.strip() or source}")
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.mkdir()
            for path in sorted(source.glob("*.yaml")):
                shutil.copyfile(path, target / path.name)
        else:
            shutil.copyfile(source, target)
