from .run import DemoSummary as DemoSummary
from .run import PhotographFolders as PhotographFolders
from .run import gather_photographs as gather_photographs
from .run import run_demo as run_demo
