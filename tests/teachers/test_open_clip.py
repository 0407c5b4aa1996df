"""OpenCLIP's image towers as teachers: identity in every variant, hub, files, and what is refused."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.testing import assert_close

from sparseformers.config import CLIP_MEAN, CLIP_STD
from sparseformers.errors import TeacherError, WeightsError
from sparseformers.teachers import load_teacher
from sparseformers.teachers import open_clip as adapter
from sparseformers.teachers import open_clip_names as names
from tests.refusals import refused
from tests.teachers.identity import check_identity, images_for, randomise
from tests.teachers.timm_families import small

TOWER: dict[str, Any] = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
TEXT: dict[str, Any] = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1}
ARCHITECTURE = "ViT-S-32-alt"

VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "odd depth": {"layers": 3},
    "layer scale": {"ls_init_value": 0.1},
    "no pre-norm": {"no_ln_pre": True},
    "average pooling": {"pool_type": "avg"},
    "average pooling, then norm": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "class token, then norm": {"final_ln_after_pool": True},
    "query-key norm": {"qk_norm": True},
    "GELU by tanh": {"act_kwargs": {"approximate": "tanh"}},
    "another epsilon": {"norm_kwargs": {"eps": 1e-3}},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
    "tokens in its output": {"output_tokens": True},
}


def tiny(*, quick_gelu: bool = False, **options: Any) -> CLIP:
    return randomise(CLIP(16, {**TOWER, **options}, TEXT, quick_gelu=quick_gelu))


def of_family(family: str, proj: str | None = None) -> TimmModel:
    """A tower as OpenCLIP builds it, with a small trunk of another family of timm."""
    tower = siglip(proj=proj)
    tower.trunk = small(family)
    return tower


def siglip(*, proj: str | None = "none", trunk: dict[str, Any] | None = None) -> TimmModel:
    """A tower as OpenCLIP builds it for SigLIP, with a small trunk put in."""
    tower = TimmModel("vit_tiny_patch16_224", embed_dim=64, image_size=32, pool="avg", proj=proj)
    options: dict[str, Any] = {"class_token": False, "global_pool": "map", "num_classes": 0, "act_layer": "gelu_tanh"}
    options |= trunk or {}
    tower.trunk = VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, **options)
    if proj in ("linear", "mlp"):
        tower.head[-1] = nn.Linear(64, 16, bias=False) if proj == "linear" else tower.head[-1]
    return randomise(tower)


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity(variant: str) -> None:
    check_identity(adapter.from_module(tiny(**VARIANTS[variant])))


def test_identity_of_timm_towers() -> None:
    token = {"class_token": True, "global_pool": "token"}
    for proj, trunk, projection in (
        ("none", {}, None),
        ("linear", {}, 16),
        ("linear", token, 16),
        (None, {**token, "num_classes": 24}, 24),
    ):
        teacher = adapter.from_module(siglip(proj=proj, trunk=trunk))
        assert (teacher.anatomy.projection, teacher.anatomy.classes) == (projection, None)
        check_identity(teacher)


@pytest.mark.parametrize("tower", [tiny, lambda: tiny(pool_type="avg"), siglip])
def test_the_embedding_is_that_of_encode_image(tower: Any) -> None:
    network = tower()
    teacher = adapter.from_module(network)
    images = images_for(teacher)
    encode = network.encode_image if isinstance(network, CLIP) else network
    said = teacher(images)
    assert_close(said.embedding, encode(teacher.normalise(images)))
    assert said.logits is None


def test_preprocessing() -> None:
    network = tiny()
    preprocessing = adapter.from_module(network).preprocessing
    assert (preprocessing.mean, preprocessing.std) == (CLIP_MEAN, CLIP_STD)
    assert (preprocessing.resize, preprocessing.crop, preprocessing.interpolation) == ("shorter", 1.0, "bicubic")
    network.visual.preprocess_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash", "interpolation": "bilinear"}
    preprocessing = adapter.from_module(network, crop=0.9).preprocessing
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert (preprocessing.resize, preprocessing.crop, preprocessing.interpolation) == ("squash", 0.9, "bilinear")


REFUSED: list[tuple[Any, str]] = [
    (lambda: tiny(attentional_pool=True, attn_pooler_heads=2), "it pools by CoCa's attentional pooler"),
    (lambda: tiny(pool_type="none"), "its pooling 'none' is neither the class token nor the average"),
    (lambda: tiny(scale_fc=True), "not plain transformer blocks .*mlp.ln.weight"),
    (lambda: tiny(scaled_cosine_attn=True), "not plain transformer blocks .*attn.logit_scale"),
    (lambda: siglip(proj="mlp"), "its head has a part 'mlp' besides a linear projection"),
    (lambda: siglip(trunk={"global_pool": "max", "class_token": True}), "its pooling 'max' is none of"),
    (lambda: nn.Linear(2, 2), "its Linear is convolutional or otherwise not a plain vision transformer"),
]


def test_refused_modules_and_names() -> None:
    for network, reason in REFUSED:
        with pytest.raises(TeacherError, match=reason):
            adapter.from_module(network())
    for name, reason in (  # refused before anything is fetched
        ("RN50/openai", "its ModifiedResNet is convolutional"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "it pools by CoCa's attentional pooler"),
        ("ViTamin-S/datacomp1b", "it is a hybrid with a convolutional backbone"),
        ("convnext_base/laion400m_s13b_b51k", "its ConvNeXt is windowed, convolutional"),
    ):
        with pytest.raises(TeacherError, match=f"cannot be inherited from yet: {reason}"):
            load_teacher(f"open_clip:{name}")


@pytest.mark.parametrize("family", ["EVA-02's CLIP", "EVA-02, enormous", "Perception Encoder, core", "SigLIP 2, NaFlex"])
def test_identity_of_towers_of_other_families(family: str) -> None:
    teacher = load_teacher(of_family(family), image_size=64)
    assert type(teacher) is adapter.OpenClipTimmTeacher
    check_identity(teacher)
    check_identity(load_teacher(of_family(family), image_size=(48, 80)))


def test_architectures_of_other_families_are_known() -> None:
    rotary = {"EVA02-B-16", "PE-Core-S-16-384"}
    for name in (*rotary, "EVA01-g-14", "ViT-B-16-SigLIP2"):
        teacher = adapter.on_meta(name)
        assert (teacher.anatomy.positions is not None) == (name in rotary), name
        assert teacher.anatomy.classes is None


def test_unknown_names() -> None:
    for name, problem, remedy in (
        ("ViT-B-33/openai", "OpenCLIP has no architecture of the name 'ViT-B-33'.", "Did you mean 'ViT-B-32'"),
        ("qqq/openai", "OpenCLIP has no architecture of the name 'qqq'.", "open_clip.list_models() lists them."),
        ("ViT-B-32/laion2b_s34b", "OpenCLIP has no weights 'laion2b_s34b' of ViT-B-32.", "Did you mean 'laion2b_s34b_b79k'"),
        ("ViT-B-32", "'ViT-B-32' lacks a tag for its weights.", " more."),  # the known ones, but not all of them
        ("ViT-S-32-alt/openai", "OpenCLIP has no weights 'openai' of ViT-S-32-alt.", "give a file: open_clip:ViT-S-32-alt@FILE."),
    ):
        with refused(TeacherError, problem, remedy):
            load_teacher(f"open_clip:{name}")


def build(**options: Any) -> nn.Module:
    """A random tower of a real architecture."""
    tower = adapter._build(names.find_architecture(ARCHITECTURE), **options).to_empty(device="cpu")
    return randomise(tower)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a whole CLIP of a real architecture, in half precision."""
    path = tmp_path_factory.mktemp("weights") / "clip.safetensors"
    state = {f"visual.{name}": value.half() for name, value in build().state_dict().items()}
    save_file({**state, "logit_scale": torch.ones(()), "token_embedding.weight": torch.ones(4, 4)}, path)
    return path


