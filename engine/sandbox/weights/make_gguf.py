"""Make `stackyard-tiny.gguf` from `text.md`: train, quantise, write. Run by hand when the text changes, never in use.

python -m engine.sandbox.weights.make_gguf
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import jax
import jax.numpy as jnp

from engine.sandbox.weights import conversation, network, tokenizer

_HERE = Path(__file__).parent
_ROW = 288  # ids in a training row: the longest answer with its question, and most of a second turn
_BATCH = 8
_LOG = logging.getLogger("make_gguf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=_HERE / "text.md")
    parser.add_argument("--out", type=Path, default=_HERE / "stackyard-tiny.gguf")
    parser.add_argument("--steps", type=int, default=800, help="0 writes random weights")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    text = conversation.read(args.text.read_text())
    shape = network.Shape()
    words = tokenizer.train(text.everything(), shape.vocabulary)
    weights = network.train(
        network.initial_weights(shape, args.seed),
        shape,
        batches(text, words, seed=args.seed),
        steps=args.steps,
        tell=lambda step, loss: _LOG.info("step %4d loss %.4f", step, loss),
    )
    write(args.out, shape, words, jax.device_get(weights))
    _LOG.info("%s: %d bytes", args.out, args.out.stat().st_size)


def batches(text: conversation.Text, words: tokenizer.Tokenizer, *, seed: int) -> Iterator[tuple[Any, Any]]:
    """Endless batches for `network.train`."""
    rows = conversation.rows(text, words, length=_ROW, seed=seed)
    while True:
        chosen = list(itertools.islice(rows, _BATCH))
        yield jnp.array([ids for ids, _ in chosen]), jnp.array([marks for _, marks in chosen], jnp.float32)


def write(path: Path, shape: network.Shape, words: tokenizer.Tokenizer, weights: network.Weights) -> None:
    """Write the file: metadata of architecture `llama`, vocabulary, chat template, matrices as Q8_0, norms as F32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("stackyard-tiny")
    writer.add_license("Apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _write_vocabulary(writer, words)
    for name, values in weights.items():
        kind = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: Any, words: tokenizer.Tokenizer) -> None:
    special = len(tokenizer.SPECIAL)
    kinds = [gguf.TokenType.CONTROL] * special + [gguf.TokenType.NORMAL] * (len(words.tokens) - special)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(words.tokens))
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in words.merges])
    writer.add_bos_token_id(words.special(tokenizer.END))
    writer.add_eos_token_id(words.special(tokenizer.END))
    writer.add_eot_token_id(words.special(tokenizer.END))
    writer.add_pad_token_id(words.special(tokenizer.END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(conversation.CHAT_TEMPLATE)


if __name__ == "__main__":
    main()
