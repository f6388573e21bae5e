"""``python -m fastness``, which is also what ``torchrun -m fastness`` starts."""

from fastness.cli.main import main

main()
