import pytest

from sparseformers.released.form import name_table, rename, reverse

BOOTSTRAPPED = name_table("focusing", depth=2, head="projection")
V1 = name_table("original", depth=2, head="classifier")


@pytest.mark.parametrize(
    ("table", "theirs", "ours"),
    [
        (BOOTSTRAPPED, "layers.0.attn.qkv.bias", "focusing.layer.block.attn.qkv.bias"),
        (BOOTSTRAPPED, "layers.0.roi_adjust_module.3.weight", "focusing.layer.adjustment.delta.3.weight"),
        (BOOTSTRAPPED, "layers.1.0.weight", "focusing.widen.weight"),
        (BOOTSTRAPPED, "layers.2.pe_transition.1.bias", "focusing.last_sampling.position.projection.bias"),
        (BOOTSTRAPPED, "layers.4.mlp.fc1.weight", "cortex.blocks.1.mlp.fc1.weight"),
        (BOOTSTRAPPED, "proj.weight", "cortex.projection.weight"),
        (V1, "layers.1.1.weight", "focusing.widen.1.weight"),
        (V1, "layers.2.norm1.weight", "focusing.last_layer.block.norm1.weight"),
        (V1, "layers.2.adaptive_mixing.m_beta", "focusing.last_layer.sampling.mixing.channel_bias"),
        (V1, "layers.2.roi_adjust_module.1.weight", "focusing.last_layer.adjustment.delta.1.weight"),
        (V1, "proj.bias", "cortex.classifier.bias"),
    ],
)
def test_names(table: dict[str, str], theirs: str, ours: str) -> None:
    assert rename({theirs: 1}, table) == {ours: 1}
    assert rename({ours: 1}, reverse(table)) == {theirs: 1}


@pytest.mark.parametrize("name", ["layers.5.norm1.weight", "layers.1.1.weight", "head.weight", "normal.weight"])
def test_names_that_the_authors_do_not_have(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        rename({name: 1}, name_table("focusing", depth=2, head="classifier"))
