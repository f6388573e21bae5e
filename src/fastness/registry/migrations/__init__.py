"""How the registry's tables came to be: one file a change, in order; none is ever edited once released."""
