"""The options of `vllm serve` 0.11: what is written by the catalog, what users may add, what nobody may. Plain data.

Source: vLLM 0.11.0, `vllm/engine/arg_utils.py`, `vllm/entrypoints/openai/cli_args.py`, `vllm/config/`. An argument is
checked before machines are made: vLLM itself would refuse it twenty minutes later, on a machine that is paid for.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from engine.model.errors import InvalidSpec

VERSION = "0.11"
MOST_ARGUMENTS = 64
LONGEST_ARGUMENT = 2000


_Allowed = range | tuple[str, ...] | type[bool] | type[float]


class Kind(StrEnum):
    """How an option's value is written."""

    FLAG = "flag"  # `--name` or `--no-name`
    INT = "a whole number"
    TOKENS = "a whole number, or one with k, K, m, M, g or G"  # vLLM: human_readable_int
    FLOAT = "a number"
    WORD = "a word"
    JSON = "a JSON object"


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        choices: the values there are; empty: any of its kind.
        low, high: bounds of a number, both included.
        keys: what a JSON object may hold: of which type, which numbers or which words.
        required: keys it must hold.
    """

    name: str
    kind: Kind
    choices: Sequence[str] = ()
    low: float = 0
    high: float = float("inf")
    keys: Mapping[str, _Allowed] = field(default_factory=dict)
    required: Sequence[str] = ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PARSERS = _words(
    "deepseek_v3 deepseek_v31 glm45 granite granite-20b-fc hermes hunyuan_a13b internlm jamba kimi_k2 llama3_json "
    "llama4_json llama4_pythonic longcat minimax mistral openai phi4_mini_json pythonic qwen3_coder qwen3_xml seed_oss "
    "step3 xlam"
)
_THINKERS = _words("deepseek_r1 glm45 granite hunyuan_a13b mistral openai_gptoss qwen3 seed_oss step3")
_QUANTIZATIONS = _words(
    "awq deepspeedfp tpu_int8 fp8 ptpc_fp8 fbgemm_fp8 modelopt modelopt_fp4 bitblas gguf gptq_marlin_24 gptq_marlin "
    "gptq_bitblas awq_marlin gptq compressed-tensors bitsandbytes hqq experts_int8 ipex quark moe_wna16 torchao "
    "auto-round rtn inc mxfp4 petit_nvfp4"
)
_NGRAM: Mapping[str, _Allowed] = {
    "method": ("ngram",), "num_speculative_tokens": range(1, 33), "prompt_lookup_max": range(1, 65),
    "prompt_lookup_min": range(1, 65), "disable_by_batch_size": range(1, 4097),
}  # fmt: skip
_STRUCTURED: Mapping[str, _Allowed] = {
    "backend": ("auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"), "disable_fallback": bool,
    "disable_any_whitespace": bool, "disable_additional_properties": bool,
}  # fmt: skip
_SAMPLING: Mapping[str, _Allowed] = {
    "temperature": float, "top_p": float, "min_p": float, "repetition_penalty": float, "top_k": range(-1, 1 << 20),
    "max_new_tokens": range(1, 1 << 24),
}  # fmt: skip

FOR_USERS: Mapping[str, Option] = MappingProxyType({o.name: o for o in (
    Option("--dtype", Kind.WORD, ("auto", "half", "float16", "bfloat16")),  # 32 bits: twice the memory counted
    Option("--kv-cache-dtype", Kind.WORD, ("auto", "bfloat16", "fp8", "fp8_e4m3")),  # what both makers' GPUs take
    Option("--calculate-kv-scales", Kind.FLAG),
    Option("--max-model-len", Kind.TOKENS, low=1),
    Option("--max-num-seqs", Kind.INT, low=1, high=4096),
    Option("--max-num-batched-tokens", Kind.TOKENS, low=1, high=1 << 20),
    Option("--long-prefill-token-threshold", Kind.INT),
    Option("--block-size", Kind.INT, ("16", "32")),  # "on CUDA devices, only block sizes up to 32"
    Option("--enable-prefix-caching", Kind.FLAG),
    Option("--prefix-caching-hash-algo", Kind.WORD, ("sha256", "sha256_cbor")),
    Option("--scheduling-policy", Kind.WORD, ("fcfs", "priority")),
    Option("--async-scheduling", Kind.FLAG),
    Option("--enforce-eager", Kind.FLAG),
    Option("--disable-cascade-attn", Kind.FLAG),
    Option("--disable-sliding-window", Kind.FLAG),
    Option("--disable-custom-all-reduce", Kind.FLAG),
    Option("--seed", Kind.INT, high=(1 << 63) - 1),
    Option("--max-logprobs", Kind.INT, low=-1, high=1 << 20),
    Option("--logprobs-mode", Kind.WORD, ("raw_logits", "raw_logprobs", "processed_logits", "processed_logprobs")),
    Option("--speculative-config", Kind.JSON, keys=_NGRAM,  # drafts of models would need memory of their own
           required=("method", "num_speculative_tokens")),
    Option("--structured-outputs-config", Kind.JSON, keys=_STRUCTURED),
    Option("--override-generation-config", Kind.JSON, keys=_SAMPLING),
    Option("--reasoning-parser", Kind.WORD, _THINKERS),
    Option("--enable-auto-tool-choice", Kind.FLAG),
    Option("--tool-call-parser", Kind.WORD, _PARSERS),
    Option("--exclude-tools-when-tool-choice-none", Kind.FLAG),
    Option("--chat-template-content-format", Kind.WORD, ("auto", "string", "openai")),
    Option("--response-role", Kind.WORD),
    Option("--return-tokens-as-token-ids", Kind.FLAG),
    Option("--enable-prompt-tokens-details", Kind.FLAG),
    Option("--enable-force-include-usage", Kind.FLAG),
)})  # fmt: skip

FOR_CATALOG: Mapping[str, Option] = MappingProxyType({o.name: o for o in (
    Option("--served-model-name", Kind.WORD),
    Option("--gpu-memory-utilization", Kind.FLOAT, high=1),
    Option("--tensor-parallel-size", Kind.INT, low=1),
    Option("--quantization", Kind.WORD, _QUANTIZATIONS),
)})  # fmt: skip

_REFUSED: Mapping[str, str] = MappingProxyType({
    "Stackyard writes it itself": (
        "api-key api-server-count config enable-ssl-refresh gpu-memory-utilization headless host model "
        "pipeline-parallel-size port quantization root-path served-model-name ssl-ca-certs ssl-cert-reqs ssl-certfile "
        "ssl-keyfile tensor-parallel-size uds"
    ),
    "it reaches files, code or other machines": (
        "allowed-local-media-path allowed-media-domains chat-template code-revision default-mm-loras download-dir "
        "generation-config hf-config-path hf-overrides hf-token io-processor-plugin kv-events-config "
        "kv-transfer-config load-format log-config-file logits-processor-pattern logits-processors lora-modules "
        "middleware model-loader-extra-config otlp-traces-endpoint additional-config scheduler-cls tokenizer "
        "tool-parser-plugin tool-server trust-remote-code trust-request-chat-template worker-cls "
        "worker-extension-cls ignore-patterns model-impl config-format tokenizer-mode tokenizer-revision revision "
        "safetensors-load-strategy pt-load-map-location compilation-config"
    ),
    "the catalog counts the memory of a model without it": (
        "cpu-offload-gb cuda-graph-sizes kv-cache-memory-bytes num-gpu-blocks-override num-lookahead-slots "
        "rope-scaling rope-theta swap-space override-attention-dtype mamba-cache-dtype mamba-ssm-cache-dtype "
        "kv-sharing-fast-prefill disable-hybrid-kv-cache-manager"
    ),
    "health checks, scaling and metrics need it as it is": (
        "allow-credentials allowed-headers allowed-methods allowed-origins collect-detailed-traces "
        "disable-fastapi-docs disable-frontend-multiprocessing disable-log-requests disable-log-stats "
        "disable-uvicorn-access-log enable-log-outputs enable-log-requests enable-request-id-headers "
        "enable-server-load-tracking enable-sleep-mode enable-tokenizer-info-endpoint h11-max-header-count "
        "h11-max-incomplete-event-size log-error-stack max-log-len show-hidden-metrics-for-version uvicorn-log-level "
        "use-tqdm-on-load max-parallel-loading-workers ray-workers-use-nsight skip-tokenizer-init"
    ),
    "vLLM's engine always does it, or never": (
        "enable-chunked-prefill max-long-partial-prefills max-num-partial-prefills"
    ),
    "no model and no hardware of the catalog has a use for it": (
        "convert data-parallel-address data-parallel-backend data-parallel-hybrid-lb data-parallel-rank "
        "data-parallel-rpc-port data-parallel-size data-parallel-size-local data-parallel-start-rank "
        "dbo-decode-token-threshold dbo-prefill-token-threshold decode-context-parallel-size disable-chunked-mm-input "
        "disable-mm-preprocessor-cache distributed-executor-backend enable-dbo enable-eplb enable-expert-parallel "
        "enable-lora enable-lora-bias enable-multimodal-encoder-data-parallel enable-prompt-embeds eplb-config "
        "eplb-log-balancedness eplb-step-interval eplb-window-size expert-placement-strategy fully-sharded-loras "
        "guided-decoding-backend guided-decoding-disable-additional-properties "
        "guided-decoding-disable-any-whitespace guided-decoding-disable-fallback interleave-mm-strings "
        "limit-mm-per-prompt lora-dtype lora-extra-vocab-size max-cpu-loras max-lora-rank max-loras media-io-kwargs "
        "mm-encoder-tp-mode mm-processor-cache-gb mm-processor-cache-type mm-processor-kwargs "
        "mm-shm-cache-max-object-size-mb num-redundant-experts override-pooler-config pooler-config runner "
        "skip-mm-profiling task video-pruning-rate"
    ),
})  # fmt: skip

REFUSED: Mapping[str, str] = MappingProxyType(
    {f"--{name}": why for why, names in _REFUSED.items() for name in names.split()}
)
"""Option → why users may not give it."""


def check_for_users(args: Sequence[str]) -> tuple[str, ...]:
    """A user's arguments in one spelling: `--name value`, each option once.

    Raises:
        InvalidSpec: an option there is not or that users may not give, a value it cannot have, or options that
            contradict each other; names it and what is valid.
    """
    if len(args) > MOST_ARGUMENTS or any(len(arg) > LONGEST_ARGUMENT for arg in args):
        raise _invalid(f"{MOST_ARGUMENTS} arguments of {LONGEST_ARGUMENT} characters are the limit")
    return _check(args, FOR_USERS)


def check_for_catalog(args: Sequence[str]) -> tuple[str, ...]:
    """`check_for_users` with what only the catalog writes; the first two, `serve` and the model, are passed on."""
    return (*args[:2], *_check(args[2:], {**FOR_USERS, **FOR_CATALOG}))


def merged(ours: Sequence[str], users: Sequence[str]) -> tuple[str, ...]:
    """Checked arguments of both: what a user gives takes the place of ours."""
    given = {_positive(option) for option, _ in _pairs(users)}
    kept = [part for option, words in _pairs(ours) if _positive(option) not in given for part in words]
    return (*kept, *users)


def value_of(args: Sequence[str], name: str) -> str | None:
    """An option's value in checked arguments; None when it is not there. A flag's is `true` or `false`."""
    return _values(args).get(name)


def _values(args: Sequence[str]) -> Mapping[str, str]:
    found = ((_positive(option), option, words) for option, words in _pairs(args))
    return {name: words[1] if len(words) > 1 else str(option == name).lower() for name, option, words in found}


def require_consistent(args: Sequence[str]) -> None:
    """What vLLM itself checks between options: `validate_parsed_serve_args`, `SchedulerConfig`, `create_engine_config`.

    Raises:
        InvalidSpec: two of the checked arguments contradict each other.
    """
    given = _values(args)
    if given.get("--enable-auto-tool-choice") == "true" and given.get("--tool-call-parser") is None:
        raise _invalid("--enable-auto-tool-choice needs --tool-call-parser", option="--tool-call-parser")
    batched, seqs = given.get("--max-num-batched-tokens"), given.get("--max-num-seqs")
    if batched and seqs and tokens(batched) < int(seqs):
        raise _invalid(
            f"--max-num-batched-tokens ({batched}) is smaller than --max-num-seqs ({seqs})",
            option="--max-num-batched-tokens",
        )
    drafts = given.get("--speculative-config")
    if drafts and given.get("--async-scheduling") == "true":
        raise _invalid("--async-scheduling does not go with --speculative-config", option="--async-scheduling")
    found = json.loads(drafts or "{}")
    low, high = found.get("prompt_lookup_min", 1), found.get("prompt_lookup_max", 64)
    if low > high:
        raise _invalid(
            f"--speculative-config: prompt_lookup_min ({low}) is larger than prompt_lookup_max ({high})",
            option="--speculative-config",
        )


def tokens(text: str) -> int:
    """The number `human_readable_int` reads: 25.6k is 25,600, 1K is 1,024.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG])", text.strip())
    if match is None:
        return int(text)
    number, suffix = match.groups()
    scale = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[suffix]
    return int(float(number) * scale) if suffix.islower() else int(number) * scale


