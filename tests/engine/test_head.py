"""The best logits of a 16-bit model are the float32 products of its final state."""

import pytest
import torch
from transformers import LlamaForCausalLM

from pie_cli.engine.attention import install
from pie_cli.engine.forward import encode
from pie_cli.engine.head import CANDIDATES
from tests.engine.helpers import full_cache, make_llama, random_ids

IDS = random_ids(60)


def next_logits(model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits after a prompt, and the final state that they come from."""
    states: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    cache = full_cache(model, IDS)
    logits = encode(model, cache, IDS[-1:], range(len(IDS) - 1, len(IDS)), (0,))[0]
    hook.remove()
    return logits.clone(), states[-1][0, -1].clone()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_they_have_no_steps(dtype: torch.dtype) -> None:
    model = make_llama(dtype=dtype)
    install(model)
    logits, state = next_logits(model)
    exact = model.lm_head.weight.detach().float() @ state.float()
    best = exact.topk(20).indices
    torch.testing.assert_close(logits[best], exact[best], rtol=1e-5, atol=1e-4)
    # The control: the head's own answer is rounded.
    rounded = (model.lm_head(state).detach().float() - exact).abs()[best]
    assert float(rounded.max()) > 100 * float((logits[best] - exact[best]).abs().max())


def test_beyond_the_candidates_they_are_the_models_own() -> None:
    model = make_llama(dtype=torch.bfloat16)
    install(model)
    logits, state = next_logits(model)
    own = model.lm_head(state).detach().float()
    rest = own.topk(len(own)).indices[CANDIDATES + 5 :]
    assert torch.equal(logits[rest], own[rest])


def test_a_head_whose_output_is_scaled_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_llama(dtype=torch.bfloat16)
    install(model)
    model.lm_head.register_forward_hook(lambda _, __, output: output / 4)
    logits, state = next_logits(model)
    assert torch.equal(logits, model.lm_head(state).detach().float())


def test_float32_is_left_alone() -> None:
    model = make_llama()
    install(model)
    logits, state = next_logits(model)
    assert torch.equal(logits, model.lm_head(state[None]).detach()[0])
