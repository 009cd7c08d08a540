"""Saves in folders: each is seen, whatever comes, goes or is renamed; watches stay bounded."""

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from pie_cli.errors import PieError
from pie_cli.watching import system
from pie_cli.watching.system import LINUX, FileEvent, WatchdogSource
from pie_cli.watching.tree import SourceTree
from pie_cli.watching.watcher import Watcher, watch
from tests.watching.scripted import Script, changed, renamed


def played(
    root: Path, *events: FileEvent | Callable[[], object] | None, named: Collection[Path] = ()
) -> tuple[list[list[Path]], Script]:
    stop = threading.Event()
    script = Script(stop, *events)
    changes = watch(named, stop=stop, trees=[SourceTree(root)], backend=lambda: script)
    return [list(paths) for paths in changes], script


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "project"
    for name in ("a.py", "lib/b.py", "lib/deep/c.py", "node_modules/d.js", ".git/e.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
        os.utime(root / name, (1_000, 1_000))
    return root


def contents_of(folders: dict[Path, bool]) -> set[Path]:
    return {folder for folder, contents in folders.items() if contents}


def test_the_folders_that_count_are_watched_and_may_be_left_out_but_for_the_first(
    root: Path,
) -> None:
    _, script = played(root)
    assert contents_of(script.folders[-1]) == {root, root / "lib", root / "lib/deep"}
    assert script.spare[-1] == {root / "lib", root / "lib/deep"}
    assert script.folders[-1].keys() >= set(root.parents)


def test_saves_come_by_the_tree_as_given_the_last_one_last(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    a, b, data = root / "a.py", root / "lib/b.py", root / "lib/data.json"
    changes, _ = played(
        Path("project"), changed(a), changed(b), renamed(a), None, changed(data), changed(b)
    )
    given = [Path("project/lib/b.py"), Path("project/a.py")]
    assert changes == [given, given[:1]]


def test_a_file_that_is_named_as_well_goes_by_its_name(root: Path) -> None:
    link = root.parent / "link.py"
    link.symlink_to(root / "a.py")
    changes, _ = played(root, changed(root / "a.py"), named=[link])
    assert changes == [[link]]
    both = SourceTree(root / "lib"), SourceTree(root)
    stop = threading.Event()
    script = Script(stop, changed(root / "lib/b.py"))
    assert list(watch([], stop=stop, trees=both, backend=lambda: script)) == [{root / "lib/b.py"}]


def test_a_new_folder_is_watched_and_what_was_saved_in_it_meanwhile_is_seen(root: Path) -> None:
    def grow() -> None:
        (root / "new/deep").mkdir(parents=True)
        (root / "new/deep/x.py").write_text("x\n")
        (root / "new/old.py").write_text("copied with its time\n")
        os.utime(root / "new/old.py", (1_000, 1_000))

    changes, script = played(root, grow, renamed(root / "new"), None, changed(root / "new/old.py"))
    assert changes == [[root / "new/deep/x.py"], [root / "new/old.py"]]
    assert {root / "new", root / "new/deep"} <= contents_of(script.folders[-1])


def test_a_folder_that_grows_while_it_is_looked_into_is_watched_whole(root: Path) -> None:
    stop = threading.Event()
    script = Script(stop)

    def grow() -> None:
        if root / "lib" in script.folders[-1]:
            (root / "lib/late").mkdir(exist_ok=True)

    script.on_follow = grow
    list(watch([], stop=stop, trees=[SourceTree(root)], backend=lambda: script))
    assert root / "lib/late" in script.folders[-1]


def test_a_folder_that_goes_takes_its_files_and_watches_along(root: Path) -> None:
    c = root / "lib/deep/c.py"
    changes, script = played(
        root,
        changed(c),
        None,
        lambda: (root / "lib").rename(root / "moved"),
        renamed(root / "lib"),
        renamed(root / "moved"),
    )
    assert changes == [[c], [root / "lib", c]], "moved, not saved: nothing of the new place"
    assert contents_of(script.folders[-1]) == {root, root / "moved", root / "moved/deep"}


def test_a_folder_that_is_replaced_is_watched_anew(root: Path) -> None:
    _, script = played(root, renamed(root / "lib"))
    assert {root / "lib", root / "lib/deep"} in script.renewed
    _, script = played(root, renamed(root.parent))
    assert any(renewed >= {root.parent, root, root / "lib"} for renewed in script.renewed)


def test_a_tree_behind_a_link_follows_the_link(root: Path) -> None:
    other = root.parent / "other"
    (other / "x").mkdir(parents=True)
    link = root.parent / "link"
    link.symlink_to(root)

    def turn() -> None:
        link.unlink()
        link.symlink_to(other)
        (other / "x/y.py").write_text("saved before the watch stood\n")

    changes, script = played(link, turn, renamed(link))
    assert changes == [[link / "x/y.py"]]
    assert contents_of(script.folders[-1]) == {other, other / "x"}


def test_ignore_rules_that_change_change_the_watches_and_are_no_save(root: Path) -> None:
    rules = root / ".gitignore"
    changes, script = played(
        root,
        lambda: rules.write_text("deep/\n"),
        renamed(rules),
        changed(rules),
        rules.unlink,
        renamed(rules),
    )
    assert changes == []
    watched = [root / "lib/deep" in folders for folders in script.folders]
    assert watched[-1]
    assert False in watched[2:]


def test_the_number_of_folders_is_bounded_and_said(root: Path) -> None:
    stop = threading.Event()
    script = Script(stop, renamed(root / "new"))
    (root / "new").mkdir()
    watcher = Watcher(
        [], stop=stop, trees=[SourceTree(root)], backend=lambda: script, max_folders=2
    )
    assert watcher.n_folders == 2
    assert watcher.shortfall
    assert "2 nearest are watched" in watcher.shortfall.cause
    assert list(watcher) == []
    assert len(contents_of(script.folders[-1])) == 2


class Limited(Observer):  # type: ignore[misc,valid-type]
    """The system's observer, with a limit of its own."""

    most = 0

    def schedule(self, handler: Any, path: str, **options: Any) -> ObservedWatch:  # type: ignore[override]
        if len(self.emitters) >= self.most:
            raise OSError(errno.ENOSPC, "limit reached")
        return super().schedule(handler, path, **options)


def test_a_limit_of_the_system_leaves_folders_out_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    above = len(root.parents) if LINUX else 0
    monkeypatch.setattr(Limited, "most", above + 2)
    trees = [SourceTree(root)]
    with watch([], stop=stop, trees=trees, backend=partial(WatchdogSource, Limited)) as watcher:
        assert watcher.n_folders == 2
        assert watcher.shortfall
        assert "max_user_watches" in watcher.shortfall.remedy
    monkeypatch.setattr(Limited, "most", above)
    with pytest.raises(PieError, match="limit of file watches"):
        watch([], stop=stop, trees=trees, backend=partial(WatchdogSource, Limited))


def test_elsewhere_than_on_linux_one_watch_takes_a_tree_in(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled: dict[str, bool] = {}

    class Noting(BaseObserver):
        def __init__(self) -> None:
            super().__init__(emitter_class=object)  # type: ignore[arg-type]

        def schedule(self, handler: Any, path: str, **options: Any) -> ObservedWatch:  # type: ignore[override]
            scheduled[path] = options["recursive"]
            return ObservedWatch(path, recursive=options["recursive"])

        def unschedule(self, watch: ObservedWatch) -> None:
            scheduled.pop(watch.raw_path)

    monkeypatch.setattr(system, "LINUX", False)
    source = partial(WatchdogSource, Noting)
    with watch([], stop=threading.Event(), trees=[SourceTree(root)], backend=source):
        assert scheduled == {str(root): True}


# --- with the operating system -------------------------------------------------------------------


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """A stop event that fires by itself, so that a missed save fails instead of hanging."""
    event = threading.Event()
    timer = threading.Timer(20, event.set)
    timer.start()
    yield event
    timer.cancel()
    timer.join()


def wait_for(changes: Watcher, *wanted: Path) -> None:
    missing = set(wanted)
    while missing:
        missing -= next(changes)


linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="folders above are watched on Linux only"
)


def test_real_saves_in_folders_that_come_go_and_come_back(
    root: Path, stop: threading.Event
) -> None:
    with watch([], stop=stop, trees=[SourceTree(root)]) as changes:
        for number in range(3):
            (root / "lib/deep/c.py").write_text(f"{number}\n")
            wait_for(changes, root / "lib/deep/c.py")
            new = root / "lib" / f"new{number}" / "deep"
            new.mkdir(parents=True)
            (new / "x.py").write_text("x\n")
            wait_for(changes, new / "x.py")
            new.parent.rename(root / "moved")
            wait_for(changes, new / "x.py", root / "moved/deep/x.py")
            (root / "moved/deep/x.py").write_text("y\n")
            wait_for(changes, root / "moved/deep/x.py")
            shutil.rmtree(root / "moved")
            wait_for(changes, root / "moved/deep/x.py")


@linux
def test_a_tree_that_is_deleted_and_made_again_is_followed(
    root: Path, stop: threading.Event
) -> None:
    with watch([], stop=stop, trees=[SourceTree(root)]) as changes:
        for number in range(3):
            shutil.rmtree(root)
            (root / "lib").mkdir(parents=True)
            (root / "lib/b.py").write_text(f"{number}\n")
            wait_for(changes, root / "lib/b.py")
            (root / "lib/b.py").write_text(f"{number} again\n")
            wait_for(changes, root / "lib/b.py")


def test_saves_where_nobody_looks_are_not_reported(root: Path, stop: threading.Event) -> None:
    with watch([], stop=stop, trees=[SourceTree(root)]) as changes:
        for name in ("node_modules/d.js", ".git/e.py", "x.json", "lib/.b.py.swp"):
            (root / name).write_text("new\n")
        (root / "a.py").write_text("new\n")
        assert next(changes) == {root / "a.py"}
