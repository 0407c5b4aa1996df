"""How close a student is to its teacher, and how much cheaper: alignment, nearest neighbours, cost.

Legend: M images (rows), D embedding width, Q queries, k neighbours. Centred cosine comes before plain cosine everywhere.
"""

from sparseformers.evaluate.alignment import Alignment, centred_cosine, measure_alignment
from sparseformers.evaluate.cost import Cost, Latency, compare_latency, measure_cost, multiply_adds, parameters
from sparseformers.evaluate.embeddings import Embedded, embed, embed_one
from sparseformers.evaluate.neighbours import Neighbours, knn_accuracy, nearest_neighbours
from sparseformers.evaluate.profile import Profile, measure_profile, profile_table
from sparseformers.evaluate.report import (
    Evaluation,
    align_labels,
    evaluate_labelled,
    evaluate_unlabelled,
    evaluation_table,
)

__all__ = [
    "Alignment",
    "Cost",
    "Embedded",
    "Evaluation",
    "Latency",
    "Neighbours",
    "Profile",
    "align_labels",
    "centred_cosine",
    "compare_latency",
    "embed",
    "embed_one",
    "evaluate_labelled",
    "evaluate_unlabelled",
    "evaluation_table",
    "knn_accuracy",
    "measure_alignment",
    "measure_cost",
    "measure_profile",
    "multiply_adds",
    "nearest_neighbours",
    "parameters",
    "profile_table",
]
