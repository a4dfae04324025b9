"""The one kind of error that a user's input can cause."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the bad value and the remedy. The command line prints it
    as it is and exits with status 2; a notebook shows it at the end of its traceback.
    """