def test_from_file_of_a_whole_clip_or_the_tower_alone(saved: Path, tmp_path: Path) -> None:
    tower = {f"module.{name}": value.half() for name, value in build().state_dict().items()}
    torch.save({"state_dict": tower}, tmp_path / "tower.pth")
    for path in (saved, tmp_path / "tower.pth"):
        teacher = load_teacher(f"open_clip:{ARCHITECTURE}@{path}")
        source = str(path) if path == saved else f"state_dict.module of {path}"
        assert (teacher.identity.source, teacher.identity.licence) == (source, None)
        images = images_for(teacher)
        assert_close(teacher(images).embedding, build().half().float()(teacher.normalise(images)))


def test_from_file_reads_the_size_off_the_weights(tmp_path: Path) -> None:
    network = build(size=(96, 96))
    save_file(network.state_dict(), tmp_path / "small.safetensors")
    teacher = load_teacher(f"open_clip:{ARCHITECTURE}@{tmp_path / 'small.safetensors'}")
    assert teacher.preprocessing.size == (96, 96)
    assert teacher.patch_tokens == 9
    assert load_teacher(f"open_clip:{ARCHITECTURE}@{tmp_path / 'small.safetensors'}", image_size=64).patch_tokens == 4


def test_from_file_of_other_weights(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"do not fit .*other shape: .* and [0-9]+ more") as error:
        load_teacher(f"open_clip:ViT-B-32@{saved}")
    assert error.value.problem.count("instead of") <= 10
    save_file({"surprise": torch.ones(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"holds no weights of this architecture: .* It has: surprise"):
        load_teacher(f"open_clip:{ARCHITECTURE}@{tmp_path / 'odd.safetensors'}")


def test_from_hub(saved: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"hf_hub": "owner/name/", "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash", "quick_gelu": True}
    monkeypatch.setattr(names, "expect_hub", lambda repository: None)
    monkeypatch.setattr(names, "get_pretrained_cfg", lambda architecture, tag: settings)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda settings: str(saved))
    teacher = load_teacher(f"open_clip:{ARCHITECTURE}/laion2b_test", image_size=96)
    assert teacher.anatomy.block.activation == "quick_gelu"
    assert teacher.preprocessing.resize == "squash"
    assert teacher.preprocessing.size == (96, 96)
    assert teacher.identity.licence == "MIT"
    assert capfd.readouterr() == ("", "")
