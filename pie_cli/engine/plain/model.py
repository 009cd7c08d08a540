"""A model on transformers' own cache: what that cache can do, found by trying."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from pie_cli.engine.attention import NAME, implementation, stock_attention
from pie_cli.engine.choosing import Choice
from pie_cli.engine.decode import answer_of, take
from pie_cli.engine.device import stamp
from pie_cli.engine.forward import keeps_logits
from pie_cli.engine.gate.key_fit import relative_error, tolerance_of
from pie_cli.engine.gate.verdicts import PlainAbility, UnusableModel
from pie_cli.engine.model import CausalModel, reaches, text_config, vocabulary, window
from pie_cli.engine.protocol import Decoding, Line, StoppedBy
from pie_cli.engine.stock import stock_cache
from pie_cli.models.quiet import hushed

# Names under which models return their cache, and take it back.
_CACHES = ("past_key_values", "cache_params", "state")

_N_TOKENS = 24
_KEPT = 12
# Windows up to this size are crossed when a cache is tried; each trial costs such a prompt.
_TRIED_WINDOW = 1_024
_MAX_TRIAL = _N_TOKENS + _TRIED_WINDOW

# Largest relative error of logits, by dtype; a cache that lost or mixed up tokens has 0.1 and more.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class PlainState:
    """A sequence as transformers' own cache holds it.

    Args:
        model: any.
        ability: of its cache.
    """

    def __init__(self, model: CausalModel, ability: PlainAbility) -> None:
        self._model = model
        self._ability = ability
        self._cache: Any = None
        if ability.crops:
            self._cache = stock_cache()
        elif ability.steps and not ability.copies:
            # Such models return no cache; they go on with one that they were given.
            self._cache = stock_cache(text_config(model))
        self._name = _CACHES[0]
        self._token_ids: list[int] = []

    def __len__(self) -> int:
        return len(self._token_ids)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the tensors in the cache."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(self._cache))

    @torch.inference_mode()
    def run(self, token_ids: Sequence[int], rows: int) -> Tensor:
        """Append tokens; return the logits after the last `rows`, float32 [rows, vocabulary]."""
        if not self._ability.steps:
            self._token_ids += token_ids
            return whole_logits(self._model, self._token_ids, rows)
        if self._token_ids and len(token_ids) > 1 and not self._ability.appends:
            return torch.cat([self.run([token_id], 1) for token_id in token_ids])[-rows:]
        self._token_ids += token_ids
        inputs = _inputs(self._model, token_ids, rows)
        if self._cache is not None:
            inputs[self._name] = self._cache
        with as_stock(self._model):
            output = self._model(**inputs, use_cache=True)
        for name in _CACHES:
            if getattr(output, name, None) is not None:
                self._name, self._cache = name, getattr(output, name)
                break
        logits: Tensor = output.logits[0, -rows:].float()
        return logits

    @torch.inference_mode()
    def crop(self, length: int) -> None:
        """Forget every token from `length` on, where the cache can."""
        excess = len(self) - length
        if excess > 0 and self._ability.crops:
            self._cache.crop(-excess)
        del self._token_ids[length:]

    @torch.inference_mode()
    def copy(self) -> "PlainState":
        """Copy the cache, the model shared."""
        twin = PlainState(self._model, self._ability)
        twin._cache, twin._name = copy.deepcopy(self._cache), self._name
        twin._token_ids = list(self._token_ids)
        return twin


def as_stock(model: CausalModel) -> AbstractContextManager[None]:
    """Run the model with transformers' own attention, whichever is installed."""
    return stock_attention(model) if implementation(model) == NAME else nullcontext()


@torch.inference_mode()
def whole_logits(model: CausalModel, token_ids: Sequence[int], rows: int) -> Tensor:
    """Run a whole sequence without a cache; float32 [rows, vocabulary], of its last rows."""
    with as_stock(model):
        logits: Tensor = model(**_inputs(model, token_ids, rows), use_cache=False).logits
    return logits[0, -rows:].float()


