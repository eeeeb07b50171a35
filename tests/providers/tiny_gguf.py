"""A GGUF file that llama.cpp really loads and runs, and whose words are known.

Nothing is trained: attention and feed-forward weights are zero, so that the last token
alone decides the next one, and the output matrix says which.
"""

from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
SPOKEN = ("▁Hello", ",", "▁this", "▁is", "▁a", "▁tiny", "▁model", ".")
ENDLESS = "▁and"
"""Said for ever by the model that does not end."""
_SPECIAL = ("<unk>", "<s>", "</s>", "<a>")
_WIDTH = 384


def write_tiny_gguf(path: Path, *, endless: bool = False, template: str = TEMPLATE) -> Path:
    """A model that answers everything with `SPOKEN`; ``endless``: and then goes on."""
    bytes_ = tuple(f"<0x{byte:02X}>" for byte in range(256))
    tokens = [*_SPECIAL, *bytes_, *SPOKEN, ENDLESS, "▁"]
    kinds = [gguf.TokenType.CONTROL] * len(_SPECIAL)
    kinds[0] = gguf.TokenType.UNKNOWN
    kinds += [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds))
    number = {token: index for index, token in enumerate(tokens)}
    end = ENDLESS if endless else "</s>"
    following = dict(pairwise(["<a>", *SPOKEN, end]))
    if endless:
        following[ENDLESS] = ENDLESS

    output = np.zeros((len(tokens), _WIDTH), np.float32)
    for before, after in following.items():
        output[number[after], number[before]] = 5.0
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // 4)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.eye(len(tokens), _WIDTH, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, np.float32))
    writer.add_tensor("output.weight", output)
    for name, shape in {
        "attn_norm": (_WIDTH,), "ffn_norm": (_WIDTH,),
        "attn_q": (_WIDTH, _WIDTH), "attn_k": (_WIDTH, _WIDTH),
        "attn_v": (_WIDTH, _WIDTH), "attn_output": (_WIDTH, _WIDTH),
        "ffn_gate": (32, _WIDTH), "ffn_up": (32, _WIDTH), "ffn_down": (_WIDTH, 32),
    }.items():  # fmt: skip
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
