from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sparkscore.names import AliasName, ModelName
from sparkscore.stores.sql import open_sql

N_PROCESSES = 8
N_VERSIONS = 10

# Each writer also opens the new database, so that creation and migration are raced for too.
WRITER = f"""
import sys
from contextlib import suppress
from sparkscore.errors import RecordExistsError
from sparkscore.names import AliasName, ModelName
from sparkscore.records import VersionStatus
from sparkscore.stores.sql import open_sql

models = open_sql(sys.argv[1], "file:///a", busy_timeout_s=120).models
name = ModelName("flight-delay")
with suppress(RecordExistsError):
    models.create_model(name)
for _ in range({N_VERSIONS}):
    version = models.create_version(name, source="s").version
    models.finish_version(name, version, VersionStatus.READY, digest="d")
    models.set_alias(name, AliasName("champion"), version)
    print(version)
    assert models.get_version_by_alias(name, AliasName("champion")).version >= 1
"""


def test_versions_of_many_processes_have_neither_gap_nor_twin(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    command = [sys.executable, "-W", "error", "-c", WRITER, url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(N_PROCESSES)
    ]
    numbers = [int(line) for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0] * N_PROCESSES
    assert sorted(numbers) == list(range(1, N_PROCESSES * N_VERSIONS + 1))
    models = open_sql(url, "file:///a").models
    champion = models.get_version_by_alias(ModelName("flight-delay"), AliasName("champion"))
    assert champion.version in numbers
    assert len(models.list_versions(ModelName("flight-delay"))) == len(numbers)
