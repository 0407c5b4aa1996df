"""The demonstration: bootstrap from the bundled teacher on the photographs that scikit-image and scikit-learn ship."""

from sparseformers.demo.photographs import PhotographFolders, gather_photographs
from sparseformers.demo.run import DemoSummary, run_demo

__all__ = ["DemoSummary", "PhotographFolders", "gather_photographs", "run_demo"]
