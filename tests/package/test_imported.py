from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sparkscore.package.imported import libraries_of_sources


def test_library_is_named_from_when_it_is_installed_until_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    code = tmp_path / "model.py"
    code.write_text("import lately_installed.part\nimport json\nimport not_there\n")
    assert libraries_of_sources([code]) == ()
    facts = site / "Late_Library-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: late-library\nVersion: 1.0\n")
    (facts / "top_level.txt").write_text("lately_installed\n")
    assert libraries_of_sources([code]) == ("late-library",)
    shutil.rmtree(facts)
    assert libraries_of_sources([code]) == ()
