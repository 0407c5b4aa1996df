"""Bootstrapping: align a student that inherited from a teacher to it, on plain images, without labels."""

from sparseformers.bootstrap.config import BootstrapConfig
from sparseformers.bootstrap.plan import Plan, make_plan
from sparseformers.bootstrap.run import RunSummary, bootstrap, resume
from sparseformers.bootstrap.run_folder import RunFolder

__all__ = ["BootstrapConfig", "Plan", "RunFolder", "RunSummary", "bootstrap", "make_plan", "resume"]
