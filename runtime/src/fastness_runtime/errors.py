"""What a user can mend."""


class Unusable(ValueError):
    """An export, or an item, cannot be used; the message names it and the remedy in one line."""