def _check(args: Sequence[str], known: Mapping[str, Option]) -> tuple[str, ...]:
    checked: dict[str, tuple[str, ...]] = {}
    for name, value in _read(args, known):
        option = known[_positive(name, known)]
        if option.name in checked:
            raise _invalid(f"{option.name} is given twice", option=option.name)
        checked[option.name] = (name,) if option.kind is Kind.FLAG else (name, _checked_value(option, value))
    made = tuple(word for words in checked.values() for word in words)
    require_consistent(made)
    return made


def _read(args: Sequence[str], known: Mapping[str, Option]) -> Iterator[tuple[str, str]]:
    """Options with their values; a flag's is "". vLLM takes `_` for `-` and `--name=value` too."""
    rest = list(args)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        option = _known(name, known)
        if option.kind is Kind.FLAG:
            if equals or (rest and not rest[0].startswith("--")):
                raise _invalid(f"{name} takes no value: write {option.name} or {_no(option.name)}", option=name)
            yield name, ""
        elif name != option.name:
            raise _invalid(f"{name}: only flags can be turned off", option=name)
        elif equals:
            yield name, value
        elif rest and not rest[0].startswith("--"):
            yield name, rest.pop(0)
        else:
            raise _invalid(f"{name} needs a value: {_what(option)}", option=name)


