import io

from rich.console import Console

from benchmarks.recipes.progress import Trainings, embedding_bar


def announced(trainings: Trainings, what: str, how: str) -> str:
    output = trainings.console.file
    assert isinstance(output, io.StringIO)
    output.seek(0)
    output.truncate()
    trainings.announce(what, how)
    return output.getvalue().strip()


def test_trainings__say_which_of_how_many_and_learn_the_time_that_is_left() -> None:
    trainings = Trainings(Console(file=io.StringIO(), width=200), 4, unfinished=3, seconds=None)
    assert announced(trainings, "paper, seed 0", "starts") == "training 1 of 4: paper, seed 0, starts"
    trainings.finished(600, before=False)
    expected = "training 2 of 4: paper, seed 1, finished before; about 20 min of training left"
    assert announced(trainings, "paper, seed 1", "finished before") == expected
    trainings.finished(1200, before=True)
    assert announced(trainings, "mine, seed 0", "starts").endswith("starts; about 30 min of training left")
    trainings.failed()
    assert announced(trainings, "mine, seed 1", "goes on").endswith("goes on; about 15 min of training left")


def test_trainings__know_the_time_of_a_budget_on_the_clock() -> None:
    trainings = Trainings(Console(file=io.StringIO(), width=200), 30, unfinished=20, seconds=600)
    assert announced(trainings, "paper, seed 0", "starts").endswith("about 3.3 h of training left")


def test_trainings__with_nothing_left_to_do() -> None:
    trainings = Trainings(Console(file=io.StringIO(), width=200), 1, unfinished=0, seconds=600)
    assert announced(trainings, "paper, seed 0", "finished before") == "training 1 of 1: paper, seed 0, finished before"


def test_embedding_bar__is_quiet_without_a_terminal() -> None:
    output = io.StringIO()
    with embedding_bar(Console(file=output), "test images", 3) as advance:
        advance(3)
    assert output.getvalue() == ""
