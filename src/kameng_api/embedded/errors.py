"""What can go wrong while servers are started; the message is written for the person at the terminal."""


class EmbeddedError(RuntimeError):
    """The servers could not be started, reached or stopped; the text says what to look at."""
