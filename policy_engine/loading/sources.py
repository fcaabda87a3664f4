"""Policies as files: what a file or package holds at one moment, and its import from that.

A source is read once and imported from memory, so the digest is of the code that runs, whatever
happens to the file meanwhile; no bytecode is written, and two versions can be loaded at once.
"""

import base64
import importlib
import importlib.abc
import importlib.util
import linecache
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.machinery import ModuleSpec
from pathlib import Path
from stat import S_ISDIR, S_ISREG, S_IWOTH
from types import ModuleType
from typing import Any

from policy_engine.errors import SourceUnusable

PACKAGE = "signalbox_policies"
"""Modules of sources are called `signalbox_policies.<entry>_<digest>`."""

MAX_FILES = 200
MAX_BYTES = 4 << 20
_INIT = "__init__.py"


@dataclass(frozen=True)
class Source:
    """One Python file, or one package."""

    entry: str  # the file's name without `.py`, or the package's
    origin: Path  # for tracebacks and messages
    files: Mapping[str, bytes]  # by the path inside; `__init__.py` is the file itself

    @cached_property
    def digest(self) -> str:
        """Equal for the same name and content, wherever it is."""
        told = sha256(self.entry.encode())
        for path, content in sorted(self.files.items()):
            told.update(f"\0{path}\0{len(content)}\0".encode())
            told.update(content)
        return told.hexdigest()[:32]

    @property
    def module(self) -> str:
        """The name it is imported by."""
        return f"{PACKAGE}.{self.entry}_{self.digest}"

    def document(self) -> dict[str, Any]:
        """All of it, JSON-shaped; `Source.of` reads it."""
        files = {path: base64.b64encode(data).decode() for path, data in self.files.items()}
        return {"entry": self.entry, "origin": str(self.origin), "files": files}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Source":
        """The inverse of `document`. Raises KeyError, ValueError."""
        files = {path: base64.b64decode(text) for path, text in document["files"].items()}
        return cls(str(document["entry"]), Path(document["origin"]), files)


