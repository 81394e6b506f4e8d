"""A run's ledger: what one attempt has finished the next one finds, and nobody takes away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore.errors import StagedFilesGoneError
from sparkscore.files.ledger import Earlier, Ledger, are_there
from sparkscore.files.writing import WrittenFile

APP_ID = "sparkscore-" + "a" * 40
FIRST, SECOND = "1" * 32, "2" * 32
CHUNK, OTHER_CHUNK = "c" * 32, "d" * 32
NOW_MS = 10**14  # Year 5138: younger than any limit.


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "scores", APP_ID, FIRST, "first", "inputs")


def after(ledger: Ledger, attempt: str = SECOND) -> Ledger:
    return replace(ledger, attempt=attempt, run_id=f"run-{attempt[0]}")


def found(earlier: Earlier) -> list[tuple[str, str, str]]:
    return [(record.chunk, record.run_id, record.result) for record in earlier.records]


def test_first_attempt_finds_nothing(ledger: Ledger) -> None:
    assert ledger.claim(4) == Earlier(frozenset(), frozenset(), ())


def test_next_attempt_finds_what_the_first_has_finished(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    earlier = after(ledger).claim(2)
    assert found(earlier) == [(CHUNK, "first", "result")]
    assert (earlier.attempts, earlier.cuts) == (frozenset({FIRST}), frozenset({4}))


def test_chunk_of_other_inputs_is_not_used_and_its_attempt_is_known(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    earlier = replace(after(ledger), inputs="others").claim(4)
    assert earlier == Earlier(frozenset({FIRST}), frozenset(), ())


def test_record_that_is_not_whole_is_no_record(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    ledger.record(OTHER_CHUNK, "other")
    assert isinstance(ledger.folder, Path)
    (path,) = ledger.folder.glob(f"chunk-{CHUNK}-*")
    path.write_bytes(path.read_bytes()[:-1])
    assert found(after(ledger).claim(4)) == [(OTHER_CHUNK, "first", "other")]


def test_chunk_that_two_tries_of_a_task_have_finished_is_one_chunk(ledger: Ledger) -> None:
    ledger.claim(4)
    for _ in range(2):
        ledger.record(CHUNK, "result")
    assert set(found(after(ledger).claim(4))) == {(CHUNK, "first", "result")}


def test_what_is_discarded_is_never_used_again(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    assert ledger.discard()
    ledger.record(OTHER_CHUNK, "by a worker that came late")
    assert after(ledger).claim(4).records == ()


def test_attempt_that_another_one_goes_on_from_may_remove_nothing(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    assert found(after(ledger).claim(4))
    assert not ledger.discard()


@pytest.mark.parametrize("is_first", [True, False], ids=["claims first", "discards first"])
def test_of_using_and_removing_at_once_only_one_happens(is_first: bool, ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    if is_first:
        used, removed = after(ledger).claim(4).records, ledger.discard()
    else:
        removed, used = ledger.discard(), after(ledger).claim(4).records
    assert bool(used) != removed


def test_later_attempt_removes_nothing_either_since_the_first_may_be_alive(ledger: Ledger) -> None:
    ledger.claim(4)
    second = after(ledger)
    second.claim(4)
    second.record(CHUNK, "result")
    assert not second.discard()


def test_attempt_whose_files_were_removed_is_told_before_it_commits(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.check_claim()
    ledger.discard()
    ledger.remove()
    with pytest.raises(StagedFilesGoneError, match="run the same command again"):
        ledger.check_claim()


def test_removed_ledger_leaves_no_folder_and_can_be_removed_again(ledger: Ledger) -> None:
    ledger.claim(4)
    ledger.record(CHUNK, "result")
    ledger.discard()
    ledger.remove()
    ledger.remove()
    assert isinstance(ledger.root, Path)
    assert list(ledger.root.iterdir()) == []


def test_file_of_another_size_or_age_or_gone_is_in_doubt(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    file = WrittenFile("file", 4, 1, {}, "{}", NOW_MS)
    assert are_there(tmp_path, [file])
    assert not are_there(tmp_path, [replace(file, n_bytes=5)])
    assert not are_there(tmp_path, [replace(file, modified_ms=0)])
    assert not are_there(tmp_path, [file, replace(file, path="gone")])
