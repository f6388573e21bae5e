"""The loop: schedule, budget, checkpoint, collapse watch, progress.

`plan` turns what was asked into a complete recipe, `assembly` turns that into things, `loop` makes steps, and `run`
does all of it for a folder: resume, events, bundle. Batches are a function of the seed and the step's number, so that
a run that was killed goes on from its checkpoint to the same weights, bit for bit on the same machine.
"""
