"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Something the user can mend: a wrong path, value, file or annotation.

    The message is one line that says what was got, what was expected and where. The
    command line prints it and exits with code 2; a library user sees it as usual.
    """

    def __str__(self) -> str:
        """Returns the message in one line, whatever names and values it quotes."""
        return " ".join(super().__str__().splitlines())
