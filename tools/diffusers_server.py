"""A server with OpenAI's images API whose pictures diffusers makes, with a tiny model
of random weights: its pictures show nothing, but all of the library is used.

It needs torch, transformers, diffusers and aiohttp (5.7 GB), and nothing of this
project: ``PYTHON tools/diffusers_server.py PORT`` with the interpreter that has them.
`tools.diffusers_pictures` starts it.
"""

import asyncio
import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIDE = 64
TOKENS = 77


def tokenizer() -> CLIPTokenizer:
    """Return a tokenizer whose words are single letters."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    folder = Path(tempfile.mkdtemp(prefix="tokenizer-"))
    (folder / "vocab.json").write_text(
        json.dumps({word: place for place, word in enumerate(words)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)


def pipeline() -> StableDiffusionPipeline:
    """Return a Stable Diffusion pipeline with some thousand random weights."""
    torch.manual_seed(0)
    text = CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=1000,
        max_position_embeddings=TOKENS,
    )
    made = StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            sample_size=32,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=2,
        ),
        scheduler=DDIMScheduler(),
        vae=AutoencoderKL(
            block_out_channels=[8, 16],
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D"],
            up_block_types=["UpDecoderBlock2D", "UpDecoderBlock2D"],
            latent_channels=4,
            norm_num_groups=2,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def app() -> web.Application:
    """Return the server."""
    pipe = pipeline()
    busy = asyncio.Lock()

    def draw(asked: dict[str, Any], number: int) -> bytes:
        width, height = (int(side) for side in (asked.get("size") or f"{SIDE}x{SIDE}").split("x"))
        generator = torch.Generator().manual_seed(int(asked.get("seed") or 0) + number)
        image: Image.Image = pipe(
            asked["prompt"],
            negative_prompt=asked.get("negative_prompt"),
            width=width,
            height=height,
            num_inference_steps=int(asked.get("steps") or 2),
            generator=generator,
        ).images[0]
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()

    async def generate(request: web.Request) -> web.Response:
        asked = await request.json()
        async with busy:
            made = [
                await asyncio.to_thread(draw, asked, number)
                for number in range(int(asked.get("n") or 1))
            ]
        items = [{"b64_json": base64.b64encode(content).decode()} for content in made]
        return web.json_response({"created": 0, "data": items})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "tiny"}]})

    application = web.Application()
    application.add_routes(
        [web.post("/v1/images/generations", generate), web.get("/v1/models", models)]
    )
    return application


if __name__ == "__main__":
    web.run_app(app(), host="127.0.0.1", port=int(sys.argv[1]))
