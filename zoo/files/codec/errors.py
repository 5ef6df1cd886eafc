"""What is wrong with a coded file."""

from zoo.errors import SlimzooError


class CodedError(SlimzooError):
    """The bytes are not what an encoder wrote."""
