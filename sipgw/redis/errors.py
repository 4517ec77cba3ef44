"""What may go wrong with a Redis."""


class RedisFault(Exception):
    """A command was not done, or nobody knows whether it was."""


class Unreachable(RedisFault):
    """No server takes commands now; this one was not sent, or not done."""


class Lost(RedisFault):
    """The connection ended, or was given up, after the command had been sent: it may have been done or not."""


class NoAnswer(Lost):
    """The command was sent, and its time went by without an answer."""


class Refused(RedisFault):
    """The server answered with an error; ``code`` is its first word, such as WRONGTYPE."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]
