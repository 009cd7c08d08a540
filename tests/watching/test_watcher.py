"""Saves: each way of saving gives one change set, whatever becomes of folders and links."""

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from pie_cli.errors import InputError, PieError
from pie_cli.watching.system import FileEvent, WatchdogSource
from pie_cli.watching.watcher import MAX_WAIT_MS, Watcher, names_on_the_way, watch
from tests.watching.scripted import QUIET, Script, changed, renamed


def played(paths: list[Path], *events: FileEvent | None) -> tuple[list[set[Path]], Script]:
    stop = threading.Event()
    script = Script(stop, *events)
    changes = list(watch(paths, stop=stop, backend=lambda: script))
    assert script.closed
    return changes, script


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "project" / "x.py"
    path.parent.mkdir()
    path.write_text("a\n")
    return path


def test_the_events_of_one_save_are_one_change_set(file: Path) -> None:
    save = [renamed(file), changed(file), changed(file), changed(file)]
    assert played([file], *save, QUIET, *save)[0] == [{file}, {file}]


def test_other_files_in_the_folder_are_no_change(file: Path) -> None:
    noise = [changed(file.with_name("y.py")), renamed(file.with_name("x.py~"))]
    changes, script = played([file], *noise, QUIET, *noise, changed(file), *noise)
    assert changes == [{file}]
    assert len(script.folders) == 1, "nothing was watched anew"


def test_two_files_saved_together_are_one_set_of_the_paths_as_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    other = file.with_name("y.py")
    changes, _ = played([Path("x.py"), other], changed(file), renamed(other), QUIET, changed(other))
    assert changes == [{Path("x.py"), other}, {other}]


def test_a_file_that_is_written_without_end_is_reported_all_the_same(file: Path) -> None:
    stop = threading.Event()
    script = Script(stop, *[changed(file)] * 1_000)
    ticks = iter(range(10_000))
    watcher = Watcher(
        [file], stop=stop, backend=lambda: script, clock=lambda: next(ticks) * MAX_WAIT_MS / 10_000
    )
    assert next(watcher) == {file}
    assert script.steps, "it did not wait for the end"


def test_stop_ends_the_iteration_and_closes_the_source(file: Path) -> None:
    stop = threading.Event()
    stop.set()
    script = Script(stop, changed(file))
    assert list(watch([file], stop=stop, backend=lambda: script)) == []
    assert script.closed == 1
    with watch([file], stop=stop, backend=lambda: script):
        pass
    assert script.closed == 2


def test_a_folder_that_is_replaced_is_watched_anew_and_its_files_reported(file: Path) -> None:
    changes, script = played([file], renamed(file.parent))
    assert changes == [{file}]
    assert script.renewed == [set(), {file.parent}]
    above = file.parent.parent
    _, script = played([file], renamed(above))
    assert script.renewed[-1] == {above, file.parent}


def test_the_folders_up_to_the_root_are_watched_for_names_only(file: Path) -> None:
    _, script = played([file])
    assert script.folders[0] == {folder: folder == file.parent for folder in file.parents}


def test_links_are_followed_to_each_place_of_a_save(file: Path) -> None:
    base = file.parent.parent
    (base / "links").mkdir()
    (base / "releases").symlink_to("project")
    link = base / "links" / "x"
    link.symlink_to(Path("..") / "releases" / "x.py")
    names = dict(names_on_the_way(link))
    assert {name for name, holds_text in names.items() if holds_text} == {link, file}
    assert names[base / "releases"] is False
    changes, script = played(
        [link], changed(file), QUIET, renamed(link), QUIET, renamed(base / "releases")
    )
    assert changes == [{link}] * 3
    assert script.folders[0][file.parent]
    assert script.folders[0][link.parent]


def test_a_link_that_changes_its_target_moves_the_watch(file: Path) -> None:
    base = file.parent.parent
    (base / "new").mkdir()
    link = base / "current"
    link.symlink_to("project")

    def retarget() -> None:
        link.unlink()
        link.symlink_to("new")

    stop = threading.Event()
    script = Script(stop, retarget, renamed(link))
    assert list(watch([link / "x.py"], stop=stop, backend=lambda: script)) == [{link / "x.py"}]
    assert script.folders[0].get(base / "project")
    assert script.folders[1].get(base / "new")


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(list(names_on_the_way(tmp_path / "a"))) < 100


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        watch([tmp_path], stop=threading.Event())


def test_a_folder_that_cannot_be_read_is_an_error(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != file.parent)
    with pytest.raises(InputError, match="project cannot be read"):
        watch([file], stop=threading.Event())


