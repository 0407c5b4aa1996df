"""A SparseFormer in place of CLIP's vision tower in LLaVA: the language model reads fewer visual tokens.

Builds a small LlavaForConditionalGeneration with random weights, makes a SparseFormer of its own CLIP tower, and puts that in the
tower's place. Both models then do what a user does: a forward pass with a loss, a backward pass, and generating. Nothing is
fetched. With a real model the steps are the same: bootstrap a student from its tower, and train projector and language model on.

    python examples/llava_with_sparseformer.py --tokens 16
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

import sparseformers
from sparseformers.teachers.huggingface import from_module

from transformers import (  # isort: skip  # after sparseformers, which makes torchvision importable
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

VOCABULARY, IMAGE_TOKEN = 40, 39
"""Words of the language model, and the one in whose place the visual tokens are put."""
WORDS = (1, 5, 9, 12, 7)
"""A prompt: what it means does not matter to a random model."""


@dataclass(frozen=True)
class Settings:
    """The sizes of the models."""

    tokens: int = 16
    """Latent tokens, N: what is left of the visual tokens in the prompt."""
    image_size: int = 64
    """Side in pixels."""
    patch_size: int = 8
    """Side of CLIP's patches in pixels; its tower gives as many visual tokens as patches."""
    new_words: int = 5
    """Words to generate."""
    seed: int = 0
    """The seed of the random weights and images."""


@dataclass(frozen=True)
class Said:
    """The measurements of one model."""

    visual_tokens: int
    """In the prompt."""
    prompt: int
    """Tokens of the whole prompt."""
    loss: float
    """The loss of the words after the image."""
    words: tuple[int, ...]
    """Generated for the first image."""


def build_llava(settings: Settings) -> LlavaForConditionalGeneration:
    """A small LLaVA with CLIP's tower and random weights; it takes the last but one layer, without the class token."""
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=settings.image_size,
        patch_size=settings.patch_size,
    )
    text = LlamaConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN)
    config.image_seq_length = (settings.image_size // settings.patch_size) ** 2
    return LlavaForConditionalGeneration(config).eval()


def put_in_place(llava: LlavaForConditionalGeneration, tokens: int) -> None:
    """Makes a SparseFormer of a LLaVA's own tower, and puts it there."""
    teacher = from_module(llava.model.vision_tower, name="the tower of LLaVA")
    student = sparseformers.inherit(teacher, tokens=tokens).student  # bootstrap it, to be as good as the tower
    tower = sparseformers.as_vision_tower(student)
    llava.model.vision_tower = tower
    llava.config.vision_config = tower.config
    llava.config.image_seq_length = tower.config.image_seq_length


def prompt_for(llava: LlavaForConditionalGeneration, count: int) -> Tensor:
    """A prompt for each of ``count`` images, with a place for each visual token."""
    start, *words = WORDS
    ids = [start, *[IMAGE_TOKEN] * llava.config.image_seq_length, *words]
    return torch.tensor(ids).expand(count, -1)


def use(llava: LlavaForConditionalGeneration, images: Tensor, new_words: int) -> Said:
    """A loss, its gradients down to the tower, and generated words.

    Args:
        llava: the model.
        images: B x 3 x H x W, normalised as CLIP's are.
        new_words: how many to generate.
    """
    ids = prompt_for(llava, len(images))
    visual_tokens = int((ids[0] == IMAGE_TOKEN).sum())
    labels = ids.masked_fill(ids == IMAGE_TOKEN, -100)
    output = llava(input_ids=ids, pixel_values=images, attention_mask=torch.ones_like(ids), labels=labels)
    features = output.image_hidden_states.numel() // (len(images) * llava.config.text_config.hidden_size)
    if features != visual_tokens:
        raise RuntimeError(f"the tower gave {features} visual tokens, and the prompt has {visual_tokens}")
    llava.zero_grad()
    output.loss.backward()
    if not any(weight.grad is not None and weight.grad.any() for weight in llava.model.vision_tower.parameters()):
        raise RuntimeError("no gradient has reached the tower")
    generated = llava.generate(
        input_ids=ids,
        pixel_values=images,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_words,
        min_new_tokens=new_words,
        do_sample=False,
        pad_token_id=0,
    )
    return Said(visual_tokens, ids.shape[1], float(output.loss.detach()), tuple(generated[0, ids.shape[1] :].tolist()))


def main(settings: Settings) -> tuple[Said, Said]:
    """Uses LLaVA with CLIP's tower and then with a SparseFormer in its place.

    Returns:
        What came of each.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        llava = build_llava(settings)
        images = torch.randn(2, 3, settings.image_size, settings.image_size)
    clip = use(llava, images, settings.new_words)
    put_in_place(llava, settings.tokens)
    sparse = use(llava, images, settings.new_words)
    for name, said in {"CLIP": clip, "SparseFormer": sparse}.items():
        print(f"{name}: {said.visual_tokens} visual tokens of {said.prompt}, loss {said.loss:.3f}, words {list(said.words)}")
    return clip, sparse


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
