from .photographs import PhotographFolders as PhotographFolders
from .photographs import gather_photographs as gather_photographs
from .run import DemoSummary as DemoSummary
from .run import run_demo as run_demo
