"""From a teacher to a student that is not trained yet."""

from sparseformers.inherit.groups import GROUPS, count_parameters, freeze_inherited, parameter_groups
from sparseformers.inherit.inherit import Inheritance, default_tokens, inherit
from sparseformers.inherit.provenance import Provenance
from sparseformers.inherit.report import BlockFate, InheritReport
from sparseformers.inherit.shares import Shares, split_depth

__all__ = [
    "GROUPS",
    "BlockFate",
    "InheritReport",
    "Inheritance",
    "Provenance",
    "Shares",
    "count_parameters",
    "default_tokens",
    "freeze_inherited",
    "inherit",
    "parameter_groups",
    "split_depth",
]
