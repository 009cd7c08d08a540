"""A session runs on any engine: here one without tensors, whose cache is a list of numbers."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pie_cli import Edit, EditSession
from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.engine.choosing import Choice
from pie_cli.engine.decode import FirstPass, decode_line
from pie_cli.engine.protocol import (
    Capability,
    Decoding,
    Engine,
    Line,
    RecomputeStep,
    ShouldStop,
    never,
)
from pie_cli.keeping import KeptCache
from pie_cli.plan.plan import Alignment, Plan, make_plan
from pie_cli.prompt.tokenizer import TextTokenizer

ROOT = Path(__file__).parent.parent
NEWLINE = 10


class HashRows:
    """Rows that know one best token each."""

    def __init__(self, states: Sequence[int]) -> None:
        self._states = states

    def __len__(self) -> int:
        return len(self._states)

    def best(self, first: int, stop: int | None = None) -> list[Choice]:
        states = self._states[first:stop]
        return [Choice(97 + state % 26 if state % 7 else NEWLINE, 1.0) for state in states]

    def best_among(self, row: int, allowed: Sequence[int]) -> Choice:
        return Choice(allowed[self._states[row] % len(allowed)], 1.0)


class ListEngine(Engine):
    """A token's state is a number made of its id, its position and the state before it."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.states: list[int] = []
        self.computed = 0
        self._ahead: tuple[HashRows, tuple[int, ...]] | None = None

    @property
    def capability(self) -> Capability:
        return Capability(edits=True, chunk_tokens=7)

    @property
    def memory_bytes(self) -> int:
        return 8 * len(self.states)

    def plan(self, strategy: str, alignment: Alignment, repair: Sequence[int] = ()) -> Plan:
        return make_plan(strategy, alignment, repair)

    def find_snapshots(self, token_ids: Sequence[int], start: int) -> tuple[range, ...]:
        return ()

    def keep_snapshots(
        self, token_ids: Sequence[int], exact_until: int, should_stop: ShouldStop
    ) -> None:
        """Keep nothing."""

    def begin(self, length: int) -> None:
        self.ids, self.states = [0] * length, [0] * length

    def _compute(self, position: int, token_id: int) -> int:
        before = self.states[position - 1] if position else 1
        self.states[position] = (31 * before + token_id * (position + 1)) % 1_000_003
        self.ids[position] = token_id
        self.computed += 1
        return self.states[position]

    def predict(
        self, plan: Plan, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        began = perf_counter()
        ids, states = self.ids, self.states
        self.begin(plan.length)
        for run in plan.kept:
            new = slice(run.new_start, run.new_stop)
            self.ids[new] = ids[run.old_start : run.old_stop]
            self.states[new] = states[run.old_start : run.old_stop]
        spliced = perf_counter()
        for position in plan.fresh:
            self._compute(position, token_ids[position])
        assert self.ids == list(token_ids)
        first = FirstPass(HashRows(self.states[-1:]), (), began, spliced)
        return self._decode(plan.length, first, decoding)

    def recompute(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: ShouldStop = never,
        draft: Sequence[int] = (),
    ) -> Iterator[RecomputeStep]:
        for begin in range(start, len(token_ids), chunk_tokens):
            if should_stop():
                return
            stop = min(begin + chunk_tokens, len(token_ids))
            for position in range(begin, stop):
                self._compute(position, token_ids[position])
            yield RecomputeStep(stop, 0.001)

    def predict_after(
        self, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        now = perf_counter()
        return self._decode(
            len(token_ids), FirstPass(HashRows(self.states[-1:]), (), now, now), decoding
        )

    def _decode(self, length: int, first: FirstPass, decoding: Decoding) -> Line:
        line = decode_line(self, length, first, decoding)
        self.truncate(length)
        return line

    def now(self) -> float:
        return perf_counter()

    def run(self, token_ids: Sequence[int]) -> HashRows:
        start = len(self.ids)
        self.ids += [0] * len(token_ids)
        self.states += [0] * len(token_ids)
        return HashRows(
            [self._compute(start + i, token_id) for i, token_id in enumerate(token_ids)]
        )

    def truncate(self, length: int) -> None:
        del self.ids[length:], self.states[length:]

    def clone(self) -> "ListEngine":
        twin = ListEngine()
        twin.ids, twin.states = list(self.ids), list(self.states)
        return twin


@pytest.fixture
def model() -> EditableModel:
    """Bytes as tokens, and the engine above."""
    alphabet = {chr(n): n for n in range(128)}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return EditableModel(
        name="numbers",
        device="cpu",
        dtype="float32",
        n_params=0,
        window=4_096,
        bos_id=None,
        eos_ids=frozenset(),
        tokenizer=TextTokenizer(tokenizer),
        fim=None,
        capability=Capability(edits=True, chunk_tokens=7),
        new_engine=lambda _: ListEngine(),
    )


TEXT = "".join(f"line {n} = {n * n}\n" for n in range(30))
EDITED = TEXT.replace("line 3 = 9\n", "line 3 = 10\nline 3b = 1\n")


def session_on(model: EditableModel, text: str) -> EditSession:
    session = EditSession(model, "a.py", Settings(at="end", max_tokens=12, strategy="pie+seam"))
    session.open(text)
    return session


def test_an_edit_is_answered_compared_and_exact_afterwards(model: EditableModel) -> None:
    session = session_on(model, TEXT)
    engine = session.engine
    assert isinstance(engine, ListEngine)
    engine.computed = 0
    prediction = session.update(Edit.between(TEXT, EDITED))
    assert not prediction.exact
    assert engine.computed < 0.3 * prediction.tokens.total
    comparison = session.compare()
    scratch = session_on(model, EDITED)
    assert isinstance(scratch.engine, ListEngine)
    assert engine.states == scratch.engine.states
    assert comparison is not None
    again = session.update(EDITED)
    assert again.exact
    assert again.text == comparison.text


def test_an_append_equals_a_session_opened_on_the_text(model: EditableModel) -> None:
    session = session_on(model, TEXT)
    prediction = session.update(TEXT + "last = 1\n")
    assert prediction.exact
    scratch = EditSession(model, "a.py", Settings(at="end", max_tokens=12, strategy="pie+seam"))
    assert prediction.text == scratch.open(TEXT + "last = 1\n").text


def test_an_engine_that_keeps_nothing_on_disk_goes_on_without(
    model: EditableModel, tmp_path: Path
) -> None:
    path = tmp_path / "kept" / "a.safetensors"
    for _ in range(2):
        settings = Settings(at="end", max_tokens=12, strategy="pie+seam")
        session = EditSession(model, "a.py", settings, KeptCache("numbers", path))
        assert session.open(TEXT).text == session_on(model, TEXT).open(TEXT).text
        assert session.from_disk == 0
        assert session.keep() == 0
        assert list(path.parent.iterdir()) in ([], [path])
        path.write_bytes(b"what another engine wrote")


@pytest.mark.parametrize(
    "module", ["session", "editable", "engine.protocol", "engine.decode", "workspace.pool"]
)
def test_what_a_session_needs_loads_no_torch(module: str) -> None:
    program = f"import pie_cli.{module}, sys; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
