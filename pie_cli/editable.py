"""A model made ready for sessions: how its text becomes ids, what its cache can do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli.engine.protocol import Capability, Engine
from pie_cli.errors import DeviceError, ModelError
from pie_cli.plan.pace import Pace
from pie_cli.prompt.fim import FimFormat, find_format
from pie_cli.prompt.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from pie_cli.engine.gate.verdicts import GateReport, PlainAbility, Verdict
    from pie_cli.engine.rope import ModelRotation
    from pie_cli.models.loading import LoadedModel


@dataclass(frozen=True, eq=False)
class EditableModel:
    """What a session needs of a model, whichever engine runs it.

    Attributes:
        name: what to call it in results.
        device: "cpu", "cuda", "cuda:N" or "mps"; "map" for several.
        dtype: "float32", "bfloat16" or "float16".
        n_params: parameters.
        window: positions that it was made for.
        bos_id: the token id a prompt begins with, or None.
        eos_ids: the token ids that end a text.
        tokenizer: pie's view of its tokenizer.
        fim: how it fills in a middle, or None where its tokenizer has no known tokens for that.
        capability: what its cache can do.
        new_engine: makes an empty engine, with so many slots to begin with.
        pace: what its passes cost on this machine.
        weights: "full" or "int8".
        identity: tells apart models that compute differently, also from run to run; None where
            nobody knows.
    """

    name: str
    device: str
    dtype: str
    n_params: int
    window: int
    bos_id: int | None
    eos_ids: frozenset[int]
    tokenizer: TextTokenizer
    fim: FimFormat | None
    capability: Capability
    new_engine: Callable[[int], Engine]
    pace: Pace = field(default_factory=Pace, kw_only=True)
    weights: str = field(default="full", kw_only=True)
    identity: str | None = field(default=None, kw_only=True)

    @property
    def notice(self) -> str | None:
        """Why this model's cache is not edited, or not always, and what runs then; one line."""
        limit = self.capability.limit
        if limit is None:
            return None
        return (
            f"the cache is edited up to {limit:,} tokens; "
            "longer prompts run exact, by full recompute"
        )


@dataclass(frozen=True, eq=False)
class PreparedModel(EditableModel):
    """A model that transformers loaded, and the gate's verdict on it.

    Attributes:
        loaded: the model, its tokenizer and facts.
        verdict: what the gate found.
    """

    loaded: "LoadedModel"
    verdict: "Verdict"

    @property
    def gate(self) -> "GateReport | None":
        """What the gate found and measured; None where it refused the model."""
        return self.verdict.report

    @property
    def refusal(self) -> str | None:
        """Why the gate refused the model, in one line, or None."""
        return self.verdict.refusal

    @property
    def ability(self) -> "PlainAbility | None":
        """What the cache of a refused model can do, or None."""
        return self.verdict.ability

    @property
    def rotation(self) -> "ModelRotation":
        """How the model rotates its keys.

        Raises:
            ModelError: when the gate refused the model.
        """
        if self.gate is None:
            raise ModelError(
                f"the cache of {self.name} is not edited: {self.refusal}",
                "give a model whose cache can be edited; pie doctor --model NAME tells",
            )
        return self.gate.rotation

    @property
    def notice(self) -> str | None:
        """Why this model's cache or a middle is used less than it might be; one line."""
        cache = super().notice
        if self.gate is None:
            cache = f"the cache is not edited: {self.refusal}; runs {self.capability.instead}"
        return "; ".join(filter(None, (cache, self.no_fim))) or None

    @property
    def no_fim(self) -> str | None:
        """Why no middle is filled in though the tokenizer has tokens for it; one line, or None."""
        loaded, token_id = self.loaded, self.tokenizer.token_id
        known = find_format(token_id, loaded.fim_ids)
        if known is None or find_format(token_id, loaded.fim_ids, loaded.rows) is not None:
            return None
        return (
            f"no middle is filled in: tokens of {known.family} for it lie beyond the model's"
            f" {loaded.rows:,} rows"
        )


def prepare(loaded: "LoadedModel", *, remember: bool = True) -> PreparedModel:
    """Run the gate, which installs the engine's attention, or take over its verdict.

    A model that it refuses is ready as well: its own cache is used, exactly.

    Args:
        loaded: from `load`.
        remember: whether an earlier verdict is taken over, and this one kept.

    Raises:
        ModelError: when the model gives no predictions by any strategy.
        DeviceError: weights of eight bits asked for where there are no kernels for them.
        CacheCapacityError: when the device's memory does not suffice.
    """
    import torch

    from pie_cli.engine.crew import follow
    from pie_cli.engine.device import memory_sufficing
    from pie_cli.engine.gate.check import check_model
    from pie_cli.engine.gate.memory import identity, weights_sample
    from pie_cli.engine.gate.verdicts import UnusableModel
    from pie_cli.engine.gpu.replay import capture
    from pie_cli.engine.making import engine_maker
    from pie_cli.engine.packing import pack, pack_int8

    folder = loaded.model.name_or_path if remember else ""
    follow(loaded.model)
    # Before weights are packed.
    found = identity(loaded.model, Path(folder)) if folder else None
    sample = found and weights_sample(loaded.model)
    try:
        with memory_sufficing():
            verdict = check_model(loaded.model, Path(folder) if folder else None)
            if loaded.weights == "full":
                pack(loaded.model)
            elif not pack_int8(loaded.model):
                raise DeviceError(
                    f"torch {torch.__version__} does not multiply weights of eight bits on"
                    f" {loaded.device}",
                    "leave --weights int8 out",
                )
            if verdict.report is not None:
                capture(loaded.model, verdict.report.rotation)
    except UnusableModel as error:
        raise ModelError(f"{loaded.name} cannot be used: {error.reason}", error.remedy) from error
    tokenizer = TextTokenizer(loaded.tokenizer)
    new_engine = engine_maker(loaded.model, verdict)
    return PreparedModel(
        name=loaded.name,
        device=loaded.device,
        dtype=loaded.dtype,
        n_params=loaded.n_params,
        window=loaded.window,
        bos_id=loaded.bos_id,
        eos_ids=loaded.eos_ids,
        tokenizer=tokenizer,
        fim=find_format(tokenizer.token_id, loaded.fim_ids, loaded.rows),
        capability=new_engine(0).capability,
        new_engine=new_engine,
        weights=loaded.weights,
        identity=found and f"{found}-{sample}-{loaded.weights}",
        loaded=loaded,
        verdict=verdict,
    )
