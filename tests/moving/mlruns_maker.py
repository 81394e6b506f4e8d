"""Writes folders as MLflow's file store does, without MLflow, and with what goes wrong in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

STATUS = {"RUNNING": 1, "FINISHED": 3}


class MlrunsMaker:
    """A folder `mlruns` that grows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def experiment(self, experiment_id: str, name: str, **more: object) -> Path:
        """An experiment's folder."""
        folder = self.root / experiment_id
        location = (self.root / experiment_id).as_uri()
        meta = {"experiment_id": experiment_id, "name": name, "artifact_location": location}
        write_meta(folder, {**meta, "lifecycle_stage": "active", "creation_time": 5, **more})
        return folder

    def run(
        self,
        experiment_id: str,
        run_id: str,
        *,
        status: str = "FINISHED",
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, str] | None = None,
        **more: object,
    ) -> Path:
        """A run's folder; metrics are the text of their files."""
        folder = self.root / experiment_id / run_id
        meta = {
            "run_id": run_id,
            "run_name": f"name of {run_id}",
            "experiment_id": experiment_id,
            "user_id": "ann",
            "status": STATUS[status],
            "start_time": 7,
            "end_time": None if status == "RUNNING" else 9,
            "lifecycle_stage": "active",
            "artifact_uri": f"{folder.as_uri()}/artifacts",
            **more,
        }
        write_meta(folder, meta)
        for kind, pairs in (("params", params), ("metrics", metrics)):
            for key, text in (pairs or {}).items():
                path = folder / kind / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
        return folder

    def model(
        self, name: str, sources: Mapping[int, str], *, run_id: str = "", **aliases: int
    ) -> None:
        """A registered model of versions at these places."""
        folder = self.root / "models" / name
        write_meta(folder, {"name": name, "creation_timestamp": 1, "last_updated_timestamp": 2})
        for number, source in sources.items():
            meta = {"name": name, "version": number, "creation_timestamp": number, "source": source}
            write_meta(folder / f"version-{number}", {**meta, "status": "READY", "run_id": run_id})
        for alias, number in aliases.items():
            (folder / "aliases").mkdir(exist_ok=True)
            (folder / "aliases" / alias).write_text(str(number))


def write_meta(folder: Path, meta: Mapping[str, object]) -> None:
    """A record's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.yaml").write_text(yaml.safe_dump(dict(meta)), "utf-8")


def write_package(folder: Path) -> None:
    """The least that is a package."""
    folder.mkdir(parents=True)
    flavors = {"python_function": {"loader_module": "mlflow.sklearn"}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    (folder / "model.pkl").write_bytes(b"pickled")
