"""Train pie-nano.

    python -m pie_cli.models.nano.recipe.train CORPUS.jsonl.gz TOKENIZER_DIR RUN_DIR [options]

Runs on one CUDA GPU or on CPU, in bfloat16 (master weights float32). A checkpoint is written every
`--save-minutes`, at the end and on Ctrl-C; the same command continues from it, with the same data
order. `--stop-after-minutes` ends a run early and cleanly, so that a long training splits into
short calls. `--export DIR` writes the model folder when training is complete, as pie embeds it.
"""

import argparse
import hashlib
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from pie_cli.errors import InputError, PieError
from pie_cli.models.nano.recipe.stream import Stream, read_files

SHAPES = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
    },
    "full": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
    },
}
SCHEDULES = {
    "small": "512:5M,1024:2.5M,2048:1.5M,4096:0.5M",
    "full": "1024:250M,2048:300M,4096:50M",
}
BATCH_TOKENS = {"small": 8_192, "full": 131_072}


@dataclass(frozen=True)
class Phase:
    """A stretch of the training at one sequence length."""

    length: int
    tokens: int


@dataclass(frozen=True)
class Settings:
    """What determines a run's result, beside the corpus; kept in the checkpoint."""

    shape: str
    batch_tokens: int
    muon_lr: float
    adam_lr: float
    weight_decay: float
    warmup: float
    decay: float
    seed: int


def parse_schedule(text: str) -> tuple[Phase, ...]:
    """Parse `length:tokens,...`, tokens with an optional M.

    Raises:
        InputError: on anything else.
    """
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple(
            Phase(int(n), int(float(t.rstrip("M")) * (1e6 if "M" in t else 1))) for n, t in pairs
        )
    except ValueError:
        raise InputError(f"bad schedule {text!r}", "write it as 512:8M,2048:2M") from None


def build_model(shape: str, vocab_size: int, window: int) -> LlamaForCausalLM:
    """Return a freshly initialised model of a named shape: DeepSeek-Coder's little sister."""
    sizes: dict[str, Any] = SHAPES[shape]
    config = LlamaConfig(
        **sizes,
        vocab_size=vocab_size,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=window,
        rope_parameters={"rope_theta": 100_000.0, "rope_type": "default"},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        rms_norm_eps=1e-6,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def make_optimizers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices,
            lr=settings.muon_lr,
            weight_decay=settings.weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=settings.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(done: int, total: int, settings: Settings) -> float:
    """Warm up, hold, decay linearly to zero; `done` and `total` in tokens."""
    share = done / total
    if share < settings.warmup:
        return max(share, 1e-3) / settings.warmup
    return min(1.0, (1 - share) / settings.decay)


@dataclass
class Progressed:
    """How far a run is: all that resuming needs beside weights and optimiser states."""

    step: int = 0
    tokens: int = 0
    phase: int = 0
    sequences: int = 0
    seconds: float = 0.0


def batches_from(stream: Stream, start: int, batch: int, workers: int) -> Iterator[Tensor]:
    """Yield batches [batch, length + 1] from sequence `start` on, prepared by worker processes."""
    indices = range(start, start + 10**9 * batch)
    return iter(
        DataLoader(stream, batch, sampler=indices, num_workers=workers, collate_fn=torch.tensor)
    )


def rewind_log(folder: Path, step: int) -> None:
    """Drop the steps behind a checkpoint from a run's log: they will be taken again."""
    log = folder / "log.jsonl"
    if log.exists():
        rows = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(rows[:step]), encoding="utf-8")


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer's folder.

    Raises:
        InputError: when there is none.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"there is no {path}", "make one: python -m pie_cli.models.nano.recipe.tokenizer"
        )
    return Tokenizer.from_file(str(path))


