"""Speed in wall-clock time: a student beside its teacher and whatever else could do its work, in turns in one run."""

from benchmarks.speed.config import SpeedConfig
from benchmarks.speed.report import SpeedReport
from benchmarks.speed.run import measure_speed
from benchmarks.speed.tables import operator_tables, speed_tables, summary
from benchmarks.speed.targets import judge, settings_for_targets, targets_of, targets_table

__all__ = [
    "SpeedConfig",
    "SpeedReport",
    "judge",
    "measure_speed",
    "operator_tables",
    "settings_for_targets",
    "speed_tables",
    "summary",
    "targets_of",
    "targets_table",
]
