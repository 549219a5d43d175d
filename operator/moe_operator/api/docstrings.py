"""Fields' docstrings (the string below a field) from a class's source.

pydantic can do this as it makes a class, but then every start of a program parses the source of every model, a tenth
of a second for what only the generators of schemas and documents ask.
"""

import ast
import inspect
import itertools
import textwrap


def field_docstrings(cls: type) -> dict[str, str]:
    """Docstring by field name, of the class and those above it; empty for a class without source."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if "__annotations__" not in vars(each) or each.__module__.partition(".")[0] == "pydantic":
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        except (OSError, TypeError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, below in itertools.pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[statement.target.id] = inspect.cleandoc(text)
    return found
