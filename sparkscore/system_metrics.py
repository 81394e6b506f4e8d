"""How busy this machine is while a run goes on, as MLflow names it; read from /proc."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from sparkscore.errors import SparkscoreError

_LOGGER = logging.getLogger(__name__)
_MEGABYTE = 1_000_000
_PROC = Path("/proc")
_RECEIVED, _SENT = 0, 8
"""Columns of /proc/net/dev."""
_IDLE = (3, 4)
"""Columns of /proc/stat's first line: idle, and waiting for a disk."""

Measure = Mapping[str, float]


class MachineReader:
    """What the kernel counts; rates are those since the last reading.

    Args:
        proc: Where Linux says it; what is not there is left out.
        disk: The disk of this folder is measured.
    """

    def __init__(self, proc: Path = _PROC, disk: Path | None = None) -> None:
        self._proc = proc
        self._disk = disk or Path.cwd()
        self._cpu = self._cpu_ticks()
        self._network = self._network_bytes()

    def read(self) -> dict[str, float]:
        """Percentages and megabytes by MLflow's names."""
        return {
            f"system/{name}": value
            for part in (self._cpu_use(), self._memory(), self._disk_use(), self._traffic())
            for name, value in part.items()
        }

    def _cpu_use(self) -> Measure:
        before, self._cpu = self._cpu, self._cpu_ticks()
        if before is None or self._cpu is None or self._cpu[0] == before[0]:
            return {}
        idle = (self._cpu[1] - before[1]) / (self._cpu[0] - before[0])
        return {"cpu_utilization_percentage": round(100 * (1 - idle), 2)}

    def _memory(self) -> Measure:
        lines = self._lines("meminfo")
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in _parted(lines)}
        if not {"MemTotal", "MemAvailable"} <= kilobytes.keys():
            return {}
        total, free = kilobytes["MemTotal"], kilobytes["MemAvailable"]
        return {
            "system_memory_usage_megabytes": round((total - free) * 1024 / _MEGABYTE, 1),
            "system_memory_usage_percentage": round(100 * (1 - free / total), 2),
        }

    def _disk_use(self) -> Measure:
        try:
            usage = shutil.disk_usage(self._disk)
        except OSError:
            return {}
        return {
            "disk_usage_megabytes": round(usage.used / _MEGABYTE, 1),
            "disk_usage_percentage": round(100 * usage.used / usage.total, 2),
            "disk_available_megabytes": round(usage.free / _MEGABYTE, 1),
        }

    def _traffic(self) -> Measure:
        before, self._network = self._network, self._network_bytes()
        if before is None or self._network is None:
            return {}
        received, sent = self._network[0] - before[0], self._network[1] - before[1]
        return {
            "network_receive_megabytes": round(received / _MEGABYTE, 3),
            "network_transmit_megabytes": round(sent / _MEGABYTE, 3),
        }

    def _cpu_ticks(self) -> tuple[int, int] | None:
        """All ticks of all cores, and those in which they did nothing."""
        lines = self._lines("stat")
        if not lines or not lines[0].startswith("cpu "):
            return None
        ticks = [int(text) for text in lines[0].split()[1:9]]
        return sum(ticks), sum(ticks[place] for place in _IDLE)

    def _network_bytes(self) -> tuple[int, int] | None:
        found = [rest.split() for name, _, rest in _parted(self._lines("net/dev")) if name != "lo"]
        counts = [columns for columns in found if len(columns) > _SENT]
        if not counts:
            return None
        return (
            sum(int(columns[_RECEIVED]) for columns in counts),
            sum(int(columns[_SENT]) for columns in counts),
        )

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text().splitlines()
        except OSError:
            return []


class SystemMetrics:
    """A thread that measures and logs until it is stopped.

    Args:
        log: Keeps values measured at one step.
        interval_s: Seconds between two measurements.
        read: Measures.
    """

    def __init__(
        self,
        log: Callable[[Measure, int], None],
        interval_s: float,
        read: Callable[[], Measure] | None = None,
    ) -> None:
        self._log = log
        self._interval_s = interval_s
        self._read = read or MachineReader().read
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparkscore-system", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Measure once more, so that a short run has its numbers too, and end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        step = 0
        while not self._stopped.is_set():
            self._stopped.wait(self._interval_s)
            try:
                self._log(self._read(), step)
            except SparkscoreError as exc:
                # A run shall not fail because its machine could not be put on record.
                _LOGGER.warning("system metrics end, since they are not taken: %s", exc)
                return
            step += 1


def _parted(lines: list[str]) -> list[tuple[str, str, str]]:
    return [
        (name.strip(), colon, rest)
        for name, colon, rest in (line.partition(":") for line in lines)
        if colon
    ]
