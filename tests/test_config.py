"""Settings refuse what could only fail later."""

import dataclasses

import pytest

from pie_cli.config import COMPARISONS, DEVICES, DTYPES, Settings
from pie_cli.errors import DeviceError, InputError
from pie_cli.plan.strategies import BENCHED


def test_defaults_are_valid_and_fixed():
    settings = Settings()
    assert settings.model == "auto"
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.model = "other"


def test_every_choice_is_accepted():
    for strategy in BENCHED:
        assert Settings(strategy=strategy).strategy == strategy
    for compare in COMPARISONS:
        assert Settings(compare=compare).compare == compare
    for dtype in DTYPES:
        assert Settings(dtype=dtype).dtype == dtype
    for device in (*DEVICES, "cuda:3"):
        assert Settings(device=device).device == device
    for at in ("end", "1", "120", "120:7", "120:0"):
        assert Settings(at=at).at == at


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"device": "tpu"}, DeviceError),
        ({"device": "cuda:"}, DeviceError),
        ({"dtype": "int8"}, DeviceError),
        ({"strategy": "magic"}, InputError),
        ({"compare": "all"}, InputError),
        ({"at": "0"}, InputError),
        ({"at": "-3"}, InputError),
        ({"at": "middle"}, InputError),
        ({"max_tokens": 0}, InputError),
        ({"context_tokens": 3}, InputError),
        ({"debounce_ms": -1}, InputError),
        ({"chunk_tokens": 0}, InputError),
    ],
)
def test_what_no_option_can_take_is_refused_with_a_remedy(change, error):
    with pytest.raises(error) as caught:
        Settings(**change)
    assert caught.value.remedy
