"""What a user sees of an error: a message on stderr and an exit code, never a stack trace that was not asked for."""

from __future__ import annotations

import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from kafetrain.errors import ConfigurationError, KafetrainError

__all__ = ["FAILED", "INTERRUPTED", "WRONG_USAGE", "ErrorBoundary"]

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


class ErrorBoundary(TyperGroup):
    """The outermost group of commands; every error of theirs passes here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # `kafetrain ... | head`: typer ends quietly
            raise
        except KafetrainError as error:
            trace = traceback.format_exc()
            code = WRONG_USAGE if isinstance(error, ConfigurationError) else FAILED
            text = str(error) or type(error).__name__
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise  # typer's own: it shows them well, and knows the code
            trace = traceback.format_exc()
            code = FAILED
            text = (
                f"unexpected {type(error).__name__}: {error}\nThis should not happen; --traceback shows where it did."
            )
        if ctx.params.get("traceback"):
            typer.echo(trace, err=True, nl=False)
        typer.echo(f"error: {text}", err=True)
        raise typer.Exit(code)
