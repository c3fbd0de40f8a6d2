"""harness env"""

import typer


def command(device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:<i>")) -> None:
    """Show the machine, versions and commit as recorded beside every measurement."""
    print(device)
