from rich.console import Console
from rich.table import Table


def printed(table: Table) -> str:
    """What it looks like in a wide terminal."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
