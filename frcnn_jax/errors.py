"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Something the user can fix: a wrong path, value, file or annotation.

    The message is one line that says what was found, what was expected and where. The
    command line prints it and exits with code 2; a library user sees it as usual.
    """

    def __str__(self) -> str:
        """Returns the message in one line, whatever names and values it quotes."""
        return " ".join(super().__str__().splitlines())


def first_line(error: BaseException) -> str:
    """Returns the first line of an error, without the libraries' further lines."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