def entries(folder: Path) -> dict[str, Path]:
    """What counts as a policy in `folder`, by entry: Python files, and folders with `__init__.py`.

    Not: names that begin with `.` or `_`, tests (`test_*.py`, `conftest.py`), and what could not be
    imported by its name. Raises OSError.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        entry = path.stem if path.suffix == ".py" else path.name
        if not entry.isidentifier() or entry.startswith(("_", "test_")) or entry == "conftest":
            continue
        if path.suffix == ".py" or (path / _INIT).is_file():
            found.setdefault(entry, path)
    return found


def fingerprint(folder: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """Changes when anything in `folder` does: cheap, without reading files."""
    seen: list[tuple[str, int, int, int, int]] = []
    try:
        for path in (folder, *entries(folder).values()):
            for one in (path, *_inside(path)) if path != folder else (path,):
                about = one.stat()
                size = 0 if S_ISDIR(about.st_mode) else about.st_size
                seen.append((str(one), about.st_mode, size, about.st_mtime_ns, about.st_ctime_ns))
    except OSError as error:
        seen.append((str(error.filename), -1, error.errno or 0, 0, 0))
    return tuple(seen)


def read(entry: str, path: Path) -> Source:
    """What is at `path` now. Raises SourceUnusable."""
    files: dict[str, bytes] = {}
    size = 0
    try:
        refuse_if_open_to_all(path)
        for one in _inside(path) if path.is_dir() else [path]:
            refuse_if_open_to_all(one)
            if not S_ISREG(one.stat().st_mode):
                continue
            content = one.read_bytes()
            size += len(content)
            if len(files) >= MAX_FILES or size > MAX_BYTES:
                raise SourceUnusable(
                    path, f"it is larger than {MAX_FILES} files or {MAX_BYTES >> 20} MiB"
                )
            files[one.relative_to(path).as_posix() if path.is_dir() else _INIT] = content
    except OSError as error:
        raise SourceUnusable(path, f"it cannot be read: {error.strerror}") from error
    return Source(entry, path, files)


def refuse_if_open_to_all(path: Path) -> None:
    """Code that anybody on the machine may change is not run. Raises SourceUnusable, OSError."""
    if path.stat().st_mode & S_IWOTH:
        raise SourceUnusable(path, "everybody may write to it: take that right away (chmod o-w)")


def _inside(path: Path) -> Iterator[Path]:
    """Files and folders below a package, sorted, bytecode and hidden ones apart."""
    if not path.is_dir():
        return
    for one in sorted(path.iterdir()):
        if one.name.startswith(".") or one.name == "__pycache__" or one.suffix == ".pyc":
            continue
        yield one
        if not one.is_symlink():  # a link may lead back up
            yield from _inside(one)


def import_source(source: Source) -> ModuleType:
    """The module of `source`; imported once. Raises whatever its code raises."""
    _FINDER.sources[source.module] = source
    return importlib.import_module(source.module)


def forget(source: Source) -> None:
    """Let go of the modules of `source`; classes that somebody holds live on."""
    _FINDER.sources.pop(source.module, None)
    for name in [one for one in sys.modules if f"{one}.".startswith(f"{source.module}.")]:
        del sys.modules[name]
    for name in [one for one in linecache.cache if one.endswith(f"@{source.digest[:8]}")]:
        del linecache.cache[name]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of sources, and the package that is above them all."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that a known source holds."""
        del path, target
        if fullname == PACKAGE:
            return ModuleSpec(fullname, None, is_package=True)
        above, _, rest = fullname.partition(".")
        name, _, inner = rest.partition(".")
        source = self.sources.get(f"{above}.{name}")
        if source is None:
            return None
        stem = inner.replace(".", "/")
        for file in (f"{stem}/{_INIT}" if stem else _INIT, f"{stem}.py"):
            if file in source.files:
                is_package = file.endswith(_INIT)
                return importlib.util.spec_from_loader(
                    fullname, _Loader(source, file), is_package=is_package
                )
        return None


class _Loader(importlib.abc.InspectLoader):
    """Runs one file of a source from memory."""

    def __init__(self, source: Source, file: str) -> None:
        self._source = source
        self._file = file

    def is_package(self, fullname: str) -> bool:
        """Whether other modules may be inside."""
        del fullname
        return self._file.endswith(_INIT)

    def get_source(self, fullname: str) -> str:
        """The text, for tracebacks. Raises SyntaxError, UnicodeDecodeError."""
        del fullname
        return importlib.util.decode_source(self._source.files[self._file])

    def get_code(self, fullname: str) -> Any:  # noqa: ANN401 - a code object
        """Compiled anew each time; tracebacks and docstrings show this text, not today's file."""
        name = self._shown
        code = compile(self._source.files[self._file], name, "exec", dont_inherit=True)
        text = self.get_source(fullname)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        return code

    def get_data(self, path: str) -> bytes:
        """Another file of the package: `pkgutil.get_data(__package__, "words.txt")`."""
        root = self._root
        inside = Path(path)
        file = inside.relative_to(root).as_posix() if inside.is_relative_to(root) else path
        if file not in self._source.files:
            raise FileNotFoundError(path)
        return self._source.files[file]

    def exec_module(self, module: ModuleType) -> None:
        """Run the code in `module`."""
        module.__file__ = self._shown  # inspect goes by it; its folder is the real one
        super().exec_module(module)

    @property
    def _root(self) -> Path:
        origin = self._source.origin
        return origin.parent if origin.suffix == ".py" else origin

    @property
    def _shown(self) -> str:
        origin = self._source.origin
        path = origin if origin.suffix == ".py" else origin / self._file
        return f"{path}@{self._source.digest[:8]}"


_FINDER = _Finder()
sys.meta_path.append(_FINDER)
