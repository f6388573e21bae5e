"""fastness turns unlabelled data into an encoder that holds."""

__version__ = "0.1.0"
