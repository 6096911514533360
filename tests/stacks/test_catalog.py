"""The catalog's memory fit and its refusals."""

from decimal import Decimal

import pytest

from engine.model.errors import InvalidSpec
from stacks.catalog import GPU_TYPES, MODELS, PRESETS, REGIONS, choose, gpu_model_configs, hourly_usd
from stacks.vllm_options import check_for_catalog, value_of


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
        ({"preset": "speed", "model_id": "qwen2.5-72b-instruct"}, "mi300x"),
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


def test_presets_are_the_documented_ones() -> None:
    """16 bits and a big batch, drafts and a small one, 8 bits, 16 bits and vLLM's own batch; on AINative's GPUs."""
    small = {slug: choose("llama-3.1-8b-instruct", p.gpu_type, "nyc2", slug) for slug, p in PRESETS.items()}
    assert {slug: p.gpu.slug for slug, p in small.items()} == {
        "speed": "h100", "latency": "h100", "cost": "mi300x", "balanced": "mi300x",
    }  # fmt: skip
    assert {slug: p.checkpoint.dtype for slug, p in small.items()} == {
        "speed": "fp16", "latency": "fp16", "cost": "int8", "balanced": "fp16",
    }  # fmt: skip
    args = {slug: p.vllm_args for slug, p in small.items()}
    assert value_of(args["speed"][2:], "--dtype") == value_of(args["balanced"][2:], "--dtype") == "float16"
    assert value_of(args["speed"][2:], "--max-num-seqs") == "512"
    assert value_of(args["latency"][2:], "--max-num-seqs") == "8" and "--speculative-config" in args["latency"]
    assert value_of(args["cost"][2:], "--quantization") == "compressed-tensors"
    assert value_of(args["balanced"][2:], "--max-num-seqs") is None
    assert [slug for slug, p in PRESETS.items() if p.scale_to_zero] == ["cost"]


def test_preset_takes_what_fits_and_says_so() -> None:
    """The document applies `speed` (16 bits, one H100) to a model that has 132 GiB in 16 bits."""
    placement = choose("llama-3.3-70b-instruct", "h100", "nyc2", "speed")
    assert placement.checkpoint.dtype == "fp8" and "it runs as fp8" in placement.note
    assert value_of(placement.vllm_args[2:], "--dtype") == "auto"
    assert choose("llama-3.1-8b-instruct", "h100", "nyc2", "speed").note == ""


def test_every_placement_is_started_with_options_vllm_has() -> None:
    for gpu in GPU_TYPES:
        for model in MODELS:
            for preset in (None, *(slug for slug, p in PRESETS.items() if p.gpu_type == gpu)):
                try:
                    args = choose(model, gpu, "nyc2", preset).vllm_args
                except InvalidSpec as err:
                    assert "does not fit" in err.message
                else:
                    assert check_for_catalog(args) == args


def test_memory_for_own_weights_shrinks_the_models_share() -> None:
    alone, beside = (choose("llama-3.1-8b-instruct", "h100", "nyc2", reserved_gib=r) for r in (0.0, 55.0))
    assert value_of(alone.vllm_args[2:], "--gpu-memory-utilization") == "0.92"
    assert value_of(beside.vllm_args[2:], "--gpu-memory-utilization") == "0.2325"
    assert beside.max_context_tokens < alone.max_context_tokens
    with pytest.raises(InvalidSpec, match="beside 30 GiB for own weights") as refused:
        choose("llama-3.3-70b-instruct", "h100", "nyc2", reserved_gib=30)
    assert "mi300x" in refused.value.details["valid"] and "nyc2" in REGIONS


def test_users_options_take_the_place_of_the_presets() -> None:
    args = choose(
        "llama-3.1-8b-instruct", "h100", "nyc2", "speed", vllm_args=["--max_num_seqs=64", "--no-enable-prefix-caching"]
    ).vllm_args
    assert args.count("--max-num-seqs") == 1 and args[-3:] == ("--max-num-seqs", "64", "--no-enable-prefix-caching")
    with pytest.raises(InvalidSpec, match=r"\(256\) is smaller than --max-num-seqs \(512\)"):
        choose("llama-3.1-8b-instruct", "h100", "nyc2", "speed", vllm_args=["--max-num-batched-tokens", "256"])
    with pytest.raises(InvalidSpec, match="async-scheduling does not go with"):
        choose("llama-3.1-8b-instruct", "h100", "nyc2", "latency", vllm_args=["--async-scheduling"])
    with pytest.raises(InvalidSpec, match="room for 12288 tokens") as refused:
        choose("llama-3.3-70b-instruct", "h100", "nyc2", vllm_args=["--max-model-len", "128k"])
    assert (refused.value.details["limit"], refused.value.details["asked"]) == (12288, 128_000)
