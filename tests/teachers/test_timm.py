"""timm's vision transformers as teachers: identity in every variant, files, and what is refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import GluMlp, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock, VisionTransformer
from torch import nn
from torch.testing import assert_close

from sparseformers.errors import ConfigError, TeacherError, WeightsError
from sparseformers.teachers import load_teacher
from sparseformers.teachers import timm as adapter
from tests.refusals import refused
from tests.teachers.identity import check_identity, images_for, randomise

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 5}

VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "odd depth": {"depth": 3},
    "no classifier": {"num_classes": 0},
    "layer scale": {"init_values": 0.1},
    "query-key norm": {"qk_norm": True},
    "no biases of query, key and value": {"qkv_bias": False},
    "no bias of the attention": {"proj_bias": False},
    "pre-norm": {"pre_norm": True, "norm_layer": nn.LayerNorm},
    "post-norm": {"block_fn": ResPostBlock},
    "RMSNorm": {"norm_layer": RmsNorm, "embed_norm_layer": RmsNorm},
    "norms inside": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "quick GELU": {"act_layer": "quick_gelu"},
    "GELU by tanh": {"act_layer": "gelu_tanh"},
    "registers": {"reg_tokens": 3},
    "registers without positions": {"reg_tokens": 3, "no_embed_class": True},
    "class token without position": {"no_embed_class": True},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers but no class token": {"class_token": False, "reg_tokens": 2, "global_pool": "avg"},
    "average pooling": {"global_pool": "avg"},
    "average pooling with the class token": {"global_pool": "avg", "pool_include_prefix": True},
    "average pooling after the norm": {"global_pool": "avg", "fc_norm": False},
    "class token, then norm": {"fc_norm": True},
    "no final norm": {"final_norm": False},
    "attention pooling": {"class_token": False, "global_pool": "map", "num_classes": 0},
    "attention pooling beside a class token": {"global_pool": "map", "act_layer": "gelu_tanh"},
    "attention pooling with the class token": {"global_pool": "map", "pool_include_prefix": True},
    "SwiGLU, packed": {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "init_values": 0.1, "mlp_ratio": 4},
    "SwiGLU": {"mlp_layer": SwiGLU, "act_layer": nn.SiLU},
    "another feed-forward width": {"mlp_ratio": 2.5},
}


def tiny(**options: Any) -> VisionTransformer:
    return randomise(VisionTransformer(**{**TINY, **options}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity(variant: str) -> None:
    network = tiny(**VARIANTS[variant])
    teacher = adapter.from_module(network)
    check_identity(teacher)
    # The teacher embeds as the module does.
    images = images_for(teacher)
    output = teacher(images)
    assert_close(network(teacher.normalise(images)), output.embedding if output.logits is None else output.logits)


def test_identity_of_a_clip() -> None:
    network = timm.create_model(
        "vit_base_patch32_clip_quickgelu_224.openai", embed_dim=64, depth=2, num_heads=2, num_classes=512, img_size=64
    )
    teacher = load_teacher(randomise(network))
    assert teacher.anatomy.projection == 512
    assert teacher.anatomy.classes is None
    assert teacher.anatomy.block.activation == "quick_gelu"
    check_identity(teacher)


def test_a_clip_tuned_to_classify_has_a_classifier() -> None:
    name = "vit_base_patch32_clip_224.laion2b_ft_in12k_in1k"
    network = timm.create_model(name, embed_dim=64, depth=1, num_heads=2, img_size=64)
    anatomy = load_teacher(network).anatomy
    assert anatomy.classes == 1000
    assert anatomy.projection is None


def test_sizes_and_crops_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images of \(32, 32\), not \(40, 32\)"):
        load_teacher(tiny())(torch.zeros(1, 3, 40, 32))

    assert [load_teacher(tiny(), crop=crop).preprocessing.crop for crop in (0.5, None)] == [0.5, 0.875]
    with pytest.raises(ConfigError, match=r"crop must be in \(0, 1\], not 0"):
        load_teacher(tiny(), crop=0.0)


def test_preprocessing_is_the_models_own() -> None:
    siglip = timm.create_model("vit_base_patch16_siglip_224", embed_dim=64, depth=1, num_heads=2)
    preprocessing = load_teacher(siglip).preprocessing
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.size == (224, 224)


def test_fingerprint_depends_on_the_weights() -> None:
    first, again, other = load_teacher(tiny()), load_teacher(tiny()), load_teacher(randomise(tiny(), seed=1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def with_other_norm(network: VisionTransformer) -> VisionTransformer:
    network.norm = RmsNorm(64, eps=network.blocks[0].norm1.eps)
    return network


REFUSED: dict[str, tuple[Any, str]] = {
    "max pooling": (partial(tiny, global_pool="max"), "its pooling 'max' is none of token, average or attention pooling"),
    "parallel blocks": (partial(tiny, block_fn=ParallelScalingBlock), "its ParallelScalingBlock blocks are not plain"),
    "norms of two kinds": (lambda: with_other_norm(tiny()), "it normalises by RmsNorm, too"),
    "differential attention": (partial(tiny, attn_layer="diff"), "its DiffAttention is not plain attention"),
    "activation": (partial(tiny, act_layer="hard_swish"), "its activation is Hardswish"),
    "gate at the end": (partial(tiny, mlp_layer=partial(GluMlp, gate_last=True)), "is the last half, not the first"),
    "gated feed-forward in pooling": (
        partial(tiny, global_pool="map", mlp_layer=SwiGLUPacked, act_layer=nn.SiLU),
        "its attention pooling is not that of SigLIP",
    ),
    "subclass": (lambda: type("Changed", (VisionTransformer,), {})(**TINY), "its Changed changes the vision transformer"),
    "not a transformer": (lambda: nn.Linear(2, 2), "its Linear is windowed, convolutional or otherwise not a plain"),
}


def test_refused_modules_and_names() -> None:
    for build, reason in REFUSED.values():
        with pytest.raises(TeacherError, match=rf"{reason}.* timm:vit_base_patch16_224\.augreg_in21k_ft_in1k"):
            load_teacher(build())
    for name, reason in (  # refused before anything is fetched
        ("swin_tiny_patch4_window7_224", "its SwinTransformer is windowed"),
        ("xcit_nano_12_p16_224", "its Xcit is windowed"),
        ("vit_tiny_r_s16_p8_224", "it is a hybrid with a convolutional backbone"),
        ("vit_dwee_patch16_reg1_gap_256", "its DiffAttention is not plain attention"),
        ("resnet18", "its ResNet is windowed, convolutional"),
    ):
        with pytest.raises(TeacherError, match=f"'timm:{name}' cannot be inherited from yet: {reason}"):
            load_teacher(f"timm:{name}")


def test_unknown_names__and_an_architecture_without_weights() -> None:
    for name, suggestion in (
        ("vit_tinny_patch16_224", "Did you mean 'vit_tiny_patch16_224'"),
        ("vit_tiny_patch16_224.augreg_in21", "Did you mean 'vit_tiny_patch16_224.augreg_in21k'"),
        ("qqqqqqqq", ".*list_pretrained"),
    ):
        with pytest.raises(TeacherError, match=rf"timm has no (model|weights) of the name .*\. {suggestion}"):
            load_teacher(f"timm:{name}")
    problem, remedy = "timm has no weights for 'vit_base_patch16_plus_240'.", "Give them as timm:vit_base_patch16_plus_240@FILE."
    with refused(TeacherError, problem, remedy):
        load_teacher("timm:vit_base_patch16_plus_240")


def test_from_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(adapter, "expect_hub", lambda repository: None)
    monkeypatch.setattr(
        timm, "create_model", lambda name, *, pretrained=False, **options: create(name, pretrained=False, **options)
    )
    teacher = load_teacher("timm:vit_tiny_patch16_224.augreg_in21k", image_size=64, crop=0.75)
    assert teacher.identity.name == "timm:vit_tiny_patch16_224.augreg_in21k"
    assert teacher.identity.licence == "Apache-2.0"
    assert teacher.preprocessing.size == (64, 64)
    assert teacher.preprocessing.crop == 0.75
    assert teacher.preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled ViT-Ti/16 at 64 pixels with seven classes, in half precision."""
    network = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64))
    path = tmp_path_factory.mktemp("weights") / "labelled.safetensors"
    names = json.dumps([f"class {index}" for index in range(7)])
    save_file({name: value.half() for name, value in network.state_dict().items()}, path, metadata={"class_names": names})
    return path


