"""The formats of data files besides Delta, and the options that CSV and JSON are read with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sparkscore.errors import EngineUnfitError, SourceError, listed, nearest, shown

KINDS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".orc": "orc",
}
"""Ending of a file's name to its format; more of them are read where the format is named."""
COMPRESSIONS = frozenset({".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate", ".xz"})
READABLE_COMPRESSIONS = frozenset({".gz", ".bz2"})
"""What Python reads as Spark does; Hadoop frames the others in its own way."""

_TEXTS = ("csv", "json")
_PATTERNS = ("dateFormat", "timestampFormat")
_JSON_OPTIONS = frozenset({"encoding", "multiLine", *_PATTERNS})
_OPTIONS: Mapping[str, frozenset[str]] = {
    "csv": _JSON_OPTIONS | {"header", "sep", "quote", "escape", "nullValue"},
    "json": _JSON_OPTIONS,
}
_TRUTHS: Mapping[str, bool] = {"true": True, "false": False}


@dataclass(frozen=True)
class ReaderOptions:
    """How text is written, with Spark's defaults, but that CSV has a header unless said otherwise.

    Attributes:
        header: Whether the first line of each CSV file names the columns.
        sep: Between two values; one character, or several for Spark alone.
        quote: Around a value with separators inside; empty: no quotes at all.
        escape: Before a quote inside of quotes; the quote itself where quotes are doubled.
        null_value: A text that stands for null, as an empty value always does.
        encoding: The encoding's name in capitals.
        multi_line: Whether values may hold newlines (CSV), or a file is one document (JSON).
        patterns: Spark's own patterns for dates and timestamps, by Spark's names.
    """

    header: bool = True
    sep: str = ","
    quote: str = '"'
    escape: str = "\\"
    null_value: str = ""
    encoding: str = "UTF-8"
    multi_line: bool = False
    patterns: Mapping[str, str] = field(default_factory=dict)

    def for_spark(self, name: str) -> dict[str, str]:
        """The options that Spark's reader of the format `name` is given."""
        both = {
            "encoding": self.encoding,
            "multiLine": str(self.multi_line).lower(),
            # Spark's own default, PERMISSIVE, makes nulls of what it cannot read.
            "mode": "FAILFAST",
            **self.patterns,
        }
        if name == "json":
            return both
        return both | {
            "header": str(self.header).lower(),
            "sep": self.sep,
            "quote": self.quote,
            "escape": self.escape,
            "nullValue": self.null_value,
            # Or columns in another order are read under the wrong names.
            "enforceSchema": "false",
            # Or a line that ends too early is filled up with nulls.
            "columnPruning": "false",
        }


@dataclass(frozen=True)
class FileFormat:
    """How the data files of a source are written.

    Attributes:
        name: `parquet`, `csv`, `json` or `orc`.
        options: For CSV and JSON.
        columns: For CSV, the names of all its columns in the order of the files.
    """

    name: str = "parquet"
    options: ReaderOptions = field(default_factory=ReaderOptions)
    columns: Sequence[str] = ()


PARQUET = FileFormat()


def parse_options(name: str, given: Mapping[str, str]) -> ReaderOptions:
    """The options of a reader, from Spark's names and texts.

    Args:
        name: The format: `csv`, `json`, or another, which takes none.
        given: `header`, `sep`, `quote`, `escape`, `nullValue`, `encoding`, `multiLine`,
            `dateFormat`, `timestampFormat`; JSON knows the last four.

    Raises:
        SourceError: An option is unknown for the format, or its value is not of its kind.
    """
    known = _OPTIONS.get(name, frozenset())
    for option in given:
        if option not in known:
            takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise SourceError(
                f"source option {shown(option)} is unknown for the format {name}"
                f"{nearest(option, known)}; {takes}"
            )
    usual = ReaderOptions()
    return ReaderOptions(
        header=_truth("header", given, usual.header),
        sep=_separator(given.get("sep", usual.sep)),
        quote=_character("quote", given, usual.quote),
        escape=_character("escape", given, usual.escape),
        null_value=given.get("nullValue", usual.null_value),
        encoding=given.get("encoding", usual.encoding).upper() or usual.encoding,
        multi_line=_truth("multiLine", given, usual.multi_line),
        patterns={n: given[n] for n in _PATTERNS if n in given},
    )


def check_fit(name: str, options: ReaderOptions, paths: Sequence[str]) -> None:
    """Refuse files that Python would not surely read as Spark does.

    Raises:
        EngineUnfitError: An option or a compression is such.
    """
    if name in _TEXTS:
        if options.multi_line:
            raise EngineUnfitError("a row of the source may go over several lines (multiLine)")
        if options.encoding != "UTF-8":
            raise EngineUnfitError(f"the source is written in {options.encoding}")
        if name == "csv":
            _check_signs(options)
    readable = READABLE_COMPRESSIONS if name in _TEXTS else frozenset()
    unknown = [path for path in paths if compression_of(path) not in (*readable, "")]
    if unknown and name != "orc":  # ORC compresses inside the file, whatever it is called.
        raise EngineUnfitError(f"only Spark unpacks {listed(unknown)}")


def compression_of(path: str) -> str:
    """The ending that says how a file is compressed as a whole, such as `.gz`; or empty."""
    ending = PurePosixPath(path).suffix.lower()
    return ending if ending in COMPRESSIONS else ""


def format_of(path: str) -> str | None:
    """The format that a file's name tells; None where it tells none."""
    name = PurePosixPath(path)
    if name.suffix.lower() in COMPRESSIONS:
        name = name.with_suffix("")
    return KINDS.get(name.suffix.lower())


def _check_signs(options: ReaderOptions) -> None:
    signs = {"sep": options.sep, "quote": options.quote, "escape": options.escape}
    for name, sign in signs.items():
        if len(sign) != 1 or not sign.isascii() or sign.isalnum() or sign in " \r\n\0+-.":
            raise EngineUnfitError(f"the source's option {name} is {sign!r}")
    if options.quote not in "\"'" or options.escape not in ("\\", options.quote):
        raise EngineUnfitError(
            f"the source's quote is {options.quote!r} and its escape {options.escape!r}"
        )
    if options.sep in (options.quote, options.escape):
        raise EngineUnfitError(f"the source's option sep is {options.sep!r}")


def _truth(option: str, given: Mapping[str, str], usual: bool) -> bool:
    text = given.get(option, str(usual))
    if text.lower() not in _TRUTHS:
        raise SourceError(f"source option {option!r} is {shown(text)}; give true or false")
    return _TRUTHS[text.lower()]


def _separator(text: str) -> str:
    if not text:
        raise SourceError("source option 'sep' is empty; give a character, such as ';'")
    return "\t" if text == "\\t" else text


def _character(option: str, given: Mapping[str, str], usual: str) -> str:
    text = given.get(option, usual)
    if len(text) > 1:
        raise SourceError(f"source option {option!r} is {shown(text)}; give one character")
    return text