def test_what_lies_above_need_not_be_readable(
    file: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == file.parent)
    with watch([file], stop=stop) as changes:
        save_by_rename(file, "b\n")
        wait_for(changes, file, "b\n")


@pytest.mark.parametrize(
    ("code", "limit"),
    [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "max_user_instances")],
)
def test_a_limit_of_the_system_is_an_error_with_a_remedy(file: Path, code: int, limit: str) -> None:
    class Refusing(PollingObserver):
        def schedule(self, *_: object, **__: object) -> None:  # type: ignore[override]
            raise OSError(code, "limit reached")

    def unavailable() -> BaseObserver:
        raise OSError(code, "limit reached")

    for observer in (Refusing, unavailable):
        with pytest.raises(PieError, match="limit of file watches") as caught:
            watch([file], stop=threading.Event(), backend=partial(WatchdogSource, observer))
        assert limit in caught.value.remedy


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


def save_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def save_by_rename(path: Path, text: str) -> None:
    temporary = path.with_name(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def save_like_vim(path: Path, text: str) -> None:
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def save_with_backup_elsewhere(path: Path, text: str) -> None:
    path.rename(path.parent.parent / "backup")
    path.write_text(text)


def save_by_deleting(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def save_by_replacing_the_folder(path: Path, text: str) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    path.write_text(text)


def save_by_swapping_the_folder(path: Path, text: str) -> None:
    new = path.parent.parent / "new"
    new.mkdir()
    (new / path.name).write_text(text)
    old = path.parent.parent / "old"
    shutil.rmtree(old, ignore_errors=True)
    path.parent.rename(old)
    new.rename(path.parent)


WAYS = [
    save_in_place,
    save_by_rename,
    save_like_vim,
    save_with_backup_elsewhere,
    save_by_deleting,
]
FOLDER_WAYS = [save_by_replacing_the_folder, save_by_swapping_the_folder]
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="folders above are watched on Linux only"
)


def wait_for(changes: Watcher, path: Path, text: str) -> None:
    for paths in changes:
        assert paths == {path}
        if path.is_file() and path.read_text() == text:
            return
    pytest.fail("the save was not seen")


@pytest.mark.parametrize("save", [*WAYS, *(pytest.param(way, marks=linux) for way in FOLDER_WAYS)])
def test_each_way_of_saving_is_seen_again_and_again(
    file: Path, stop: threading.Event, save: Callable[[Path, str], None]
) -> None:
    with watch([file], stop=stop) as changes:
        for number in range(4):
            save(file, f"{number}\n")
            wait_for(changes, file, f"{number}\n")
        save_in_place(file, "last\n")
        wait_for(changes, file, "last\n")


@pytest.mark.parametrize("save", WAYS)
def test_saves_through_a_link_and_at_its_target_are_seen(
    file: Path, stop: threading.Event, save: Callable[[Path, str], None]
) -> None:
    link = file.parent.parent / "link.py"
    link.symlink_to(file)
    with watch([link], stop=stop) as changes:
        save(file, "at the target\n")
        wait_for(changes, link, "at the target\n")
        save_in_place(link, "through the link\n")
        wait_for(changes, link, "through the link\n")
        save_by_rename(link, "instead of the link\n")
        wait_for(changes, link, "instead of the link\n")


def test_a_file_that_comes_later_and_one_that_goes_are_seen(
    file: Path, stop: threading.Event
) -> None:
    path = file.with_name("new.py")
    with watch([path], stop=stop) as changes:
        path.write_text("here\n")
        wait_for(changes, path, "here\n")
        path.unlink()
        assert next(changes) == {path}


def test_reading_a_file_is_no_change(file: Path, stop: threading.Event) -> None:
    other = file.with_name("other.py")
    with watch([file, other], stop=stop) as changes:
        file.read_text()
        os.utime(file)
        other.write_text("b\n")
        assert next(changes) == {other}


def test_a_polling_observer_serves_as_well(file: Path, stop: threading.Event) -> None:
    def polling() -> WatchdogSource:
        return WatchdogSource(lambda: PollingObserver(timeout=0.01))

    with watch([file], stop=stop, backend=polling) as changes:
        save_in_place(file, "polled, and of another length\n")
        wait_for(changes, file, "polled, and of another length\n")


def test_closing_leaves_no_threads(file: Path, stop: threading.Event) -> None:
    before = set(threading.enumerate())
    with watch([file], stop=stop):
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) <= before
