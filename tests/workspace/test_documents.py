"""Documents: only what is new counts, the newest wins, and nothing that came is ever lost."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.errors import InputError
from pie_cli.text.edit import Edit
from pie_cli.workspace.documents import Change, Document, Documents, Failure, Gone, Note, Taken
from tests.workspace.played import documents_with

A, B, X = Path("a.py"), Path("b.py"), Path("x.py")
MISSING = InputError("there is no file x.py")


def changed(*states: str | InputError) -> Documents:
    """Return documents of which one, at first "a", then had these states."""
    documents = documents_with(x="a")
    for state in states:
        if isinstance(state, str):
            documents.change(X, state)
        else:
            documents.fail(X, state)
    return documents


def test_the_newest_change_wins_and_the_others_are_named() -> None:
    documents = changed("b", "c", "d")
    assert documents.newer_than(2)
    assert not documents.newer_than(3)
    taken = documents.take(0)
    assert taken.newest == Change(3, Document(X, 3, "d"))
    assert taken.superseded == (Change(1, Document(X, 1, "b")), Change(2, Document(X, 2, "c")))
    assert documents.take(0) == Taken()


def test_an_unchanged_text_is_no_change() -> None:
    documents = changed("a", "b", "b", "a", "a")
    changes = (Change(1, Document(X, 1, "b")), Change(2, Document(X, 2, "a")))
    assert documents.take(0) == Taken.of(*changes)
    assert documents.get(X) == Document(X, 2, "a")


def test_a_failure_that_lasts_is_one_and_does_not_overtake() -> None:
    binary = InputError("x.py is binary")
    documents = changed(MISSING, MISSING, binary)
    assert documents.take(0) == Taken.of(Failure(1, X, MISSING), Failure(2, X, binary))
    assert not documents.newer_than(0)
    assert documents.get(X) is None


def test_after_a_failure_the_same_text_says_that_all_is_well() -> None:
    taken = changed(MISSING, "a", MISSING).take(0)
    assert taken.newest == Change(2, Document(X, 1, "a"))
    assert [item.number for item in taken.items if isinstance(item, Failure)] == [1, 3]


def test_numbers_count_over_all_documents_and_versions_in_each() -> None:
    documents = documents_with(a="")
    for path, text in ((A, "1"), (B, "2"), (A, "3"), (B, "2")):
        documents.change(path, text)
    taken = documents.take(0)
    assert taken.newest == Change(3, Document(A, 2, "3"))
    assert taken.superseded == (Change(1, Document(A, 1, "1")), Change(2, Document(B, 0, "2")))
    assert documents.moved_on(2, B)
    assert not documents.moved_on(2, A)
    assert not documents.moved_on(3, B)


def test_an_edit_that_an_editor_knows_comes_along_and_its_version_counts() -> None:
    documents = documents_with(a="1\n")
    edit = Edit.between("1\n", "1\n2\n")
    assert documents.change(A, edit, 7) == Change(1, Document(A, 7, "1\n2\n"), edit)
    assert documents.change(A, "3\n") == Change(2, Document(A, 8, "3\n"))


def test_an_edit_of_another_text_and_a_version_from_the_past_are_refused_and_change_nothing() -> (
    None
):
    documents = documents_with(a="1\n")
    edit = Edit.between("2\n", "3\n")
    with pytest.raises(InputError, match="another text"):
        documents.change(A, edit)
    with pytest.raises(InputError, match="another text"):
        documents.change(B, edit)
    for version in (0, -1):
        with pytest.raises(InputError, match="came after 0"):
            documents.change(A, "3\n", version)
    assert documents.get(A) == Document(A, 0, "1\n")
    assert documents.take(0) == Taken()
    assert documents.unsettled() == ()


def test_a_document_that_is_removed_is_gone_once_and_new_when_it_comes_back() -> None:
    documents = documents_with(a="1")
    documents.remove(A)
    documents.remove(A)
    documents.remove(B)
    documents.change(A, "1")
    assert documents.take(0).items == (Gone(A), Change(1, Document(A, 0, "1")))


def test_a_released_text_is_forgotten_but_not_which_one_it_was() -> None:
    documents = documents_with(a="1")
    documents.release(A)
    documents.release(A)
    assert documents.get(A) is None
    assert documents.change(A, "1") is None
    assert documents.change(A, "2") == Change(1, Document(A, 1, "2"))


def test_a_text_that_is_no_unicode_may_be_released_as_well() -> None:
    documents = documents_with(a="\ud800")
    documents.release(A)
    assert documents.change(A, "\ud800") is None


@pytest.mark.parametrize("error", [None, InputError("the folder cannot be read")])
def test_the_end_overtakes_all_and_an_error_is_raised_where_changes_are_taken(
    error: InputError | None,
) -> None:
    documents = changed("b")
    documents.close(error)
    assert documents.stopped
    assert documents.overtaken(99)
    if error is None:
        assert documents.take(0).newest == Change(1, Document(X, 1, "b"))
    else:
        with pytest.raises(InputError, match="the folder"):
            documents.take(0)


def test_what_wakes_a_waiting_worker() -> None:
    note = InputError("too many folders")
    for act, items in (
        (lambda d: d.change(A, "1"), (Change(1, Document(A, 0, "1")),)),
        (lambda d: d.note(note), (Note(note),)),
        (lambda d: d.close(), ()),
    ):
        documents = Documents()
        thread = threading.Thread(target=act, args=(documents,))
        thread.start()
        assert documents.take(60) == Taken.of(*items)
        thread.join()


def test_writers_wait_for_room_until_changes_are_settled_or_the_end_has_come() -> None:
    documents = Documents(most_waiting=2)
    written: list[int] = []

    def write() -> None:
        for number in range(100):
            documents.change(A, str(number))
            written.append(number)
            if not documents.wait_for_room():
                return

    thread = threading.Thread(target=write)
    thread.start()
    for number in range(1, 11):
        while number not in [one.number for one in documents.unsettled()]:
            documents.take(60)
        assert len(documents.unsettled()) <= 2
        documents.settle(number)
    documents.close()
    thread.join(60)
    assert not thread.is_alive()
    assert 10 <= len(written) <= 12


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("change"), st.sampled_from("ab"), st.sampled_from("123")),
            st.tuples(st.just("fail"), st.sampled_from("ab"), st.sampled_from("xy")),
            st.tuples(st.just("remove"), st.sampled_from("ab"), st.just("")),
            st.tuples(st.just("release"), st.sampled_from("ab"), st.just("")),
            st.tuples(st.just("take"), st.just(""), st.just("")),
        )
    )
)
def test_whatever_comes_each_number_comes_once_and_the_last_text_is_known(
    steps: list[tuple[str, str, str]],
) -> None:
    documents = Documents()
    texts: dict[Path, str | None] = {}
    released: set[Path] = set()
    taken: list[int] = []

    def take() -> None:
        taken.extend(i.number for i in documents.take(0).items if isinstance(i, Change | Failure))

    for what, name, state in steps:
        path = Path(name)
        if what == "take":
            take()
        elif what == "change":
            is_new = texts.get(path) != state
            assert (documents.change(path, state) is not None) == is_new
            texts[path] = state
            released -= {path} if is_new else set()
        elif what == "fail":
            documents.fail(path, InputError(state))
            texts[path] = None
        elif what == "remove":
            documents.remove(path)
            texts.pop(path, None)
        else:
            documents.release(path)
            released |= {path}
        if what != "release":
            released &= {p for p, text in texts.items() if text is not None}
    take()
    assert taken == list(range(1, len(taken) + 1)) == [i.number for i in documents.unsettled()]
    for path, text in texts.items():
        document = documents.get(path)
        assert (document.text if document else None) == (None if path in released else text)
    for number in taken:
        documents.settle(number)
    assert documents.unsettled() == ()
