"""Room for own weights beside catalog models, and the catalog's own answer to what is taken from it."""

from __future__ import annotations

import pytest

from engine.model.deployment import DeploymentSpec
from engine.model.errors import InvalidSpec
from stacks import catalog
from stacks.byom_room import own_gpu, room_gib


def spec(**changes: object) -> DeploymentSpec:
    asked = {"name": "d", "model_id": "llama-3.1-8b-instruct", "gpu_type": "h100", "region": "nyc2"} | changes
    return DeploymentSpec.model_validate(asked)


@pytest.mark.parametrize(
    ("model", "gpu"), [(config["model_id"], config["gpu_type"]) for config in catalog.gpu_model_configs()]
)
def test_all_room_can_be_reserved_and_nothing_more(model: str, gpu: str) -> None:
    """The model keeps its weights and its shortest context with exactly that much taken."""
    chosen = catalog.choose(model, gpu, "nyc2")
    room = room_gib(spec(model_id=model, gpu_type=gpu))
    left = catalog.choose(model, gpu, "nyc2", reserved_gib=room)
    assert (left.checkpoint, left.max_context_tokens) == (chosen.checkpoint, catalog.MIN_CONTEXT_TOKENS)
    try:
        more = catalog.choose(model, gpu, "nyc2", reserved_gib=room + 1.0)
    except InvalidSpec:
        return
    assert more.checkpoint != chosen.checkpoint  # smaller weights, which nobody asked for


def test_context_its_owner_asked_for_is_kept() -> None:
    asked = spec(vllm_args=("--max-model-len", "65536"))
    assert room_gib(spec()) - room_gib(asked) == pytest.approx(0.125 * 56, abs=0.02)


def test_own_weights_alone_have_the_whole_machine() -> None:
    assert room_gib(spec(model_id="byom:m", gpu_type="mi300x_8")) == 1413.12
    for field, value in (("gpu_type", "b200"), ("region", "mars")):
        with pytest.raises(InvalidSpec, match=f"unknown {field}"):
            own_gpu(**({"gpu_type": "h100", "region": "nyc2"} | {field: value}))
