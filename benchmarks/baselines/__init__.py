"""What a student has to beat without any training: the teacher at a lower resolution, and the teacher with merged tokens."""

from benchmarks.baselines.schedule import merged_for_budget, merging_multiply_adds
from benchmarks.baselines.token_merging import TokenMergingTeacher
from sparseformers.evaluation.rebuilt import LowResolutionTeacher, RebuiltTeacher

__all__ = [
    "LowResolutionTeacher",
    "RebuiltTeacher",
    "TokenMergingTeacher",
    "merged_for_budget",
    "merging_multiply_adds",
]
