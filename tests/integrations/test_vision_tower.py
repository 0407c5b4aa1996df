"""The vision tower: what CLIP's gives at all its tokens, what transformers' models ask of it, and LLaVA with it inside."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import sparseformers
from examples import llava_with_sparseformer as example
from sparseformers.errors import ConfigError, MissingExtraError, TeacherError
from sparseformers.model import SparseFormer
from sparseformers.teachers import hubs
from sparseformers.teachers import huggingface as adapter
from tests.model.small import scattered, small_model
from tests.refusals import refused
from tests.teachers.huggingface_models import clip_vision, dinov2, dinov2_with_registers, siglip_vision, vit
from tests.teachers.identity import check_same

PATCHES = 16
LABELS = torch.tensor([1, -100, -100, -100, -100, 4, 7]).expand(2, -1)  # of two prompts with four visual tokens


def student_of(network: nn.Module, tokens: int = PATCHES, **options: Any) -> SparseFormer:
    return sparseformers.inherit(adapter.from_module(network, image_size=(32, 32)), tokens=tokens, **options).student.eval()


def pixels(count: int = 2, *, seed: int = 1, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def llava(*, strategy: str = "default", layer: int | list[int] = -2, vision: Any = None) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = hf.CLIPVisionConfig(**sizes, image_size=32, patch_size=8) if vision is None else vision
    text = hf.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, vocab_size=20
    )
    options = {"vision_feature_select_strategy": strategy, "vision_feature_layer": layer, "image_token_index": 19}
    model = hf.LlavaForConditionalGeneration(hf.LlavaConfig(vision_config=vision, text_config=text, **options)).eval()
    with torch.no_grad():  # transformers' starting values are too small to tell one image from another
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def place(tower: nn.Module, model: Any) -> Any:
    model.model.vision_tower = tower
    model.config.vision_config = tower.config
    return model


def sparse_llava(tokens: int = 4) -> Any:
    """LLaVA with a student of its own tower in the place of that."""
    model = llava()
    return place(sparseformers.as_vision_tower(student_of(model.model.vision_tower, tokens=tokens)), model)


def say(model: Any, visual_tokens: int, *, images: Tensor | None = None, **options: Any) -> Any:
    images = pixels() if images is None else images
    ids = torch.tensor([1, *[19] * visual_tokens, 4, 7]).expand(len(images), -1)
    return model(input_ids=ids, pixel_values=images, attention_mask=torch.ones_like(ids), **options)


@torch.no_grad()
@pytest.mark.parametrize("build", [vit, dinov2, clip_vision, siglip_vision, dinov2_with_registers])
def test_at_all_tokens_it_gives_what_the_teachers_own_tower_gives(build: Any) -> None:
    network = build()
    ours = sparseformers.as_vision_tower(student_of(network))(pixels(), output_hidden_states=True)
    theirs = network(pixel_values=pixels(), output_hidden_states=True)
    registers = 3 if build is dinov2_with_registers else 0

    def without_registers(tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], dim=1)

    assert len(ours.hidden_states) == len(theirs.hidden_states) == 3
    # transformers puts the final norm on the last one for some models; the others are the blocks' own.
    for state, expected in zip(ours.hidden_states[:-1], theirs.hidden_states[:-1], strict=True):
        check_same(state, without_registers(expected), tolerance=1e-5)
    if build is clip_vision:
        check_same(ours.hidden_states[-1], theirs.last_hidden_state, tolerance=1e-5)
        check_same(ours.last_hidden_state[:, 0], theirs.pooler_output, tolerance=1e-5)
    else:
        check_same(ours.last_hidden_state, without_registers(theirs.last_hidden_state), tolerance=1e-5)
    if build is not vit:  # ViT's pooler is another layer, which no teacher's embedding goes through
        check_same(ours.pooler_output, theirs.pooler_output, tolerance=1e-5)


def test_the_output_of_a_student_with_fewer_tokens() -> None:
    student = student_of(clip_vision(), tokens=4)
    assert sparseformers.as_vision_tower(student.train()).training
    tower = sparseformers.as_vision_tower(student.eval())
    assert tower.student is student  # not a copy
    images = torch.rand(3, 3, 32, 40)
    output = tower(student.normalise(images))
    assert isinstance(output, hf.modeling_outputs.BaseModelOutputWithPooling)
    torch.testing.assert_close(output.last_hidden_state, student(images).tokens)
    assert output.last_hidden_state.shape == (3, 1 + 4, 64)
    assert output.pooler_output.shape == (3, 64)
    assert output.hidden_states is None
    for asked in (True, -2, 0, [-2, -1]):  # transformers' models name the ones that they are going to select
        states = tower(student.normalise(images), output_hidden_states=asked).hidden_states
        assert [state.shape for state in states] == [(3, 5, 64)] * 3
    plain = tower(student.normalise(images), return_dict=False)
    assert isinstance(plain, tuple)
    torch.testing.assert_close(plain[0], output.last_hidden_state)
    tower.config.output_hidden_states = True
    assert len(tower(student.normalise(images)).hidden_states) == 3
    assert tower(student.normalise(images), output_hidden_states=False).hidden_states is None


def test_the_papers_front_and_projection() -> None:
    student, images = small_model(projection=12), torch.rand(2, 3, 48, 64)
    output = sparseformers.as_vision_tower(student)(student.normalise(images), output_hidden_states=True)
    torch.testing.assert_close(output.last_hidden_state, student(images).tokens)
    assert output.pooler_output.shape == (2, 32)
    torch.testing.assert_close(student.cortex.projection(output.pooler_output), student(images).embedding)


@torch.no_grad()
@pytest.mark.parametrize(("strategy", "layer"), [("default", -2), ("full", -2), ("default", 1), ("default", [-2, -1])])
def test_llava_says_the_same_at_all_tokens(strategy: str, layer: int | list[int]) -> None:
    model = llava(strategy=strategy, layer=layer)
    tokens = PATCHES + (strategy == "full")
    before = say(model, tokens)
    tower = sparseformers.as_vision_tower(student_of(model.model.vision_tower))
    after = say(place(tower, model), tokens)
    check_same(after.image_hidden_states, before.image_hidden_states, tolerance=1e-5)
    check_same(after.logits, before.logits, tolerance=1e-5)
    assert not torch.allclose(before.logits[0], before.logits[1], atol=1e-2)


def test_the_prompt_of_llava_shrinks_to_the_latent_tokens() -> None:
    model = sparse_llava()
    output = say(model, 4, labels=LABELS)
    assert output.logits.shape == (2, 7, 20)
    assert output.loss.isfinite()
    with pytest.raises(ValueError, match="tokens"):
        say(model, PATCHES)


def test_the_example() -> None:
    clip, sparse = example.main(example.Settings(new_words=3))
    assert (clip.visual_tokens, sparse.visual_tokens) == (64, 16)
    assert clip.prompt - sparse.prompt == 48
    assert len(sparse.words) == 3
    at_all_tokens, same = example.main(example.Settings(new_words=3, tokens=64))
    assert same.loss == pytest.approx(at_all_tokens.loss, abs=1e-5)
    assert same.words == at_all_tokens.words


@pytest.mark.parametrize("tokens", [4, 3])
def test_generating_goes_on_from_the_visual_tokens(tokens: int) -> None:
    model = sparse_llava(tokens)
    ids = torch.tensor([[1, *[19] * tokens, 4]])
    said = model.generate(
        input_ids=ids, pixel_values=pixels(1), attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False
    )
    first = say(model, tokens, images=pixels(1)).logits[0, ids.shape[1] - 1].argmax()
    assert said[0, ids.shape[1]] == first


def test_a_student_without_class_token_gives_latent_tokens_alone() -> None:
    model = llava(strategy="full")
    tower = sparseformers.as_vision_tower(student_of(siglip_vision(), tokens=4))
    assert tower(pixels()).last_hidden_state.shape == (2, 4, 64)
    assert say(place(tower, model), 4).image_hidden_states.reshape(2, -1, 32).shape == (2, 4, 32)


def test_gradients_reach_a_tower_that_learns_and_leave_a_frozen_one_alone() -> None:
    model = sparse_llava()
    tower = model.model.vision_tower.requires_grad_(False)
    say(model, 4, labels=LABELS).loss.backward()
    assert all(weight.grad is None for weight in tower.parameters())
    assert model.model.multi_modal_projector.linear_1.weight.grad.any()
    tower.requires_grad_(True)
    say(model, 4, labels=LABELS).loss.backward()
    assert tower.student.focusing.embedding.weight.grad.any()
    # Layer -2 is selected, so that the last of the three blocks has no part in it.
    used = [bool(block.mlp.fc1.weight.grad is not None) for block in tower.student.cortex.blocks]
    assert used == [True, True, False]


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = sparse_llava().train()
    model.model.vision_tower.requires_grad_(True)
    block = model.model.vision_tower.student.cortex.blocks[0]
    calls = []
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients = []
    for enable in (False, True):
        if enable:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model.zero_grad()
        say(model, 4, labels=LABELS).loss.backward()
        gradients.append(block.mlp.fc1.weight.grad.clone())
    assert len(calls) == 3  # once, then once and again in the backward pass
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("student", [lambda: student_of(clip_vision(), tokens=9), small_model])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(student: Any, dtype: torch.dtype) -> None:
    tower = sparseformers.as_vision_tower(student())
    expected = tower(pixels())
    tower.to(dtype)
    output = tower(pixels(), output_hidden_states=True)
    assert {output.last_hidden_state.dtype, output.pooler_output.dtype, output.hidden_states[0].dtype} == {dtype}
    difference = (output.last_hidden_state.float() - expected.last_hidden_state).abs().mean()
    # The position encoding of random RoIs magnifies their rounding; trained students come to a cosine of 0.9999 in bfloat16.
    assert difference < (0.2 if dtype == torch.bfloat16 else 0.03) * expected.last_hidden_state.abs().mean()
    output.pooler_output.float().sum().backward()
    assert next(tower.student.cortex.blocks[0].parameters()).grad.dtype == dtype
    assert any(weight.grad is not None and weight.grad.any() for weight in tower.student.focusing.parameters())


def test_the_configuration_tells_processors_the_number_of_visual_tokens() -> None:
    tower = sparseformers.as_vision_tower(student_of(clip_vision(), tokens=9))
    config = tower.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 2, 2)
    assert (config.image_size, config.image_seq_length) == (32, 9)
    assert (config.image_size // config.patch_size) ** 2 == 9
    assert (tower.dtype, tower.device) == (torch.float32, torch.device("cpu"))
    assert sparseformers.as_vision_tower(small_model()).config.image_seq_length == 6


def test_other_numbers_of_tokens() -> None:
    student = student_of(clip_vision(), tokens=4)
    tower = sparseformers.as_vision_tower(student, tokens=9)
    images = pixels() * student.normalise.std + student.normalise.mean
    torch.testing.assert_close(tower(pixels()).last_hidden_state, student(images, 9).tokens)
    assert tower.config.image_seq_length == 9
    with pytest.raises(ConfigError, match="'the model' cannot have 5 tokens: this front has 6 tokens and no other number"):
        sparseformers.as_vision_tower(small_model(), tokens=5)
    with pytest.raises(ConfigError, match="at least one token, not 0"):
        sparseformers.as_vision_tower(student, tokens=0)


@torch.no_grad()
def test_llava_with_it_is_saved_and_loaded_by_its_own_means(tmp_path: Path) -> None:
    model = llava()
    student = student_of(model.model.vision_tower, tokens=4)
    place(sparseformers.as_vision_tower(student, tokens=9), model).save_pretrained(tmp_path)
    again = hf.LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(say(again, 9).logits, say(model, 9).logits)
    # What no file holds is there too: the statistics of images and the cells of the grid.
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.model.vision_tower.student(images).tokens, student(images).tokens)


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_llava_reads_as_many_visual_tokens_as_ever_from_a_dense_student(strategy: str) -> None:
    model = llava(strategy=strategy)
    count = PATCHES + (strategy == "full")
    before = say(model, count).image_hidden_states
    whole, quarter = (student_of(model.model.vision_tower, tokens=tokens, dense_layer=-2) for tokens in (PATCHES, 4))
    same = say(place(sparseformers.as_vision_tower(whole, dense=True), model), count).image_hidden_states
    torch.testing.assert_close(same, before, atol=1e-3, rtol=1e-3)
    tower = sparseformers.as_vision_tower(quarter, dense=True)
    new = say(place(tower, model), count).image_hidden_states  # the same prompt, a quarter of the tokens inside
    assert new.shape == before.shape
    assert tower.config.image_seq_length == PATCHES
    assert (tower.config.image_size, tower.config.patch_size) == (32, 8)
    states = tower(pixels(), output_hidden_states=True).hidden_states
    read = quarter.dense(pixels() * quarter.normalise.std + quarter.normalise.mean)
    torch.testing.assert_close(states[-2][:, 1:], read.flatten(2).mT)
    assert {state.shape for state in states} == {(2, 1 + PATCHES, 64)}


@torch.no_grad()
def test_a_dense_tower_is_saved_loaded_and_halved(tmp_path: Path) -> None:
    model = llava()
    student = scattered(student_of(model.model.vision_tower, tokens=4, dense_layer=-2))
    place(sparseformers.as_vision_tower(student, dense=True), model).save_pretrained(tmp_path)
    again = hf.LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(say(again, PATCHES).logits, say(model, PATCHES).logits)
    halved = model.model.vision_tower.to(torch.bfloat16)(pixels(), output_hidden_states=True).hidden_states
    assert {state.dtype for state in halved} == {torch.bfloat16}
    with refused(ConfigError, "has no read-out", "--dense-layer -2"):
        sparseformers.as_vision_tower(student_of(clip_vision()), dense=True)


def test_llava_builds_one_from_a_configuration() -> None:
    model = llava(vision=sparseformers.as_vision_tower(student_of(clip_vision(), tokens=4)).config)
    assert type(model.model.vision_tower.student) is SparseFormer
    assert say(model, 4).logits.isfinite().all()


def test_bad_images_are_refused() -> None:
    for shape, told in (((3, 32, 32), "images must be B x 3 x H x W, not 3 x 32 x 32"), ((1, 3, 16, 16), "at least 32 pixels")):
        with pytest.raises(ValueError, match=told):
            sparseformers.as_vision_tower(small_model())(torch.zeros(shape))


def test_without_transformers_or_with_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "version", lambda _name: "4.9.2")
    with pytest.raises(TeacherError, match=r"transformers 4\.9\.2 is too old; versions 4\.52 to 5\.23 are tested"):
        sparseformers.as_vision_tower(small_model())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with refused(MissingExtraError, "'transformers' is not installed.", "pip install 'sparseformers[huggingface]'."):
        sparseformers.as_vision_tower(small_model())
