"""From a teacher to a student that is not trained yet."""

from sparseformers.inheritance.inheriting import Inheritance, default_tokens, inherit
from sparseformers.inheritance.shares import (
    GROUPS,
    InheritReport,
    Provenance,
    Shares,
    count_parameters,
    freeze_inherited,
    parameter_groups,
    split_depth,
)

__all__ = [
    "GROUPS",
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
