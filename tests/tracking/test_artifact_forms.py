from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from sparkscore.artifact_forms import (
    appended,
    mapping_text,
    save_figure,
    save_image,
    table_frame,
    table_record,
)
from sparkscore.errors import UsageError


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.arange(12, dtype=np.uint8).reshape(3, 4), "L"),
        (np.arange(36).reshape(3, 4, 3), "RGB"),
        (np.arange(48).reshape(3, 4, 4), "RGBA"),
        (np.arange(12).reshape(3, 4, 1), "L"),
    ],
)
def test_array_becomes_the_image_that_others_read(
    tmp_path: Path, array: np.ndarray, mode: str
) -> None:
    save_image(array, tmp_path / "i.png")
    with Image.open(tmp_path / "i.png") as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), array.squeeze())


def test_floats_and_truth_values_are_shades(tmp_path: Path) -> None:
    for values in (np.array([[0.0, 1.0]]), np.array([[False, True]])):
        save_image(values, tmp_path / "i.png")
        with Image.open(tmp_path / "i.png") as image:
            assert np.asarray(image).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.array([[0, 256]]), "go from 0 to 256"),
        (np.array([[-0.1, 1.0]]), "go from -0.1"),
        (np.array([[0.0, 1.5]]), "to 1.5"),
        (np.array([[np.nan]]), "is no image"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.array([["a"]]), "is no image"),
        ("a.png", "neither a Pillow image nor an array"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        save_image(image, tmp_path / "i.png")
    assert not (tmp_path / "i.png").exists()


def test_pillow_image_is_written_in_the_format_of_its_name(tmp_path: Path) -> None:
    save_image(Image.new("RGB", (2, 3)), tmp_path / "i.jpg")
    with Image.open(tmp_path / "i.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (2, 3))
    with pytest.raises(UsageError, match=r"as \.png"):
        save_image(np.zeros((2, 2)), tmp_path / "j.jpg")


def test_figure_is_written_in_the_format_of_its_name(tmp_path: Path) -> None:
    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    save_figure(figure, tmp_path / "f.svg")
    assert b"<svg" in (tmp_path / "f.svg").read_bytes()
    with pytest.raises(UsageError, match="no figure"):
        save_figure(figure, tmp_path / "f.html")
    with pytest.raises(UsageError, match="a list is no figure"):
        save_figure([1], tmp_path / "f.png")


def test_mapping_is_yaml_or_json_by_its_name() -> None:
    content = {"b": [1, 2.5], "a": "é"}
    assert json.loads(mapping_text(content, "x.json")) == content
    assert list(yaml.safe_load(mapping_text(content, "x.yaml"))) == ["b", "a"]
    for path in ("x.json", "x.yml"):
        with pytest.raises(UsageError, match=r"'x\.\w+' cannot be written"):
            mapping_text({"a": object()}, path)


def test_tables_grow_and_come_back() -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", None], "z": [0.5, np.nan]})
    first = table_record(frame)
    assert first == {"columns": ["x", "y", "z"], "data": [[1, "a", 0.5], [2, None, None]]}
    both = appended(table_record({"x": 3, "y": "b", "z": 1.0}), json.dumps(first), "t.json")
    back = table_frame(json.dumps(both), "t.json")
    assert back["x"].tolist() == [1, 2, 3]
    assert list(back.columns) == ["x", "y", "z"]


def test_table_of_other_columns_is_refused() -> None:
    held = json.dumps(table_record({"x": [1]}))
    with pytest.raises(UsageError, match="columns"):
        appended(table_record({"y": [1]}), held, "t.json")
    with pytest.raises(UsageError, match="no table that rows"):
        appended(table_record({"y": [1]}), "[]", "t.json")
    with pytest.raises(UsageError, match="do not fit"):
        table_record({"x": [1], "y": [1, 2]})
    with pytest.raises(UsageError, match="list is no table"):
        table_record([1])
