"""Makes a tiny Llama and a tiny Whisper with random weights, in the folders that are
named: nothing is downloaded.

Run by `tools.real_server` with the Python that has torch and transformers; imports
nothing of this project.
"""

import json
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

SENTENCES = (
    "Yes, of course we can walk to the old harbour this evening.",
    "No, the little train leaves at seven. It is late!",
    "Would you like some more tea? There is honey, too.",
    "The weather is mild today, and tomorrow will be sunny.",
)
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor "
    "%}assistant: "
)
END, START, NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"


def trained_tokenizer(size: int, special: tuple[str, ...] = ()) -> Tokenizer:
    """Give a tokenizer of pieces of the sentences. Without the alphabet of all bytes,
    any tokens are text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special], show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES * 20, "user: assistant: system: "], trainer)
    return tokenizer


def make_llama(folder: str) -> None:
    """Two layers of 64 and 300 tokens, never at an end."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained_tokenizer(300, ("<unk>", "<end>")),
        unk_token="<unk>",
        eos_token="<end>",
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16_384,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True
    model.generation_config.bad_words_ids = [[0], [1]]
    model.save_pretrained(folder)


def make_whisper(folder: str) -> None:
    """A layer of 32 that understands a dozen pieces of words in anything."""
    trained = json.loads(trained_tokenizer(150).to_str())["model"]
    vocabulary = trained["vocab"] | {END: len(trained["vocab"])}
    tokenizer = WhisperTokenizer(
        vocab=vocabulary,
        merges=[tuple(merge) for merge in trained["merges"]],
        unk_token=END,
        bos_token=END,
        eos_token=END,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [START, NO_TIMES]})
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    end, start, no_times = tokenizer.convert_tokens_to_ids([END, START, NO_TIMES])
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=64,
        decoder_start_token_id=start,
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        max_new_tokens=12,
        suppress_tokens=[end, start, no_times],
        no_timestamps_token_id=no_times,
        is_multilingual=False,
    )
    model.save_pretrained(folder)


if __name__ == "__main__":
    make_llama(sys.argv[1])
    make_whisper(sys.argv[2])