def _known(name: str, known: Mapping[str, Option]) -> Option:
    if option := known.get(_positive(name, known)):
        return option
    if why := REFUSED.get(name) or REFUSED.get("--" + name.removeprefix("--no-")):
        raise _invalid(f"{name} cannot be given here: {why}", option=name, valid=list(FOR_USERS))
    near = difflib.get_close_matches(name, [*known, *map(_no, known)], n=3, cutoff=0.6)
    meant = f"; did you mean {' or '.join(near)}?" if near else f"; valid: {', '.join(FOR_USERS)}"
    raise _invalid(f"vLLM {VERSION} has no option {name[:80]!r}{meant}", option=name, close=near, valid=list(FOR_USERS))


def _checked_value(option: Option, value: str) -> str:
    try:
        fits = _fits(option, value)
    except (ValueError, OverflowError, RecursionError):
        fits = False
    if not fits:
        raise _invalid(
            f"{option.name} cannot be {value[:80]!r}: it is {_what(option)}", option=option.name,
            valid=list(option.choices) or None,
        )  # fmt: skip
    return value


def _fits(option: Option, value: str) -> bool:
    match option.kind:
        case Kind.JSON:
            return _fits_keys(json.loads(value), option)
        case _ if option.choices:
            return value in option.choices
        case Kind.INT:
            return re.fullmatch(r"-?[0-9]+", value) is not None and option.low <= int(value) <= option.high
        case Kind.TOKENS:
            return option.low <= tokens(value) <= option.high
        case Kind.FLOAT:
            return option.low <= float(value) <= option.high
        case _:
            return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}", value) is not None


