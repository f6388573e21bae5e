"""A released version over HTTP: items become vectors, neighbours, classes; a move of its alias drops no request.

What answers is a `Release`: one version with its exports and the index that was made by it, loaded and proven
together, never changed. `Live` holds the one that serves now, watches the registry, makes the next one ready beside it
and then puts it in its place in one assignment; a request keeps the release that it began with, so that no answer ever
mixes a model with another one's index. Items of many requests are computed together (`batching`): as many as a batch
may last, by a line that is fitted to what batches lasted; what would wait too long is refused at once. The process
needs the runtime that runs exports, not torch.
"""