def _inputs(model: CausalModel, token_ids: Sequence[int], rows: int) -> dict[str, Any]:
    """Return a model's inputs; the LM head runs for the last rows only, where it can."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([list(token_ids)], device=model.device)}
    if keeps_logits(type(model)):
        inputs["logits_to_keep"] = rows
    return inputs


def find_ability(model: CausalModel) -> PlainAbility:
    """Try what the model's own cache can do; what it gets wrong it is not trusted with.

    Each trial is compared with the forward pass over the whole sequence. The sequence is longer
    than the windows of the model, if these are short; a model with longer ones keeps its own
    cache, which is not cropped.

    Raises:
        UnusableModel: when not even a plain forward pass gives logits.
    """
    with torch.inference_mode(), hushed():
        longest = window(model)
        windows = [reach for reach in reaches(model) if longest is None or reach < longest]
        short = [reach for reach in windows if reach <= _TRIED_WINDOW]
        length = min(_N_TOKENS + max(short, default=0), longest or _MAX_TRIAL)
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(vocabulary(model), (length + _KEPT,), generator=generator).tolist()
        trials = _Trials(model, ids[:length], ids[: length - _KEPT] + ids[length:])
        for ability in _abilities(crops=len(short) == len(windows)):
            if trials.passes(ability):
                return ability
    return PlainAbility(crops=False, appends=False, steps=False, copies=False)


def _abilities(crops: bool) -> Iterator[PlainAbility]:
    """List what a cache may be able to do, the most useful first."""
    if crops:
        yield PlainAbility(crops=True, appends=True, steps=True, copies=True)
    yield PlainAbility(crops=False, appends=True, steps=True, copies=True)
    yield PlainAbility(crops=False, appends=False, steps=True, copies=True)
    yield PlainAbility(crops=False, appends=False, steps=True, copies=False)


class _Trials:
    """Two sequences that part before their last tokens, and what the model says of each."""

    def __init__(self, model: CausalModel, one: list[int], other: list[int]) -> None:
        self._model = model
        self._sequences = (one, other)
        try:
            self._expected = whole_logits(model, other, _KEPT)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UnusableModel(f"its forward pass fails: {reason}", "") from error
        self._tolerance = tolerance_of(_TOLERANCE, model.dtype)

    def passes(self, ability: PlainAbility) -> bool:
        """Whether a cache used in this way gives the logits that it should."""
        try:
            return self._error(ability) <= self._tolerance
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - a cache that cannot be used like this may raise anything
            return False

    def _error(self, ability: PlainAbility) -> float:
        (one, other), expected = self._sequences, self._expected
        split = len(one) - _KEPT
        state = PlainState(self._model, ability)
        if ability.crops:
            state.run(one, 1)
            state.crop(split)
        else:
            state.run(one[:split], 1)
        if ability.copies:
            # A copy must not share anything with what goes on from it.
            state.copy().run(one[split:], 1)
        found = state.run(other[split:-1], _KEPT - 1), state.run(other[-1:], 1)
        return relative_error(torch.cat(found), expected)


def _tensors(held: Any) -> Iterator[Tensor]:
    """Walk through whatever a cache is made of."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for inner in held.values():
            yield from _tensors(inner)
    elif isinstance(held, (list, tuple)):
        for inner in held:
            yield from _tensors(inner)
    elif type(held).__module__.startswith("transformers."):
        yield from _tensors(vars(held))


class _LineEnd(StoppingCriteria):
    """Ends generation where the engine's own decoding ends a line."""

    def __init__(self, prompt_length: int, decoding: Decoding) -> None:
        self._prompt_length = prompt_length
        self._decoding = decoding
        self.token_ids: tuple[int, ...] = ()
        self.stopped_by: StoppedBy | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        # `generate` gives no margins: they count as unknown, that is as none.
        choices = [Choice(i, 0.0) for i in input_ids[0, self._prompt_length :].tolist()]
        line, self.stopped_by = take([], choices, self._decoding)
        self.token_ids = tuple(choice.token_id for choice in line)
        if self.stopped_by is None and self._decoding.should_stop():
            self.stopped_by = "interrupted"
        return torch.full((1,), self.stopped_by is not None, device=input_ids.device)


@torch.inference_mode()
def generate(model: CausalModel, token_ids: Sequence[int], decoding: Decoding, begun: Line) -> Line:
    """Predict a line by the model's own `generate`, greedily.

    Args:
        model: any.
        token_ids: of the prompt.
        decoding: what ends the line.
        begun: the line as far as it got; gives the times of the first token.
    """
    end = _LineEnd(len(token_ids), decoding)
    inputs = torch.tensor([list(token_ids)], device=model.device)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=decoding.max_tokens,
        pad_token_id=0,
        use_cache=True,
    )
    with as_stock(model), hushed():
        cast(Any, model).generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([end]),
        )
    answer = answer_of(end.token_ids, decoding)
    return replace(
        begun,
        token_ids=end.token_ids,
        text=answer.text,
        completes_line=answer.completes_line,
        stopped_by=end.stopped_by or "max_tokens",
        margins=(0.0,) * len(end.token_ids),
        passes=begun.passes + len(end.token_ids),
        ended_at=stamp(model.device),
    )
