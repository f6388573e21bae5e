"""A candidate beside production on the same requests: bets that may be looked at after every one, and what follows."""
