"""Bootstrapping: align a student that inherited from a teacher to it, on plain images, without labels."""

from sparseformers.bootstrap.config import BootstrapConfig
from sparseformers.bootstrap.planning.config import PlanConfig, Scale
from sparseformers.bootstrap.planning.plan import Plan, make_plan, plan_of
from sparseformers.bootstrap.report import Report, write_report
from sparseformers.bootstrap.reporting.summary import RunSummary
from sparseformers.bootstrap.run import bootstrap, resume
from sparseformers.bootstrap.run_folder import RunFolder

__all__ = [
    "BootstrapConfig",
    "Plan",
    "PlanConfig",
    "Report",
    "RunFolder",
    "RunSummary",
    "Scale",
    "bootstrap",
    "make_plan",
    "plan_of",
    "resume",
    "write_report",
]
