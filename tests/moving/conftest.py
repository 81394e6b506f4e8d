from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sparkscore.moving.importing import ARTIFACT_ROOT, Importer
from sparkscore.moving.mlruns import MlrunsFolder
from sparkscore.moving.tally import Tally
from sparkscore.stores.base import ArtifactStore
from sparkscore.stores.copies_base import CopyStore, RecordSource
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.sql import SqlStores, open_sql
from sparkscore.testing.clock import ticking_clock
from tests.moving.mlruns_maker import MlrunsMaker


@dataclass
class Ours:
    """Stores of ours in a folder, and imports into them."""

    folder: Path
    url: str
    stores: SqlStores = field(init=False)

    def __post_init__(self) -> None:
        self.stores = open_sql(self.url, ARTIFACT_ROOT, ticking_clock())

    @property
    def files(self) -> LocalArtifactStore:
        return LocalArtifactStore(self.folder / "artifacts")

    def take(
        self,
        source: Path | RecordSource,
        *,
        copies: CopyStore | None = None,
        artifacts: bool = True,
        moved: dict[str, str] | None = None,
        n_runs: int = 1000,
        max_points: int = 50_000,
    ) -> Tally:
        tally = Tally()
        records = copies or self.stores.copies
        Importer(
            source=MlrunsFolder(source) if isinstance(source, Path) else source,
            records=records,
            registry=records,
            artifacts=self.files if artifacts else None,
            open_at=open_at,
            moved=moved or {},
            announce=lambda _: None,
            tally=tally,
            n_runs=n_runs,
            max_points=max_points,
        ).run()
        return tally


def open_at(uri: str) -> ArtifactStore:
    return LocalArtifactStore.at(uri)


@pytest.fixture
def theirs(tmp_path: Path) -> MlrunsMaker:
    return MlrunsMaker(tmp_path / "mlruns")


@pytest.fixture
def ours(tmp_path: Path) -> Ours:
    return Ours(tmp_path / "ours", f"sqlite:///{tmp_path / 'ours.db'}")
