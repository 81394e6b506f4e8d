"""What all object stores have in common that Arrow has a client for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkscore.files.filesystem import StoreFacts

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileInfo, FileSystem


class ArrowStore(ABC):
    """Files by Arrow's own client, whose threads hold no lock of Python's."""

    @property
    @abstractmethod
    def filesystem(self) -> FileSystem:
        """The store as Arrow reads and writes it; connected once a process."""

    def facts(self, path: str) -> StoreFacts | None:
        """What is there; a prefix of objects is a folder."""
        found: FileInfo = self.filesystem.get_file_info(path)
        kind = str(found.type.name)
        if kind == "NotFound":
            return None
        return StoreFacts(kind == "Directory", found.size or 0, (found.mtime_ns or 0) / 1e9)

    def files_below(self, path: str, *, recursive: bool) -> Iterator[str]:
        """Paths of the objects below a prefix; a marker of an empty folder is none."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(path, allow_not_found=True, recursive=recursive)
        for found in self.filesystem.get_file_info(selector):
            if found.is_file:
                yield found.path

    def open_input(self, path: str) -> pa.NativeFile:
        """An object, for reading at any place of it."""
        return self.filesystem.open_input_file(path)

    def open_stream(self, path: str) -> pa.NativeFile:
        """An object, for reading it from its beginning; does not ask for its size."""
        return self.filesystem.open_input_stream(path)

    def open_output(self, path: str) -> pa.NativeFile:
        """A new object, whole when it was closed."""
        return self.filesystem.open_output_stream(path)

    def delete_file(self, path: str) -> None:
        """Remove an object; Arrow leaves an empty one in the place of the folder it was in."""
        self.filesystem.delete_file(path)