def _fits_keys(given: Any, option: Option) -> bool:
    if not isinstance(given, dict) or not set(option.required) <= set(given):
        return False
    return all(key in option.keys and _is_allowed(value, option.keys[key]) for key, value in given.items())


def _is_allowed(value: Any, allowed: _Allowed) -> bool:
    if isinstance(value, bool) or allowed is bool:
        return isinstance(value, bool) and allowed is bool
    if isinstance(allowed, range):
        return isinstance(value, int) and value in allowed
    if isinstance(allowed, tuple):
        return isinstance(value, str) and value in allowed
    return isinstance(value, int | float) and math.isfinite(value)


def _what(option: Option) -> str:
    if option.choices:
        return f"one of {', '.join(option.choices)}"
    if option.kind is Kind.JSON:
        return f"a JSON object of {', '.join(_shown(key, allowed) for key, allowed in option.keys.items())}"
    if option.kind is Kind.WORD:
        return "a word"
    upper = "" if option.high == float("inf") else f" to {option.high:g}"
    return f"{option.kind.value} from {option.low:g}{upper}"


def _shown(key: str, allowed: _Allowed) -> str:
    if isinstance(allowed, range):
        return f"{key} ({allowed[0]} to {allowed[-1]})"
    if isinstance(allowed, tuple):
        return f"{key} ({' | '.join(allowed)})"
    return f"{key} ({'true | false' if allowed is bool else 'a number'})"


def _pairs(args: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Option → its words, in checked arguments."""
    words = list(args)
    while words:
        option = words.pop(0)
        value = (words.pop(0),) if words and not words[0].startswith("--") else ()
        yield option, (option, *value)


def _positive(name: str, known: Mapping[str, Option] = FOR_USERS) -> str:
    """`--no-x` as `--x`, where x is a flag."""
    asked = "--" + name.removeprefix("--no-")
    return asked if name.startswith("--no-") and asked in known else name


def _no(name: str) -> str:
    return f"--no-{name.removeprefix('--')}"


def _invalid(message: str, **details: Any) -> InvalidSpec:
    shown = {key: value for key, value in details.items() if value is not None}
    return InvalidSpec(f"vllm_args: {message}", field="vllm_args", **shown)
