"""Memory by exporters' pages, each value beside what one works out by hand. Lost if it is wrong: the figure in
`kubectl get` by which people decide whether another model fits, and what the planner is judged by."""

import pytest

from factories.exporter_pages import (
    DcgmGpu,
    amd_page,
    b200,
    dcgm_page,
    kubelet_page,
    of_pod,
    series_of,
    uuid,
)
from moe_operator.telemetry.accelerator_memory import (
    AMD_NAMES,
    DCGM_NAMES,
    GpuMemory,
    amd_memory,
    dcgm_memory,
)
from moe_operator.telemetry.exporter_series import read_series
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.kubelet_page import KUBELET_NAMES, working_sets

MIB = 2**20


def dcgm(page: bytes) -> tuple[list[GpuMemory], Counts]:
    read = series_of(page, DCGM_NAMES)
    gpus, ignored = dcgm_memory(read.series)
    return gpus, Counts(read.ignored) + ignored


class TestDcgm:
    @pytest.mark.parametrize("host_label", ["Hostname", "hostname"])
    def test_a_page_of_the_chart_has_used_and_free(self, host_label: str) -> None:
        (gpu,), ignored = dcgm(dcgm_page([b200(0, pod=of_pod("tiny-g0-0"))], host_label, driver=False))
        assert not ignored
        assert (gpu.index, gpu.uuid, gpu.instance) == ("0", uuid(0), "")
        assert gpu.used == 163840 * MIB == 171_798_691_840
        assert gpu.usable == (163840 + 18802) * MIB
        assert gpu.total == gpu.usable, "without FB_RESERVED there is no more to know of"
        assert gpu.reserved is None
        assert gpu.dram_active == 0.412305
        assert gpu.watts == 702.437
        assert gpu.joules == pytest.approx(91_230_456.789)
        assert (gpu.pods, gpu.containers) == ({("serving", "tiny-g0-0")}, {"engine"})

    def test_what_the_driver_reserves_is_not_for_processes(self) -> None:
        (gpu,), _ = dcgm(dcgm_page([b200(0, DEV_FB_RESERVED="717", DEV_FB_TOTAL="183359")]))
        assert gpu.usable == 182642 * MIB
        assert gpu.reserved == 717 * MIB
        assert gpu.total == 183359 * MIB == gpu.used + 18802 * MIB + gpu.reserved

    def test_percent_is_a_ratio(self) -> None:
        one = DcgmGpu(0, {"DEV_FB_USED": "91321", "DEV_FB_USED_PERCENT": "0.5"})
        (gpu,), _ = dcgm(dcgm_page([one]))
        assert gpu.usable == 2 * 91321 * MIB
        (gpu,), ignored = dcgm(dcgm_page([DcgmGpu(0, {"DEV_FB_USED": "91321", "DEV_FB_USED_PERCENT": "50"})]))
        assert gpu.usable is None, "nothing is made of what no ratio can be"
        assert ignored == {Ignored.OUT_OF_RANGE: 1}

    def test_total_does_in_place_of_free(self) -> None:
        one = DcgmGpu(0, {"DEV_FB_USED": "100", "DEV_FB_TOTAL": "1000", "DEV_FB_RESERVED": "200"})
        (gpu,), _ = dcgm(dcgm_page([one]))
        assert gpu.usable == 800 * MIB

    def test_mig_instances_are_devices_and_their_gpu_is_none(self) -> None:
        whole = b200(0, used=60000, free=122642)
        first = DcgmGpu(0, {"DEV_FB_USED": "40000", "DEV_FB_FREE": "50000"}, of_pod("a"), instance="1")
        second = DcgmGpu(0, {"DEV_FB_USED": "20000", "DEV_FB_FREE": "70000"}, of_pod("b"), instance="2")
        gpus, ignored = dcgm(dcgm_page([whole, first, second, b200(1)]))
        assert not ignored
        assert [(g.index, g.instance, g.used // MIB) for g in gpus] == [
            ("0", "1", 40000),
            ("0", "2", 20000),
            ("1", "", 163840),
        ]
        assert [sorted(g.pods) for g in gpus] == [[("serving", "a")], [("serving", "b")], []]

    def test_gpus_are_in_the_order_of_their_numbers(self) -> None:
        gpus, _ = dcgm(dcgm_page([b200(index) for index in (10, 2, 0)]))
        assert [gpu.index for gpu in gpus] == ["0", "2", "10"]

    @pytest.mark.parametrize(
        "pod",
        [
            of_pod("tiny-g0-0"),
            of_pod("tiny-g0-0", spelling="exported_{}")
            | {"namespace": "gpu-operator", "pod": "exporter-x", "container": "exporter"},
            {"pod_namespace": "serving", "pod_name": "tiny-g0-0", "container_name": "engine"},
        ],
        ids=["its own", "exported", "legacy"],
    )
    def test_pods_in_every_spelling(self, pod: dict[str, str]) -> None:
        (gpu,), _ = dcgm(dcgm_page([b200(0, pod=pod)]))
        assert gpu.pods == {("serving", "tiny-g0-0")}
        assert gpu.containers == {"engine"}

    def test_a_gpu_without_uuid_is_known_by_its_index(self) -> None:
        page = (
            b'DCGM_FI_DEV_FB_USED{gpu="3"} 1\nDCGM_FI_DEV_FB_FREE{gpu="3"} 3\nDCGM_FI_DEV_FB_USED{a="b"} 1\n'
        )
        (gpu,), ignored = dcgm(page)
        assert (gpu.key, gpu.used, gpu.usable) == (("3", ""), MIB, 4 * MIB)
        assert ignored == {Ignored.NO_DEVICE: 1}

    def test_a_gpu_that_is_shared_in_time_is_written_for_each_pod(self) -> None:
        (gpu,), ignored = dcgm(dcgm_page([b200(0, pod=of_pod("a")), b200(0, pod=of_pod("b"))]))
        assert gpu.pods == {("serving", "a"), ("serving", "b")}
        assert gpu.used == 163840 * MIB
        assert not ignored


class TestHostile:
    """What is no measurement is counted and left out; what else the page says stands."""

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("NaN", Ignored.NOT_A_NUMBER),
            ("+Inf", Ignored.NOT_A_NUMBER),
            ("-1", Ignored.OUT_OF_RANGE),
            ("1e400", Ignored.OUT_OF_RANGE),
            ("9223372036854775792", Ignored.OUT_OF_RANGE),
            ("2147483632", Ignored.OUT_OF_RANGE),
            ("1_000", Ignored.NOT_A_SERIES),
            ("0x10", Ignored.NOT_A_SERIES),
            ("\u0661", Ignored.NOT_A_SERIES),
        ],
    )
    def test_values_that_are_none(self, value: str, reason: Ignored) -> None:
        page = dcgm_page([b200(0, DEV_FB_USED=value), b200(1)])
        (gpu,), ignored = dcgm(page)
        assert gpu.index == "1"
        assert ignored == {reason: 1}

    def test_more_used_than_there_is(self) -> None:
        one = DcgmGpu(0, {"DEV_FB_USED": "900", "DEV_FB_TOTAL": "1000", "DEV_FB_RESERVED": "200"})
        assert dcgm(dcgm_page([one])) == ([], {Ignored.OUT_OF_RANGE: 1})

    def test_a_label_twice(self) -> None:
        page = b'DCGM_FI_DEV_FB_USED{gpu="0",gpu="1"} 5\n'
        assert dcgm(page) == ([], {Ignored.REPEATED_LABEL: 1})

    def test_a_series_twice_with_another_value(self) -> None:
        (gpu,), ignored = dcgm(dcgm_page([b200(0)]) + dcgm_page([b200(0, used=1, free=18802)]))
        assert gpu.used == 163840 * MIB
        assert ignored == {Ignored.REPEATED_SERIES: 1}

    @pytest.mark.parametrize(
        "line",
        [
            b'DCGM_FI_DEV_FB_USED{gpu="0" 5',
            b"DCGM_FI_DEV_FB_USED{gpu=0} 5",
            b'DCGM_FI_DEV_FB_USED{gpu="0}" 5',
            b'DCGM_FI_DEV_FB_USED{gpu="0"}',
            b'DCGM_FI_DEV_FB_USED{gpu="0"} 5 6 7',
            b'DCGM_FI_DEV_FB_USED{gpu="0";UUID="x"} 5',
            b"DCGM_FI_DEV_FB_USED{" + b'a="b",' * 10_000 + b"} 5",
            b"DCGM_FI_DEV_FB_USED{" + b'\\"' * 10_000 + b"} 5",
        ],
    )
    def test_lines_that_are_no_series(self, line: bytes) -> None:
        gpus, ignored = dcgm(line)
        assert gpus == []
        assert sum(ignored.values()) == 1

    def test_escaped_text_ends_no_label(self) -> None:
        page = rb'DCGM_FI_DEV_FB_USED{gpu="0",err_msg="a\",gpu=\"1\"} \\ x\n",UUID="GPU-a"} 5' + b"\n"
        (gpu,), ignored = dcgm(page)
        assert (gpu.index, gpu.uuid, gpu.used) == ("0", "GPU-a", 5 * MIB)
        assert not ignored

    def test_more_series_than_a_node_can_have(self) -> None:
        lines = [b'DCGM_FI_DEV_FB_USED{gpu="%d"} 5' % number for number in range(25_000)]
        read = read_series(lines, DCGM_NAMES)
        assert len(read.series) == 20_000
        assert read.ignored == {Ignored.TOO_MANY_SERIES: 5_000}


