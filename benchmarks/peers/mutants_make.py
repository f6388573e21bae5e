"""Peer: Cosmic Ray's mutations of Python files, drawn at random.

Usage: mutants_make.py COUNT SEED OUT FILE...: OUT is a JSON list of {file, line, operator, code}. A place is drawn
first, each as likely as another, and then one of the mutations that it allows. What changes nothing that is run
(annotations) or what nobody would write (bits of sums, exceptions that do not exist) is left out.
"""

import ast
import json
import random
import re
import sys
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

LEFT_OUT = re.compile(
    r"ExceptionReplacer|RemoveDecorator|_Is\b|_IsNot\b|(Add|Sub|Mul|Div|Pow|Mod|FloorDiv)_(Bit|.Shift)"
)


class Bare(ast.NodeTransformer):
    """Leaves out annotations and what decorates classes."""

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_ClassDef(self, node):
        node.decorator_list = []
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)


def bare(code):
    """Return what a program does, as text."""
    return ast.dump(Bare().visit(ast.parse(code)))


def changes(code, mutant):
    """Return whether a mutant is a program, and does something else."""
    try:
        return bare(mutant) != bare(code)
    except SyntaxError:  # the star before arguments that must be named is taken for a product
        return False


def places(path):
    """Return the mutations of a file by the line and column where they stand."""
    code = path.read_text()
    nodes = list(ast_nodes(get_ast(code)))
    found = {}
    for name in operator_names():
        if LEFT_OUT.search(name) or get_operator(name).arguments():
            continue
        operator, number = get_operator(name)(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                found.setdefault(tuple(start), []).append((name, number))
                number += 1
    return found


def main():
    """Draw and write."""
    count, seed, out, files = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), [Path(f) for f in sys.argv[4:]]
    lots = random.Random(seed)
    every = [(path, place, kinds) for path in files for place, kinds in sorted(places(path).items())]
    lots.shuffle(every)
    chosen = []
    for path, (line, _), kinds in every:
        name, number = lots.choice(kinds)
        code = path.read_text()
        mutant = mutate_code(code, get_operator(name)(), number)
        if mutant is None or not changes(code, mutant):
            continue
        chosen.append({"file": str(path), "line": line, "operator": name, "code": mutant})
        if len(chosen) == count:
            break
    out.write_text(json.dumps(chosen))


main()
