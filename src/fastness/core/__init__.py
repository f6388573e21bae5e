"""What all rooms share: errors, seeds, files, registration, recipes, hardware.

Nothing here knows of encoders or data. Every error that a user can mend is a `BadInput`, one that the work met
although the input was good a `Failure`, a policy's no a `GateRefused`; the command line prints each in one line and
ends with 2, 1 or 3. A random choice takes its generator from the run's seed and a path of names (`seeds`), never from
what ran before. Files are written beside their name, flushed and renamed (`files`). A thing that can be named by a user
stands in a `Registry`: one line from name to module, which is imported when the name is first asked for. The `Recipe`
is the one list of fields that decide what a training computes.
"""
