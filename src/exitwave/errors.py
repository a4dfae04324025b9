"""The errors that the command line shows as one line."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the bad value and the remedy. The command line prints it
    as it is and exits with status 2; a notebook shows it at the end of its traceback.
    """


class RunError(RuntimeError):
    """Something that was started well did not end well; the message is one line."""
