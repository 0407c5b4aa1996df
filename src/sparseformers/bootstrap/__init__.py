"""Bootstrapping: align a student that inherited from a teacher to it, on plain images, without labels."""

from sparseformers.bootstrap.config import BootstrapConfig
from sparseformers.bootstrap.plan import Plan, make_plan, plan_of
from sparseformers.bootstrap.plan_config import PlanConfig, Scale
from sparseformers.bootstrap.run import bootstrap, resume
from sparseformers.bootstrap.run_folder import RunFolder
from sparseformers.bootstrap.summary import RunSummary

__all__ = [
    "BootstrapConfig",
    "Plan",
    "PlanConfig",
    "RunFolder",
    "RunSummary",
    "Scale",
    "bootstrap",
    "make_plan",
    "plan_of",
    "resume",
]
