"""The one exception for what a user can mend."""


class UserError(Exception):
    """Bad input. The command line prints its one line and exits with code 2.

    The message names the file (or command), the field, and the remedy.
    """


class Lost(UserError):
    """Another process of the same job has ended, and has said why."""
