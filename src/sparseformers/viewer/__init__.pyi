from .config import ViewConfig as ViewConfig
from .run import serve as serve
from .run import view as view
from .server import Page as Page
from .session import Session as Session
