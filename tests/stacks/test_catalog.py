"""The catalog's memory fit and its refusals."""

from decimal import Decimal

import pytest

from engine.model.errors import InvalidSpec
from stacks.catalog import GPU_TYPES, MODELS, choose, gpu_model_configs, hourly_usd


def test_fp8_is_chosen_when_16_bits_do_not_fit_one_h100() -> None:
    placement = choose("llama-3.3-70b-instruct", "h100", "nyc2")
    assert placement.checkpoint.dtype == "fp8"
    assert placement.max_context_tokens >= 8192


def test_16_bits_are_kept_where_they_fit() -> None:
    assert choose("llama-3.3-70b-instruct", "mi300x", "nyc2").checkpoint.dtype == "fp16"


def test_eight_gpus_are_all_used() -> None:
    args = choose("llama-3.1-405b-instruct", "mi300x_8", "atl1").vllm_args
    assert args[args.index("--tensor-parallel-size") + 1] == "8"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"model_id": "gpt-9"}, "llama-3.3-70b-instruct"),
        ({"gpu_type": "a100"}, "mi300x_8"),
        ({"region": "lon1"}, "ric1"),
        ({"preset": "turbo"}, "balanced"),
        ({"model_id": "llama-3.1-405b-instruct"}, "mi325x_8"),
        ({"gpu_type": "mi300x", "preset": "latency"}, "h100"),
        ({"preset": "speed"}, "mi300x"),
    ],
)
def test_refusal_names_the_valid_ones(change: dict[str, str], names: str) -> None:
    asked = {"model_id": "llama-3.3-70b-instruct", "gpu_type": "h100", "region": "nyc2"} | change
    with pytest.raises(InvalidSpec) as caught:
        choose(**asked)
    assert names in caught.value.message
    assert names in caught.value.details["valid"]


def test_prices_are_the_documented_ones() -> None:
    documented = {"h100": "4.41", "mi300x": "2.59", "mi300x_8": "20.70", "mi325x": "2.98", "mi325x_8": "23.82"}
    assert {g: hourly_usd(g) for g in GPU_TYPES} == {g: Decimal(p) for g, p in documented.items()}


def test_every_listed_configuration_can_be_chosen() -> None:
    listed = gpu_model_configs()
    assert {c["model_id"] for c in listed} == set(MODELS)
    for config in listed:
        assert choose(config["model_id"], config["gpu_type"], "tor1").checkpoint.dtype == config["dtype"]
