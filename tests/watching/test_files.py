"""Files become documents: real saves count, touches do not, and none is lost in a storm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_cli.errors import InputError, PieError
from pie_cli.watching.files import FileDocuments, NotText, read_source
from pie_cli.watching.tree import MAX_FILE_BYTES
from pie_cli.workspace.documents import Change, Document, Documents, Failure, Gone, Note

A, B = Path("src/a.py"), Path("src/b.py")
MISSING = InputError("there is no file")
LONGEST_S = 60


class Changes:
    """Change sets, and perhaps a reason why something is not watched."""

    def __init__(self, *sets: list[Path], shortfall: PieError | None = None) -> None:
        self.sets = sets
        self.shortfall = shortfall

    def __iter__(self) -> Iterator[list[Path]]:
        return iter(self.sets)


class Broken(Changes):
    def __iter__(self) -> Iterator[list[Path]]:
        raise InputError("the folder cannot be read")


class Disk:
    """Files as a test wants them, and what the documents say of them."""

    def __init__(self, *named: Path, **known: str) -> None:
        self.states: dict[Path, str | InputError] = {}
        self.documents = Documents()
        for name, text in known.items():
            self.documents.open(Path(f"src/{name}.py"), text)
        self.named = named
        self.files = FileDocuments(Changes(), self.documents, named=named, read=self.read)

    def read(self, path: Path, named: bool) -> str:
        assert named == (path in self.named)
        state = self.states.get(path, MISSING)
        if isinstance(state, InputError):
            raise state
        return state

    def looked(self, *paths: Path) -> tuple[object, ...]:
        for path in paths:
            self.files.look(path)
        return self.documents.take(0).items


def test_a_named_file_that_cannot_be_read_is_a_failure_and_any_other_is_gone() -> None:
    disk = Disk(A, a="1", b="2")
    assert disk.looked(A, B) == (Failure(1, A, MISSING), Gone(B))


def test_a_file_of_a_folder_that_goes_is_gone_and_no_failure() -> None:
    disk = Disk()
    disk.states[A] = "1"
    assert disk.looked(A) == (Change(1, Document(A, 0, "1")),)
    del disk.states[A]
    assert disk.looked(A, A) == (Gone(A),)
    disk.states[A] = "1"
    assert disk.looked(A) == (Change(2, Document(A, 0, "1")),), "it is there again: a save"
    assert disk.looked(B) == (), "it was never there"


def test_a_folder_that_goes_takes_its_files_along_but_for_named_ones() -> None:
    disk = Disk(B, a="text", b="text")
    disk.documents.open(Path("other/c.py"), "text")
    assert disk.looked(Path("src"), A) == (Gone(A),)


def test_what_never_was_text_is_passed_over_but_text_that_turns_binary_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"\x00")
    disk, binary = Disk(), NotText("a.py is binary")
    disk.states[path] = binary
    assert disk.looked(path) == ()
    disk.states[path] = "text"
    assert disk.looked(path) == (Change(1, Document(path, 0, "text")),)
    disk.states[path] = binary
    assert disk.looked(path, path) == (Failure(2, path, binary),)


def test_a_huge_file_of_a_folder_is_said_once_and_one_that_was_named_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.py"
    path.write_text("x" * (MAX_FILE_BYTES + 1))
    for named in ((), (path,)):
        documents = Documents()
        files = FileDocuments(Changes(), documents, named=named)
        files.look(path)
        files.look(path)
        [item] = documents.take(0).items
        assert isinstance(item, Change if named else Failure)
        if isinstance(item, Failure):
            assert "larger than 2 MiB" in item.error.cause


def test_a_storm_of_saves_waits_in_bounded_memory_and_nothing_is_lost() -> None:
    paths = [Path(f"{n}.py") for n in range(2_000)]
    documents = Documents()
    seen: list[int] = []
    most = 0
    with FileDocuments(Changes(paths), documents, read=lambda path, named: path.name):
        while len(seen) < len(paths):
            items = documents.take(LONGEST_S).items
            assert items or not documents.stopped
            most = max(most, len(items))
            for item in items:
                assert isinstance(item, Change)
                seen.append(item.number)
                documents.settle(item.number)
    assert seen == list(range(1, len(paths) + 1))
    assert most < len(paths)


def test_saves_that_nobody_takes_do_not_keep_a_watch_from_ending_and_are_not_lost() -> None:
    paths = [Path(f"{n}.py") for n in range(2_000)]
    documents = Documents()
    with FileDocuments(Changes(paths), documents, read=lambda path, named: path.name) as files:
        documents.take(LONGEST_S)
    assert not files._thread.is_alive()
    numbers = [one.number for one in documents.unsettled()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_watch_that_breaks_off_raises_where_changes_are_taken() -> None:
    documents = Documents()
    with (
        FileDocuments(Broken(), documents),
        pytest.raises(InputError, match="the folder"),
    ):
        documents.take(LONGEST_S)
    assert documents.stopped


def test_what_is_not_watched_is_noted_once() -> None:
    short = PieError("only some folders are watched")
    documents = Documents()
    with FileDocuments(Changes([], [], [], shortfall=short), documents):
        items = []
        while not documents.stopped:
            items += documents.take(LONGEST_S).items
    assert [*items, *documents.take(0).items] == [Note(short)]


@pytest.mark.parametrize("name", ["x" * 300, "a.py/b.py"])
def test_a_path_that_cannot_be_there_is_an_error_of_the_user(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.py").write_text("")
    with pytest.raises(InputError):
        read_source(tmp_path / name)
