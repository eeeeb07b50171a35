"""Makes a tiny Llama with random weights, and its tokenizer, in the folder that is named: nothing is downloaded.

Run by `tests.providers.real_server` with the Python that has torch and transformers; imports nothing of this project.
"""

import sys

SENTENCES = (
    "Yes, of course we can walk to the old harbour this evening.",
    "No, the little train leaves at seven. It is late!",
    "Would you like some more tea? There is honey, too.",
    "The weather is mild today, and tomorrow will be sunny.",
)
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "


def make(folder: str) -> None:
    """Write the model: 2 layers of 64, some 300 tokens, all of them pieces of the sentences above."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    # Without the alphabet of all bytes, whatever the model says is text.
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<end>"], show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES * 20, "user: assistant: system: "], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(fast),
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


if __name__ == "__main__":
    make(sys.argv[1])
