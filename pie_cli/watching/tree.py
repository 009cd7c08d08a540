"""What of a folder is somebody's own source text."""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from pie_cli.watching.ignoring import IgnoreRules

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        "astro bash bat c cc cjs clj cljs cljc cmake cpp cr cs css cu cuh cxx d dart el elm erl ex"
        " exs f90 fish fs fsx glsl go gradle groovy h hcl hh hpp hrl hs html hxx ino java jl js jsx"
        " kt kts less lisp lua m mjs mk ml mli mm nim nix pas php pl pm proto ps1 pxd py pyi pyx r"
        " rb rkt rs s sass scala scm scss sh sol sql svelte swift tcl tf thrift ts tsx v vb vhd"
        " vhdl vim vue wgsl xsl zig zsh"
    ).split()
)
"""Suffixes of source code, in lower case."""

NAMES = frozenset(
    "BUILD CMakeLists.txt Dockerfile Gemfile Jenkinsfile Justfile Makefile Rakefile SConscript"
    " SConstruct Vagrantfile WORKSPACE justfile makefile".split()
)
"""Names of source code that has no suffix of its own."""

FOREIGN = frozenset(
    "Carthage DerivedData Pods __pycache__ bower_components build dist dist-packages eggs htmlcov"
    " jspm_packages node_modules site-packages third-party third_party thirdparty vendor vendored"
    " venv virtualenv".split()
)
"""Folders of code that others wrote, or a program."""

MAX_FILE_BYTES = 2 << 20
"""Size beyond which a file that nobody named counts as data: some 50,000 lines."""

MAX_FOLDERS = 2_000
"""Most folders that are looked into: each takes a watch of the system, and time at the start."""

_MAX_FILES = 20_000
_GENERATED = (".min.js", ".min.css", ".egg-info")


class SourceTree:
    """A folder, and which files and folders in it count.

    Hidden, vendored, generated and ignored ones do not, nor does what a symbolic link stands for:
    it would come up twice, or lead in a circle. What the user named counts whatever it is called.

    Args:
        path: the folder as the user named it; may itself be a link.

    Attributes:
        path: as given.
        real: where it lies, without links.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settle()

    def settle(self) -> None:
        """Find out where the folder lies now."""
        # Unlike `resolve`, it gives up on a circle of links in peace.
        self.real = Path(os.path.realpath(self.path))
        self._rules = IgnoreRules(self.real)

    def given(self, real: Path) -> Path:
        """Return how the user would name a place below the folder."""
        return self.path / real.relative_to(self.real)

    def rules_changed(self, folder: Path) -> bool:
        """Read the ignore rules in a folder again, and tell whether they changed."""
        return self._rules.reread(folder)

    def holds(self, file: Path) -> bool:
        """Tell whether a file counts in a folder that counts; it need not exist.

        Args:
            file: without links.
        """
        return (
            _is_source_name(file.name)
            and not file.is_symlink()
            and not self._rules.ignores(file, is_folder=False)
        )

    def enters(self, folder: Path) -> bool:
        """Tell whether a folder counts that is the tree's own, or is in one that counts."""
        if folder == self.real:
            return True
        name = folder.name
        foreign = name.startswith(".") or name in FOREIGN or name.endswith(_GENERATED)
        return not foreign and not self._rules.ignores(folder, is_folder=True)

    def covers(self, file: Path) -> bool:
        """Tell whether a file counts, wherever it is.

        Args:
            file: without links.
        """
        if not file.is_relative_to(self.real):
            return False
        above = [folder for folder in file.parents if folder.is_relative_to(self.real)]
        return all(map(self.enters, above)) and self.holds(file)

    def folders(self, start: Path) -> Iterator[Path]:
        """Walk over the folders that count, the nearest first; what cannot be read has none.

        Args:
            start: a folder that counts, without links; it comes first.
        """
        ahead = deque([start])
        while ahead:
            folder = ahead.popleft()
            yield folder
            below = sorted(folder / entry.name for entry in _entries(folder) if _is_folder(entry))
            # As many as anybody looks into, and one that tells that there are more.
            ahead.extend(islice(filter(self.enters, below), MAX_FOLDERS + 1))

    def saved_since(self, moment_s: float, folders: Iterable[Path]) -> list[Path]:
        """Return the files directly in some folders that were written to, the oldest first.

        Args:
            moment_s: seconds since the epoch.
            folders: that count.
        """
        times = sorted(chain.from_iterable(map(_files, folders)))
        return [file for time_s, file in times if time_s >= moment_s and self.holds(file)]

    def newest(self) -> Iterator[Path]:
        """Give the files by their last save, the latest first.

        Of a huge folder only some are looked at, those near the top.
        """
        folders = islice(self.folders(self.real), MAX_FOLDERS)
        times = islice(chain.from_iterable(map(_files, folders)), _MAX_FILES)
        return (file for _, file in sorted(times, reverse=True) if self.holds(file))


def _is_source_name(name: str) -> bool:
    if name.startswith(".") or name.endswith(_GENERATED):
        return False
    return name in NAMES or os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - quicker


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    with suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def _files(folder: Path) -> Iterator[tuple[float, Path]]:
    """Give the last saves of what has a source file's name, in seconds since the epoch."""
    for entry in _entries(folder):
        with suppress(OSError):
            if _is_source_name(entry.name):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield status.st_mtime, folder / entry.name