class Trainer:
    """One training run in a folder: model, optimisers, position, checkpoint."""

    def __init__(
        self,
        settings: Settings,
        schedule: tuple[Phase, ...],
        tokenizer: Tokenizer,
        folder: Path,
        device: str,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.schedule, self.folder = settings, schedule, folder
        self.device = torch.device(device)
        window = max(phase.length for phase in schedule)
        self.model = cast(Any, build_model(settings.shape, tokenizer.get_vocab_size(), window))
        self.model.to(self.device)
        self.optimizers = make_optimizers(self.model, settings)
        self.base_lrs = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.at = Progressed()
        self._forward = torch.compile(self._loss) if self.device.type == "cuda" else self._loss

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole schedule."""
        return sum(phase.tokens for phase in self.schedule)

    def _loss(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = self.model.model(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden)
        targets = batch[:, 1:].flatten()
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets)

    def step(self, batch: Tensor, micro_sequences: int) -> float:
        """Take one optimiser step over a batch [B, length + 1]; returns the mean loss in nats."""
        factor = learning_rate_factor(self.at.tokens, self.total_tokens, self.settings)
        total = torch.zeros((), device=self.device)
        parts = torch.split(batch.to(self.device, non_blocking=True), micro_sequences)
        for part in parts:
            loss = self._forward(part) * (len(part) / len(batch))
            torch.autograd.backward(loss)
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rates in zip(self.optimizers, self.base_lrs, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.at.step += 1
        self.at.sequences += len(batch)
        self.at.tokens += batch[:, 1:].numel()
        return float(total)

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace that: a crash leaves it whole.

        Raises:
            InputError: when the disk is full or the folder cannot be written.
        """
        partial, final = self.folder / "checkpoint.partial", self.folder / "checkpoint.pt"
        state = {
            "settings": asdict(self.settings),
            "at": asdict(self.at),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        try:
            torch.save(state, partial)
            partial.replace(final)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise InputError(
                f"cannot write {final}: {error}", "free some space; the last checkpoint is intact"
            ) from error

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one.

        Raises:
            InputError: when the checkpoint belongs to a run with other settings.
        """
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise InputError(
                f"{path} is of a run with other settings: {state['settings']}",
                "repeat those, or name another folder",
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.at = Progressed(**state["at"])
        return True

    def export(self, folder: Path, tokenizer: Path) -> None:
        """Write a model folder as pie embeds it: weights in bfloat16, tokenizer, checksums."""
        self.model.config.use_cache = True
        model = cast(Any, LlamaForCausalLM(self.model.config))
        model.to(torch.bfloat16)
        model.load_state_dict(self.model.state_dict())
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, folder / name)
        sums = [
            f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
            for name in ("model.safetensors", "tokenizer.json")
        ]
        (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def train(trainer: Trainer, streams: list[Stream], options: argparse.Namespace) -> bool:
    """Run the schedule from where the trainer stands, with checkpoints; returns whether it ended.

    Raises:
        InputError: when the loss is no number any more, or a checkpoint cannot be written.
    """
    stop = _StopOnSignal()
    started = saved = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, disable=not sys.stderr.isatty()) as bar,
        (trainer.folder / "log.jsonl").open("a", encoding="utf-8", buffering=1) as log,
    ):
        task = bar.add_task("training", total=trainer.total_tokens)
        for row in _steps(trainer, streams, options):
            log.write(json.dumps(row) + "\n")
            label = f"step {row['step']}  loss {row['loss']:.3f}  {row['tokens_per_s']:,} tokens/s"
            bar.update(task, completed=trainer.at.tokens, description=label)
            now = time.monotonic()
            if stop.requested or now - started > 60 * options.stop_after_minutes:
                break
            if now - saved > 60 * options.save_minutes:
                trainer.save()
                saved = now
        trainer.save()
    return trainer.at.tokens >= trainer.total_tokens


def _steps(
    trainer: Trainer, streams: list[Stream], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Take the steps that are left, phase by phase; yields a row of the log behind each."""
    at, settings = trainer.at, trainer.settings
    while at.phase < len(trainer.schedule):
        length = trainer.schedule[at.phase].length
        end = sum(phase.tokens for phase in trainer.schedule[: at.phase + 1])
        sequences = max(1, settings.batch_tokens // length)
        micro = max(1, options.micro_tokens // length)
        batches = batches_from(streams[at.phase], at.sequences, sequences, options.workers)
        while at.tokens < end:
            begun = time.monotonic()
            loss = trainer.step(next(batches), micro)
            seconds = time.monotonic() - begun
            at.seconds += seconds
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} at step {at.step}",
                    "lower --muon-lr; the last checkpoint is intact",
                )
            rate = round(sequences * length / seconds)
            # A phase that is done is left before anyone can save: at its end the next one begins.
            if at.tokens >= end:
                at.phase, at.sequences = at.phase + 1, 0
            yield {**asdict(at), "length": length, "loss": round(loss, 4), "tokens_per_s": rate}


class _StopOnSignal:
    """Notes the first SIGINT or SIGTERM, so that the run ends behind a step."""

    def __init__(self) -> None:
        self.requested = False
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._request)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m pie_cli.models.nano.recipe.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("corpus", type=Path)
    add("tokenizer", type=Path, help="folder with tokenizer.json")
    add("run", type=Path, help="folder of checkpoint and log")
    on_gpu = torch.cuda.is_available()
    shape = "full" if on_gpu else "small"
    add("--shape", choices=sorted(SHAPES), default=shape, help="default here: %(default)s")
    add("--schedule", help="length:tokens,... (default: by shape)")
    add(
        "--batch-tokens",
        type=int,
        default=None,
        help="tokens of an optimiser step (default: by shape)",
    )
    add(
        "--micro-tokens",
        type=int,
        default=None,
        help="tokens of a forward pass (default: by device)",
    )
    add("--muon-lr", type=float, default=0.006)
    add("--adam-lr", type=float, default=0.004)
    add("--weight-decay", type=float, default=0.05)
    add("--warmup", type=float, default=0.02, help="share of the tokens")
    add("--decay", type=float, default=0.5, help="share of the tokens")
    add("--seed", type=int, default=2407)
    add("--device", default="cuda" if on_gpu else "cpu")
    add(
        "--workers", type=int, default=None, help="processes that prepare data (default: by device)"
    )
    add("--save-minutes", type=float, default=0.5, help="between two checkpoints")
    add("--stop-after-minutes", type=float, default=math.inf, help="end this call, not the run")
    add("--export", type=Path, help="model folder to write when the schedule is complete")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 complete, 3 stopped before the end."""
    options = build_parser().parse_args(arguments)
    on_gpu = options.device.startswith("cuda")
    options.micro_tokens = options.micro_tokens or (65536 if on_gpu else 4096)
    options.workers = options.workers or (12 if on_gpu else 0)
    batch_tokens = options.batch_tokens or BATCH_TOKENS[options.shape]
    try:
        settings = Settings(
            options.shape,
            batch_tokens,
            options.muon_lr,
            options.adam_lr,
            options.weight_decay,
            options.warmup,
            options.decay,
            options.seed,
        )
        schedule = parse_schedule(
            SCHEDULES[options.shape] if options.schedule is None else options.schedule
        )
        files = read_files(options.corpus)
        tokenizer = read_tokenizer(options.tokenizer)
        options.run.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(settings, schedule, tokenizer, options.run, options.device)
        if trainer.resume():
            rewind_log(options.run, trainer.at.step)
            print(
                f"continuing at step {trainer.at.step}, {trainer.at.tokens:,} tokens",
                file=sys.stderr,
            )
        streams = [Stream(files, tokenizer, phase.length, options.seed) for phase in schedule]
        complete = train(trainer, streams, options)
    except PieError as error:
        print(f"train: {error}", file=sys.stderr)
        return int(error.exit_code)
    if complete and options.export:
        trainer.export(options.export, options.tokenizer)
    state = "complete" if complete else "stopped"
    print(f"{state} at step {trainer.at.step}, {trainer.at.tokens:,} tokens")
    return 0 if complete else 3


if __name__ == "__main__":
    raise SystemExit(main())
