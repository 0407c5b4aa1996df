from .config import ViewConfig as ViewConfig
from .server import Page as Page
from .server import serve as serve
from .server import view as view
from .session import Session as Session
