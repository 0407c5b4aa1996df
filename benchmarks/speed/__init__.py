"""Speed in wall-clock time: a student beside its teacher and whatever else could do its work, in turns in one run."""

from benchmarks.speed.config import BenchmarkConfig
from benchmarks.speed.report import BenchmarkReport
from benchmarks.speed.run import benchmark
from benchmarks.speed.tables import benchmark_tables, operator_tables, summary
from benchmarks.speed.targets import judge, settings_for_targets, targets_of, targets_table

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
