"""Named gauges in expositions as vLLM, llama.cpp and GPU exporters write them."""

from __future__ import annotations

from engine.reconcilers.scaling.exposition import Gauges, gauges_of

VLLM = rb"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.3-70B-Instruct"} 3.0
vllm:num_requests_running{engine="1",model_name="a } \" 9 {"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 70.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:gpu_cache_usage_perc{engine="0"} 0.99
vllm:time_to_first_token_seconds_bucket{le="0.001"} 0.0
DCGM_FI_DEV_GPU_UTIL{gpu="0"} 80
DCGM_FI_DEV_GPU_UTIL{gpu="1"} 40 1700000000000
"""
LLAMA = b"""llamacpp:requests_processing 2
llamacpp:requests_deferred 1
llamacpp:kv_cache_usage_ratio 0.5
gpu_gfx_activity{gpu_id="0"} 150"""


def test_vllm() -> None:
    assert gauges_of(VLLM) == Gauges(running=7, waiting=2, kv_cache=0.5, gpu_utilisation=0.6)


def test_llama_cpp_on_amd() -> None:
    assert gauges_of(LLAMA) == Gauges(running=2, waiting=1, kv_cache=0.5, gpu_utilisation=1.0)


def test_both_beside_each_other() -> None:
    assert gauges_of(VLLM + LLAMA).running == 9


def test_what_is_not_there_or_not_a_number_is_not_known() -> None:
    nonsense = b'vllm:num_requests_running{\nvllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc{a="}\nmore 1\n'
    assert gauges_of(nonsense) == gauges_of(b"") == Gauges()
