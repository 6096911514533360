"""The options of `vllm serve`: all of the documented ones are known, and what cannot be is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.model.errors import InvalidSpec
from stacks.vllm_options import FOR_CATALOG, FOR_USERS, REFUSED, check_for_users, merged, tokens, value_of

DOCUMENTED = Path(__file__).parent / "golden" / "vllm-0.11.0-serve-options.txt"


def test_every_documented_option_is_in_exactly_one_place() -> None:
    assert set(FOR_USERS) | set(REFUSED) | set(FOR_CATALOG) == set(DOCUMENTED.read_text().split())
    assert set(FOR_USERS).isdisjoint(REFUSED) and set(FOR_USERS).isdisjoint(FOR_CATALOG)


def test_arguments_come_out_in_one_spelling() -> None:
    given = [
        "--max_num_seqs=16", "--enforce-eager", "--no-enable-prefix-caching", "--max-num-batched-tokens", "8k",
        "--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4}', "--tool-call-parser=hermes",
    ]  # fmt: skip
    assert check_for_users(given) == (
        "--max-num-seqs", "16", "--enforce-eager", "--no-enable-prefix-caching", "--max-num-batched-tokens", "8k",
        "--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4}', "--tool-call-parser", "hermes",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("--max-num-seq 8", "did you mean --max-num-seqs"),
        ("--enable-prefix-cachin", "--enable-prefix-caching"),
        ("--frobnicate 1", "vLLM 0.11 has no option '--frobnicate'"),
        ("8", "no option '8'"),
        ("--model x/y", "Stackyard writes it itself"),
        ("--port=80", "Stackyard writes it itself"),
        ("--api_key k", "Stackyard writes it itself"),
        ("--no-trust-remote-code", "reaches files, code or other machines"),
        ("--trust-remote-code", "reaches files, code or other machines"),
        ("--download-dir /etc", "reaches files, code or other machines"),
        ("--allowed-local-media-path /", "reaches files, code or other machines"),
        ("--swap-space 4", "counts the memory"),
        ("--disable-log-stats", "health checks, scaling and metrics"),
        ("--max-num-seqs many", "a whole number from 1 to 4096"),
        ("--max-num-seqs 1_0", "a whole number from 1 to 4096"),
        ("--max-num-seqs 0", "a whole number from 1 to 4096"),
        ("--max-num-seqs", "needs a value"),
        ("--max-num-seqs --enforce-eager", "needs a value"),
        ("--no-max-num-seqs", "only flags|no option"),
        ("--seed -1", "a whole number from 0"),
        ("--dtype float32", "one of auto, half"),
        ("--kv-cache-dtype int4", "fp8_e4m3"),
        ("--block-size 64", "one of 16, 32"),
        ("--max-num-partial-prefills 2", "always does it, or never"),
        ("--enforce-eager true", "takes no value: write --enforce-eager or --no-enforce-eager"),
        ("--max-model-len 1.5K", "a whole number, or one with k"),
        ('--speculative-config {"method":"draft_model"}', "method (ngram)"),
        ('--speculative-config {"method":"ngram","model":"a/b"}', "num_speculative_tokens (1 to 32)"),
        ('--speculative-config {"num_speculative_tokens":true}', "a JSON object"),
        ("--speculative-config [1]", "a JSON object"),
        ("--speculative-config.method ngram", "no option"),
        ("--response-role ../../x", "a word"),
        ("--max-num-seqs 8 --max-num-seqs=9", "given twice"),
        ("--enforce-eager --no-enforce-eager", "given twice"),
        ("--enable-auto-tool-choice", "needs --tool-call-parser"),
        ("--max-num-batched-tokens 64 --max-num-seqs 128", "smaller than --max-num-seqs (128)"),
        (f"--max-model-len {'9' * 400}k", "a whole number"),
        (f"--speculative-config {'[' * 1900}", "a JSON object"),
        ('--speculative-config {"method":"ngram"}', "a JSON object"),
        ('--override-generation-config {"temperature":"hot"}', "temperature (a number)"),
        ('--override-generation-config {"temperature":NaN}', "temperature (a number)"),
        ('--structured-outputs-config {"disable_fallback":1}', "disable_fallback (true | false)"),
        (
            '--async-scheduling --speculative-config {"method":"ngram","num_speculative_tokens":2}',
            "--async-scheduling does not go with",
        ),
        (
            '--speculative-config {"method":"ngram","num_speculative_tokens":2,"prompt_lookup_min":9,'
            '"prompt_lookup_max":3}',
            "prompt_lookup_min (9) is larger",
        ),
    ],
)
def test_what_vllm_would_refuse_or_nobody_may_give_is_refused(given: str, names: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check_for_users(given.split())
    assert any(name in refused.value.message for name in names.split("|")), refused.value.message
    assert refused.value.details["field"] == "vllm_args"


def test_lists_have_bounds() -> None:
    for given in (["--enforce-eager"] * 65, ["--response-role", "x" * 2001]):
        with pytest.raises(InvalidSpec, match="are the limit"):
            check_for_users(given)


def test_numbers_are_read_as_vllm_reads_them() -> None:
    assert [tokens(text) for text in ("7", "1k", "1K", "25.6k", "2M", "2m")] == [
        7,
        1000,
        1024,
        25_600,
        2 << 20,
        2 * 10**6,
    ]


def test_users_flags_replace_ours_whichever_way_they_point() -> None:
    assert merged(("--enforce-eager", "--seed", "1"), ("--no-enforce-eager",)) == ("--seed", "1", "--no-enforce-eager")
    assert value_of(("--no-enforce-eager",), "--enforce-eager") == "false"
