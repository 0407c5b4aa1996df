"""What a student has to beat without any training: the teacher at a lower resolution, and the teacher with merged tokens."""

from sparseformers.baselines.low_resolution import LowResolutionTeacher
from sparseformers.baselines.rebuilt import RebuiltTeacher
from sparseformers.baselines.schedule import merged_for_budget, merging_multiply_adds
from sparseformers.baselines.token_merging import TokenMergingTeacher

__all__ = [
    "LowResolutionTeacher",
    "RebuiltTeacher",
    "TokenMergingTeacher",
    "merged_for_budget",
    "merging_multiply_adds",
]
