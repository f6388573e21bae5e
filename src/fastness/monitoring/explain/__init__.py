"""Why what comes is otherwise: which items are new, which clusters grew, which columns moved, named in words."""
