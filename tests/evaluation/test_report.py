import torch
from rich.table import Table
from torch import Tensor
from torch.nn.functional import one_hot

from sparseformers.evaluation import Embedded, Evaluation, evaluate_labelled, evaluate_unlabelled, measure_alignment
from tests.evaluation.printed import printed


def near(labels: Tensor, *, noise: float = 0.1) -> Tensor:
    """Embeddings that lie at the corner of their class."""
    return one_hot(labels, 4).float() + noise * torch.randn(len(labels), 4)


def embedded(student: Tensor, teacher: Tensor, *, indices: Tensor | None = None, logits: bool = False) -> Embedded:
    """Embeddings that are their own logits where asked for."""
    rows = torch.arange(len(teacher)) if indices is None else indices
    return Embedded(student, teacher, student if logits else None, teacher if logits else None, rows)


def text_of(table: Table) -> list[list[str]]:
    """The rendered rows, cell by cell."""
    return [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in printed(table).splitlines()]


def test_unlabelled_images_are_measured_for_alignment_and_for_agreement_on_the_class() -> None:
    student, teacher = torch.randn(20, 4), torch.randn(20, 4)
    evaluation = evaluate_unlabelled(embedded(student, teacher), skipped=3)
    assert evaluation == Evaluation(alignment=measure_alignment(student, teacher), skipped=3)
    teacher = torch.eye(4)
    student = torch.eye(4)[[0, 1, 2, 0]]
    assert evaluate_unlabelled(embedded(student, teacher, logits=True)).classifier_agreement == 0.75


def test_accuracies_by_hand() -> None:
    """A teacher that knows all classes, and a student that has swapped two of them."""
    labels = torch.arange(40) % 4
    swapped = torch.tensor([0, 1, 3, 2])[labels]
    test = embedded(near(swapped), near(labels), logits=True)
    index = embedded(near(swapped), near(labels))
    evaluation = evaluate_labelled(test, labels, index, labels, 4, False)
    assert evaluation.knn_teacher == 1.0
    assert evaluation.knn_student == 1.0  # in its own index the swap does not show
    assert evaluation.knn_drop_in == 0.5  # in the teacher's it does
    assert evaluation.classifier_teacher == 1.0
    assert evaluation.classifier_student == 0.5
    assert evaluation.classifier_agreement == 0.5
    assert evaluation.alignment == measure_alignment(test.student, test.teacher)


def test_one_split_is_classified_without_itself() -> None:
    points, labels = torch.randn(60, 4), torch.randint(10, (60,))
    one = embedded(points, points)
    flattering = evaluate_labelled(one, labels, one, labels, 10, False)
    honest = evaluate_labelled(one, labels, one, labels, 10, True)
    assert honest.knn_teacher == honest.knn_student == honest.knn_drop_in
    assert honest.knn_teacher < 0.3 < flattering.knn_teacher


def test_rows_find_their_labels_where_images_are_missing() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3] * 5)
    readable = torch.tensor([i for i in range(40) if i % 3])
    rows = near(labels)[readable]
    test = embedded(rows, rows, indices=readable, logits=True)
    evaluation = evaluate_labelled(test, labels.tolist(), test, labels.tolist(), 4, True, skipped=40 - len(readable))
    assert evaluation.knn_teacher == evaluation.classifier_teacher == 1.0
    assert evaluation.skipped == 14


def test_a_classifier_of_other_classes_is_not_scored() -> None:
    labels = torch.arange(20) % 3
    test = embedded(near(labels), near(labels), logits=True)  # 4 logits, 3 classes
    evaluation = evaluate_labelled(test, labels, test, labels, 3, True)
    assert evaluation.classifier_teacher is evaluation.classifier_student is None
    assert evaluation.classifier_agreement == evaluation.knn_teacher == 1.0


def test_a_classifier_in_another_order_is_scored_by_name() -> None:
    folders, outputs = ["ant", "bee", "cat", "dog"], ["dog", "ant", "cat", "bee"]
    labels = torch.arange(20) % 4
    by_output = near(torch.tensor([1, 3, 2, 0])[labels])
    test = embedded(by_output, by_output, logits=True)

    def score(names: list[str] | None) -> float | None:
        options = {"class_names": folders, "teacher_class_names": names}
        return evaluate_labelled(test, labels, test, labels, 4, True, **options).classifier_student

    assert score(outputs) == 1.0
    assert score(None) == 0.25  # taken to be in the folders' order, in which only 'cat' has its place
    assert score(["dog", "ant", "cat", "eel"]) is None
    assert score([*outputs, "dog"]) is None


def test_the_table_says_centred_cosine_first_and_baselines_beside_the_rest_and_leaves_out_what_was_not_measured() -> None:
    labels = torch.arange(60) % 4
    test = embedded(near(labels, noise=0.5), near(labels), logits=True)
    evaluation = evaluate_labelled(test, labels, test, labels, 4, True, skipped=2)
    alignment = evaluation.alignment
    table = text_of(evaluation.tables("SF-S beside its teacher")[0])
    rows = {row[0]: row[1:] for row in table if len(row) == 4}
    measures = [row[0] for row in table if len(row) == 4]
    assert measures[:3] == ["measure", "centred cosine to the teacher", "cosine, mean"]
    assert rows["measure"][:2] == ["teacher", "student"]
    assert rows["centred cosine to the teacher"][1] == f"{alignment.centred_cosine:.3f}"
    baseline = f"{alignment.constant_baseline:.3f} (constant output)"
    assert rows["cosine, mean"] == ["", f"{alignment.cosine_mean:.3f}", baseline]
    agreement = rows["agreement of the 10 nearest neighbours"]
    assert agreement == ["", f"{alignment.neighbour_agreement:.1%}", "16.9% (chance)"]
    assert rows["k-NN top-1"][:2] == [f"{evaluation.knn_teacher:.1%}", f"{evaluation.knn_student:.1%}"]
    assert rows["k-NN top-1 in the teacher's index"][1] == f"{evaluation.knn_drop_in:.1%}"
    assert rows["classifier top-1"][0] == f"{evaluation.classifier_teacher:.1%}"
    assert any("60 images, 2 unreadable skipped" in cell for row in table for cell in row)
    assert "top-1" not in printed(evaluate_unlabelled(embedded(test.student, test.teacher)).tables("no labels")[0])
