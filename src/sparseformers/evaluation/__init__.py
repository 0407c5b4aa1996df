"""How close a student is to its teacher, and how much cheaper: alignment, classification, retrieval, cost and time.

``run`` has :func:`evaluate` and ``profile`` has :func:`profile.profile`, which the commands call; the other files measure.
Legend: M images (rows), D embedding width, Q queries, k neighbours. Centred cosine comes before plain cosine everywhere.
"""

from sparseformers.evaluation.alignment import (
    Alignment,
    Neighbours,
    centred_cosine,
    cosine_of_each,
    knn_accuracy,
    measure_alignment,
    nearest_neighbours,
)
from sparseformers.evaluation.attention import AttentionMaps, TeacherAttention, rank_correlation, token_influence
from sparseformers.evaluation.conditions import Condition, shift_conditions
from sparseformers.evaluation.cost import (
    Cost,
    TrainingCost,
    measure_cost,
    measure_training_cost,
    multiply_adds,
    parameters,
    published_multiply_adds,
    training_multiply_adds,
)
from sparseformers.evaluation.embeddings import Embedded, embed, embed_one
from sparseformers.evaluation.profile import Latency, ProfileReport, summarise_latency
from sparseformers.evaluation.roi_measures import Drift, measure_drift
from sparseformers.evaluation.roi_report import RoIReport, RoIReports, measure_rois
from sparseformers.evaluation.run import Evaluation, align_labels, evaluate, evaluate_labelled, evaluate_unlabelled
from sparseformers.evaluation.shifts import ShiftReport, measure_shifts, views_of

__all__ = [
    "Alignment",
    "AttentionMaps",
    "Condition",
    "Cost",
    "Drift",
    "Embedded",
    "Evaluation",
    "Latency",
    "Neighbours",
    "ProfileReport",
    "RoIReport",
    "RoIReports",
    "ShiftReport",
    "TeacherAttention",
    "TrainingCost",
    "align_labels",
    "centred_cosine",
    "cosine_of_each",
    "embed",
    "embed_one",
    "evaluate",
    "evaluate_labelled",
    "evaluate_unlabelled",
    "knn_accuracy",
    "measure_alignment",
    "measure_cost",
    "measure_drift",
    "measure_rois",
    "measure_shifts",
    "measure_training_cost",
    "multiply_adds",
    "nearest_neighbours",
    "parameters",
    "published_multiply_adds",
    "rank_correlation",
    "shift_conditions",
    "summarise_latency",
    "token_influence",
    "training_multiply_adds",
    "views_of",
]
