"""Bootstrapping: align a student that inherited from a teacher to it, on plain images, without labels."""

from sparseformers.train.planning.config import PlanConfig, Scale
from sparseformers.train.planning.plan import Plan, make_plan, plan_of
from sparseformers.train.report import Report, write_report
from sparseformers.train.run import bootstrap, resume
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.settings import BootstrapConfig
from sparseformers.train.summary import RunSummary

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