class TestAmd:
    def read(self, page: bytes, prefix: str = "") -> tuple[list[GpuMemory], Counts]:
        names = frozenset(prefix + name for name in AMD_NAMES)
        return amd_memory(series_of(page, names).series, prefix)

    @pytest.mark.parametrize("prefix", ["", "amd_"])
    def test_used_and_free_are_mib(self, prefix: str) -> None:
        page = amd_page({0: (147000, 196592), 1: (285, 196592)}, {0: "tiny-g0-0"}, prefix)
        (first, second), ignored = self.read(page, prefix)
        assert not ignored
        assert (first.used, first.usable, first.total) == (147000 * MIB, 196592 * MIB, 196592 * MIB)
        assert (first.dram_active, first.watts) == (pytest.approx(0.41), 611)
        assert first.pods == {("serving", "tiny-g0-0")}
        assert second.pods == frozenset()
        assert second.used == 285 * MIB

    def test_a_guest_system_does_not_tell(self) -> None:
        assert self.read(amd_page({0: (None, 196592)})) == ([], {})


class TestKubelet:
    def test_the_engines_working_set_by_pod(self) -> None:
        page = kubelet_page(
            {
                ("serving", "tiny-g0-0", "engine"): 2_345_678_848,
                ("serving", "tiny-g0-0", "proxy"): 12_345_344,
                ("other", "tiny-g0-0", "engine"): 1_000_000_000,
            }
        )
        sets, ignored = working_sets(series_of(page, KUBELET_NAMES).series, "engine")
        assert sets == {("serving", "tiny-g0-0"): 2_345_678_848, ("other", "tiny-g0-0"): 1_000_000_000}
        assert not ignored

    def test_what_no_machine_has_is_ignored(self) -> None:
        page = kubelet_page({("serving", "a", "engine"): -5, ("serving", "b", "engine"): 10**18})
        sets, ignored = working_sets(series_of(page, KUBELET_NAMES).series, "engine")
        assert sets == {}
        assert ignored == {Ignored.OUT_OF_RANGE: 2}