def test_from_file_reads_classes_and_size_off_the_weights(saved: Path) -> None:
    teacher = load_teacher(f"timm:vit_tiny_patch16_224@{saved}")
    assert teacher.preprocessing.size == (64, 64)
    assert teacher.anatomy.classes == 7
    assert teacher.identity.class_names == tuple(f"class {index}" for index in range(7))
    assert teacher.identity.source == str(saved)
    assert teacher.identity.licence is None
    assert all(value.dtype == torch.float32 for value in teacher.cortex_state().values())
    assert load_teacher(f"timm:vit_tiny_patch16_224@{saved}", image_size=96).preprocessing.size == (96, 96)
    network = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64)).half().float()
    images = images_for(teacher)
    assert_close(teacher(images).logits, network(teacher.normalise(images)))


def test_missing_and_unexpected_weights_are_listed(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved)
    removed = sorted(name for name in state if name.startswith("blocks.1."))
    kept = {name: value for name, value in state.items() if name not in removed}
    save_file({**kept, "surprise": torch.zeros(1)}, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError) as error:
        load_teacher(f"timm:vit_tiny_patch16_224@{tmp_path / 'cut.safetensors'}")
    assert f"missing: {', '.join(removed[:10])} and {len(removed) - 10} more; unexpected: surprise" in error.value.problem
    assert error.value.remedy == "Check that the file belongs to this architecture."


def test_the_labelled_teacher(shared: Path) -> None:
    path = shared / "teacher" / "vit_s14_caltech101.safetensors"
    teacher = load_teacher(f"timm:vit_small_patch14_dinov2@{path}", crop=0.875)
    assert len(set(teacher.identity.class_names)) == teacher.anatomy.classes == 101
    assert teacher.preprocessing.size == (224, 224)
    assert teacher.preprocessing.crop == 0.875
    assert teacher.patch_tokens == 256
