"""A rehearsal: accidents in a copy of what serves, and how long it takes until they are noticed and made good."""
