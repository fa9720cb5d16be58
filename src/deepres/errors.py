"""The one exception for bad input."""


class InputError(Exception):
    """Bad input from the person at the keyboard: one sentence that says what, where and how to mend it.

    The command line prints the sentence and exits with code 2; there is never a traceback.
    """
