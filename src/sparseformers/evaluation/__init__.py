"""How close a student is to its teacher, and how much cheaper: alignment, nearest neighbours, cost.

Legend: M images (rows), D embedding width, Q queries, k neighbours. Centred cosine comes before plain cosine everywhere.
"""

from sparseformers.evaluation.alignment import Alignment, centred_cosine, cosine_of_each, measure_alignment
from sparseformers.evaluation.attention import AttentionMaps, TeacherAttention, token_influence
from sparseformers.evaluation.conditions import Condition, shift_conditions
from sparseformers.evaluation.correlation import rank_correlation
from sparseformers.evaluation.cost import (
    Cost,
    Latency,
    compare_latency,
    measure_cost,
    multiply_adds,
    parameters,
    published_multiply_adds,
    summarise_latency,
)
from sparseformers.evaluation.embeddings import Embedded, embed, embed_one
from sparseformers.evaluation.focus import Drift, measure_drift
from sparseformers.evaluation.focus_report import FocusReport, focus_table
from sparseformers.evaluation.looks import measure_focus
from sparseformers.evaluation.neighbours import Neighbours, knn_accuracy, nearest_neighbours
from sparseformers.evaluation.profile import Profile, measure_profile, profile_table
from sparseformers.evaluation.report import (
    Evaluation,
    align_labels,
    evaluate_labelled,
    evaluate_unlabelled,
    evaluation_table,
)
from sparseformers.evaluation.shift_report import ShiftReport, shifts_table, worst_table
from sparseformers.evaluation.shifts import measure_shifts, views_of
from sparseformers.evaluation.training_cost import TrainingCost, measure_training_cost, training_multiply_adds

__all__ = [
    "Alignment",
    "AttentionMaps",
    "Condition",
    "Cost",
    "Drift",
    "Embedded",
    "Evaluation",
    "FocusReport",
    "Latency",
    "Neighbours",
    "Profile",
    "ShiftReport",
    "TeacherAttention",
    "TrainingCost",
    "align_labels",
    "centred_cosine",
    "compare_latency",
    "cosine_of_each",
    "embed",
    "embed_one",
    "evaluate_labelled",
    "evaluate_unlabelled",
    "evaluation_table",
    "focus_table",
    "knn_accuracy",
    "measure_alignment",
    "measure_cost",
    "measure_drift",
    "measure_focus",
    "measure_profile",
    "measure_shifts",
    "measure_training_cost",
    "multiply_adds",
    "nearest_neighbours",
    "parameters",
    "profile_table",
    "published_multiply_adds",
    "rank_correlation",
    "shift_conditions",
    "shifts_table",
    "summarise_latency",
    "token_influence",
    "training_multiply_adds",
    "views_of",
    "worst_table",
]
