"""Speed in wall-clock time: a student beside its teacher and whatever else could do its work, in turns in one run."""

from sparseformers.benchmark.config import BenchmarkConfig
from sparseformers.benchmark.report import BenchmarkReport
from sparseformers.benchmark.run import benchmark
from sparseformers.benchmark.tables import benchmark_tables, operator_tables, summary
from sparseformers.benchmark.targets import judge, settings_for_targets, targets_of, targets_table

__all__ = [
    "BenchmarkConfig",
    "BenchmarkReport",
    "benchmark",
    "benchmark_tables",
    "judge",
    "operator_tables",
    "settings_for_targets",
    "summary",
    "targets_of",
    "targets_table",
]
