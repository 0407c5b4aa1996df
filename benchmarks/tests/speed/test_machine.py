import pytest
import torch

from benchmarks.speed.backends import Route
from benchmarks.speed.machine import BYTES_READ, Machine, Product, machine_of, product
from benchmarks.tests.speed.made import MACHINE
from sparseformers.evaluation import multiply_adds


def test_rates__are_medians() -> None:
    assert MACHINE.rate("fp32") == 1000
    assert MACHINE.rate("int8") == 2000
    assert MACHINE.rate("bf16") is None
    assert MACHINE.bandwidth == pytest.approx(10 * BYTES_READ)


def test_share__is_of_the_product_in_the_same_turn() -> None:
    # 500 multiply-adds are half a product: half a second where a product takes one, and one where it takes two.
    assert MACHINE.share("fp32", 500, (0.5, 1.0, 4.0)) == pytest.approx(0.5)
    assert MACHINE.share("bf16", 500, (0.5, 1.0, 4.0)) is None


def test_floor__is_the_longer_of_computing_and_reading() -> None:
    computing = MACHINE.floor("fp32", 3000, 1)
    assert computing is not None
    assert (computing.seconds, computing.by) == (3.0, "multiply-adds")
    parameters = BYTES_READ  # four bytes each in fp32, one in int8
    reading = MACHINE.floor("fp32", 1, parameters)
    quantised = MACHINE.floor("int8", 1, parameters)
    assert reading is not None
    assert quantised is not None
    assert (reading.seconds, reading.by) == (pytest.approx(0.4), "weights")
    assert quantised.seconds == pytest.approx(0.1)
    assert MACHINE.floor("bf16", 1, 1) is None


def test_machine_of__takes_the_fastest_backend_of_each_turn() -> None:
    seconds = {
        Route("matrix product", "fp32", "eager"): (1.0, 4.0),
        Route("matrix product", "fp32", "openvino"): (2.0, 3.0),
        Route("matrix product", "int8", "openvino"): (0.5, 0.5),
    }
    assert machine_of(seconds, (1.0, 1.0), 10) == Machine({"fp32": (1.0, 3.0), "int8": (0.5, 0.5)}, (1.0, 1.0), 10)


def test_product__costs_what_it_says() -> None:
    subject = product(side=64)
    assert multiply_adds(subject.network, torch.empty(1, 3, 64, 64)) == subject.cost.multiply_adds == 64**3
    images = torch.rand(1, 3, 8, 8)
    small = Product(8)
    torch.testing.assert_close(small(images)[0], images[0, 0] @ small.linear.weight.T)
