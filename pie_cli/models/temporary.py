"""Folders for what is half done: they go when it is done, when it fails, and after a kill."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

TEMPORARY: Final = "tmp-"
"""How the names of such folders begin."""

_ABANDONED_S: Final = 6 * 3_600


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Give a new folder inside another, for the body; what killed processes left there goes first.

    Args:
        parent: made where it is missing.

    Raises:
        OSError: it cannot be written to.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{TEMPORARY}*"):
        # Another process may sweep as well, or still write: then the folder is young.
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
