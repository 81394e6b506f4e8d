from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from sparkscore.errors import UsageError
from sparkscore.system_metrics import MachineReader, SystemMetrics

MEMORY = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  250 kB\n"


def write(proc: Path, busy: int, idle: int, received: int) -> None:
    (proc / "net").mkdir(parents=True, exist_ok=True)
    (proc / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")
    (proc / "meminfo").write_text(MEMORY)
    head = "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n"
    lines = "    lo: 9999999 0 0 0 0 0 0 0 9999999 0 0 0 0 0 0 0\n"
    lines += f"  eth0: {received} 0 0 0 0 0 0 0 {received // 2} 0 0 0 0 0 0 0\n"
    (proc / "net" / "dev").write_text(head + lines)


def test_machine_is_read_by_mlflows_names(tmp_path: Path) -> None:
    write(tmp_path, 100, 100, 1_000_000)
    reader = MachineReader(tmp_path, tmp_path)
    write(tmp_path, 175, 125, 5_000_000)
    found = reader.read()
    assert found["system/cpu_utilization_percentage"] == 75.0
    assert found["system/system_memory_usage_percentage"] == 75.0
    assert found["system/system_memory_usage_megabytes"] == 0.8
    assert found["system/network_receive_megabytes"] == 4.0
    assert found["system/network_transmit_megabytes"] == 2.0
    assert 0 < found["system/disk_usage_percentage"] <= 100
    assert found["system/disk_available_megabytes"] > 0


def test_what_a_system_does_not_say_is_left_out(tmp_path: Path) -> None:
    found = MachineReader(tmp_path / "none", tmp_path).read()
    assert {name.partition("_")[0] for name in found} == {"system/disk"}


def test_short_run_is_measured_once() -> None:
    logged: list[tuple[Mapping[str, float], int]] = []
    metrics = SystemMetrics(lambda *each: logged.append(each), 3600, lambda: {"system/x": 1.0})
    metrics.start()
    metrics.stop()
    assert logged == [({"system/x": 1.0}, 0)]


def test_store_that_refuses_ends_the_measuring_and_not_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = threading.Event()

    def refuse(*_: object) -> None:
        asked.set()
        raise UsageError("no")

    metrics = SystemMetrics(refuse, 0.001, dict)
    metrics.start()
    assert asked.wait(30)
    metrics.stop()
    assert "system metrics end" in caplog.text
