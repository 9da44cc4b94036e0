"""How the commands tell errors and warnings: as sentences, with the exit code 1."""

import contextlib
import errno
import functools
import traceback
import warnings

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.terminal import say, strip_control

TRACEBACK = "keras_vit.traceback"
MOST_LINES, LONGEST_LINE = 12, 1500  # of an error


def readable_errors(command):
    """Turns every error into a sentence and exit code 1 instead of a traceback, which `--traceback` shows."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            say("Interrupted.", err=True)
            raise click.exceptions.Exit(130) from None
        except Exception as error:
            if click.get_current_context().meta.get(TRACEBACK):
                say(traceback.format_exc(), err=True)
                raise click.exceptions.Exit(1) from error
            raise click.ClickException(sentence_of(error)) from error

    def remember(context, _, value):
        context.meta[TRACEBACK] = value

    return click.option(
        "--traceback", is_flag=True, expose_value=False, callback=remember, help="Show where an error was raised."
    )(wrapped)


def sentence_of(error):
    """What the command says of an exception: its message, shortened, and of an unexpected kind that it is a fault."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and str(error).startswith("[Errno"):
        return f"Standard output cannot be written: {error.strerror}."  # all files that are written have a name
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)  # a KeyError would quote it
    lines = [line.rstrip() for line in strip_control(said).splitlines() if line.strip()] or ["no message"]
    text = "\n".join(line[:LONGEST_LINE] + " ..." * (len(line) > LONGEST_LINE) for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        text += f"\n... and {len(lines) - MOST_LINES} lines more (--traceback shows all)"
    if isinstance(error, (ValueError, OSError, ImportError, kv.export.ParityError)) and type(error) is not UnicodeError:
        return text
    return f"{type(error).__name__}: {text}\nThis is a fault of keras-vit, not of yours: --traceback shows where."


class Commands(click.Group):
    """Commands whose errors of usage, which quote the command line, are no orders to a terminal."""

    def make_context(self, *args, **kwargs):
        with _readable_usage():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx):
        with _readable_usage():
            return super().invoke(ctx)


@contextlib.contextmanager
def _readable_usage():
    try:
        yield
    except click.ClickException as error:
        error.message = strip_control(error.message)
        raise


@contextlib.contextmanager
def short_warnings():
    """Within the context, warnings are printed as lines."""
    before, warnings.showwarning = warnings.showwarning, _print_warning
    try:
        yield
    finally:
        warnings.showwarning = before


def _print_warning(message, category, filename, lineno, file=None, line=None):
    """A warning to the user as a line; those for developers are left out."""
    if issubclass(category, UserWarning) or category is RuntimeWarning:
        say(f"Warning: {message}", err=True)
