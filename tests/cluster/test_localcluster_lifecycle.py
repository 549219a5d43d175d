"""Local clusters come and go without a trace: no process, no port, no state that hinders the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from localcluster.layout import ClusterDirs, hack_root
from localcluster.locks import is_locked
from localcluster.namespace import Record

pytestmark = [pytest.mark.outside, pytest.mark.timeout(300)]

#: The smallest cluster; enough for everything that is not about pods.
BARE = ("--nodes", "none", "--no-lws")


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory of these tests' own, short enough for sockets."""
    directory = Path("/tmp") / f"mo-{uuid.uuid4().hex[:8]}"
    patch = pytest.MonkeyPatch()
    patch.setenv("MOE_OPERATOR_STATE", str(directory))
    patch.setenv("PYTHONPATH", str(hack_root()))
    yield directory
    for record in directory.glob("*/cluster.json"):
        found = Record.read(record)
        assert found is None or not found.alive(), f"a test left cluster {record.parent.name} running"
    subprocess.run(["rm", "-r", str(directory)], check=True)
    patch.undo()


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "localcluster", *words]


def localcluster(*words: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), input=stdin, capture_output=True, text=True, check=False, timeout=timeout
    )


def succeed(*words: str) -> str:
    done = localcluster(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def namespace_of(pid: int, kind: str = "pid") -> str:
    """What identifies a process's namespace; empty for a process that is gone or another user's."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def cmdline(pid: int) -> bytes:
    """Of a process; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def processes_in(namespace: str) -> list[int]:
    """Every process of this machine that lives in the PID namespace."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if namespace_of(pid) == namespace]


def record_of(name: str) -> Record:
    record = Record.read(ClusterDirs.of(name).record)
    assert record is not None
    return record


def namespace_of_cluster(name: str) -> str:
    namespace = namespace_of(record_of(name).pid)
    assert namespace
    return namespace


def has_address(cluster: str, service: str) -> bool:
    """Whether cluster DNS knows the Service of namespace default."""
    host = f"{service}.default.svc.cluster.local"
    return localcluster("exec", "--name", cluster, "--", "getent", "hosts", host).returncode == 0


def make_service(cluster: str, service: str) -> bool:
    words = ("kubectl", "create", "service", "clusterip", service, "--tcp=80")
    return localcluster("exec", "--name", cluster, "--", *words).returncode == 0


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """One cluster for the tests that leave it as it was."""
    succeed("up", "--name", "shared", *BARE)
    yield "shared"
    succeed("down", "--name", "shared")


def test_commands_inside_keep_their_input_output_and_exit_status(shared: str) -> None:
    """Scripts and test runs depend on it: a failure inside must be a failure outside."""
    done = localcluster("exec", "--name", shared, "--", "sh", "-c", "cat; echo err >&2; exit 7", stdin="in")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in", "err\n")
    assert localcluster("exec", "--name", shared, "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert localcluster("exec", "--name", shared, "--", "no-such-program").returncode == 127
    here = succeed("exec", "--name", shared, "--", "pwd").strip()
    assert here == str(Path.cwd())


def test_a_command_inside_is_told_to_stop_when_its_caller_is(shared: str) -> None:
    script = "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        command("exec", "--name", shared, "--", "sh", "-c", script), stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
        caller.terminate()
        assert caller.stdout.read() == "stopped\n"
        assert caller.wait(10) == 3


def test_a_command_inside_does_not_outlive_its_caller(shared: str) -> None:
    """A test run that is killed must not leave its servers behind in a cluster that others go on using."""
    marker = f"300.{uuid.uuid4().int % 10**9}"
    with subprocess.Popen(command("exec", "--name", shared, "--", "sleep", marker)) as caller:

        def sleeping() -> bool:
            return any(
                cmdline(pid).startswith(b"sleep") and marker.encode() in cmdline(pid)
                for pid in children(caller.pid)
            )

        eventually(sleeping, "the command runs")
        inner = next(pid for pid in children(caller.pid) if marker.encode() in cmdline(pid))
        caller.kill()
    eventually(lambda: not Path(f"/proc/{inner}").exists(), "the command is gone")


def test_two_clusters_know_nothing_of_each_other(shared: str) -> None:
    succeed("up", "--name", "second", *BARE)
    try:
        succeed("exec", "--name", "second", "--", "kubectl", "create", "namespace", "mine")
        succeed("exec", "--name", "second", "--", "kubectl", "get", "namespace", "mine")
        absent = localcluster("exec", "--name", shared, "--", "kubectl", "get", "namespace", "mine")
        assert absent.returncode != 0
        assert "NotFound" in absent.stderr
        first, second = record_of(shared), record_of("second")
        for kind in ("net", "pid", "mnt"):
            assert namespace_of(first.pid, kind) != namespace_of(second.pid, kind)
    finally:
        succeed("down", "--name", "second")
    succeed("exec", "--name", shared, "--", "kubectl", "get", "--raw", "/readyz")


def test_nothing_listens_outside(shared: str) -> None:
    """A cluster's API server with an administrator's rights must not be reachable by other users of the
    machine.
    """
    listening = {
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    inside = succeed("exec", "--name", shared, "--", "cat", "/proc/net/tcp")
    assert "0100007F:192B" in inside, "the API server's port 6443 on loopback"
    assert "0100007F:192B" not in listening


def test_a_cluster_that_runs_is_not_started_twice(shared: str) -> None:
    before = record_of(shared)
    done = localcluster("up", "--name", shared, *BARE)
    assert done.returncode == 0
    assert "already up" in done.stderr
    assert record_of(shared) == before


def test_status_and_logs_say_what_runs(shared: str) -> None:
    table = succeed("status", "--name", shared)
    for component in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "netd"):
        assert component in table
    assert succeed("logs", "--name", shared, "kube-apiserver")
    unknown = localcluster("logs", "--name", shared, "kube-proxy")
    assert unknown.returncode == 1
    assert "kube-apiserver" in unknown.stderr


def test_a_name_without_a_cluster_is_explained() -> None:
    done = localcluster("exec", "--name", "nobody", "--", "true")
    assert done.returncode == 1
    assert "localcluster up --name nobody" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("victim", ["first process", "supervisor"])
def test_a_crash_leaves_no_process_and_does_not_hinder_the_next_start(victim: str) -> None:
    succeed("up", "--name", "crash", *BARE)
    record = record_of("crash")
    namespace = namespace_of(record.pid)
    assert len(processes_in(namespace)) >= 7
    [supervisor] = [
        pid for pid in children(record.pid) if b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(record.pid if victim == "first process" else supervisor, signal.SIGKILL)
    eventually(lambda: not processes_in(namespace), "every process of the cluster is gone", 10)
    succeed("up", "--name", "crash", *BARE)
    succeed("exec", "--name", "crash", "--", "kubectl", "get", "--raw", "/readyz")
    namespace = namespace_of_cluster("crash")
    succeed("down", "--name", "crash")
    assert not processes_in(namespace)
    assert localcluster("down", "--name", "crash").returncode == 0


def test_a_component_that_crashes_is_started_again() -> None:
    """Names and Service addresses must survive it, and learn what changed while they could not watch."""
    succeed("up", "--name", "heal", *BARE)
    try:
        for component in ("kube-apiserver", "netd", "etcd"):
            before, after = f"before-{component}", f"after-{component}"
            assert make_service("heal", before)
            eventually(partial(has_address, "heal", before), "DNS knows the Service")
            pattern = "localcluster.netd" if component == "netd" else f"bin/{component} "
            [pid] = [
                pid
                for pid in processes_in(namespace_of_cluster("heal"))
                if pattern in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            ]
            os.kill(pid, signal.SIGKILL)
            eventually(partial(make_service, "heal", after), "the API server takes writes", 60)
            eventually(
                partial(has_address, "heal", after), f"DNS learns of Services after {component} crashed"
            )
            assert has_address("heal", before)
    finally:
        succeed("down", "--name", "heal")


def test_an_ephemeral_cluster_passes_the_status_on_and_is_gone() -> None:
    done = localcluster("run", "--name", "once", *BARE, "--", "sh", "-c", "kubectl get --raw /readyz; exit 5")
    assert (done.returncode, done.stdout) == (5, "ok")
    dirs = ClusterDirs.of("once")
    assert not is_locked(dirs.lock)
    assert [entry.name for entry in dirs.root.iterdir()] == ["logs"], "kept, as the command failed"
    assert localcluster("run", "--name", "once", *BARE, "--", "true").returncode == 0
    assert not dirs.root.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ephemeral_cluster_ends_with_whoever_started_it(number: signal.Signals) -> None:
    """An interrupted or killed test run must not leave a control plane eating memory."""
    words = command("run", "--name", "cut", *BARE, "--", "sh", "-c", "echo inside; exec sleep 300")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "inside\n"
        namespace = namespace_of_cluster("cut")
        runner.send_signal(number)
        status = runner.wait(60)
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    eventually(lambda: not processes_in(namespace), "every process is gone", 30)
    eventually(lambda: not ClusterDirs.of("cut").record.exists(), "its state is gone", 10)


def test_an_interrupted_start_leaves_nothing() -> None:
    with subprocess.Popen(
        command("up", "--name", "early", *BARE), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as starting:
        record = ClusterDirs.of("early").record
        eventually(record.exists, "the cluster has begun to start")
        namespace = namespace_of_cluster("early")
        starting.send_signal(signal.SIGINT)
        assert starting.wait(60) == 130
    assert not processes_in(namespace)
    assert localcluster("down", "--name", "early").returncode == 0


def test_a_component_that_cannot_start_is_named_with_its_last_words() -> None:
    done = localcluster("up", "--name", "broken", *BARE, "--flag", "kube-apiserver=--no-such-flag=1")
    assert done.returncode == 1
    assert "kube-apiserver" in done.stderr
    assert "no-such-flag" in done.stderr
    assert "Traceback" not in done.stderr
    assert not is_locked(ClusterDirs.of("broken").lock)


def test_no_privilege_is_needed() -> None:
    """Without CAP_SYS_ADMIN a cluster gets a user namespace as well. (To map root, root must keep
    CAP_SETFCAP.)
    """
    drop = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"] if os.geteuid() == 0 else []
    script = "cat /proc/self/uid_map; getent hosts kubernetes.default; kubectl get --raw /readyz"
    done = subprocess.run(
        [*drop, *command("run", "--name", "plain", *BARE, "--", "sh", "-c", script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["0", str(os.geteuid()), "1"]
    assert done.stdout.endswith("ok")
