"""All single mutations of a Python source: one operator, constant, condition, argument or statement changed.

Left alone: docstrings, f-strings and what else only words a message, what is inside of `raise`, annotations,
decorators, imports, printing and warning.
"""

import ast
import copy
import re
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
SAYING = re.compile(r"print|warn|echo|secho|info|debug|log|write_line|say|advance|describe")
WORD = re.compile(r"[\w.*/+-]+")  # a text that a program reads; one with spaces is for people


@dataclass(frozen=True)
class Mutation:
    """One change: the bytes `start` to `end` of the source become `text`."""

    line: int
    source_line: str
    kind: str
    change: str
    start: int
    end: int
    text: str
    name: str | None  # of the function or, outside of functions, of what the statement defines
    in_function: bool

    def applied(self, source):
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()


def sites(source):
    """Where a source can be changed: a list of sites, each a list of alternative `Mutation`s."""
    return _Sites(source).found


class _Sites(ast.NodeVisitor):
    def __init__(self, source):
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line.encode()))
        self.found, self.function, self.defined = [], None, None
        self.visit(ast.parse(source))

    def offer(self, node, kind, changed):
        """Adds a site: `changed` are what the node may become, or texts."""
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        alternatives = []
        for new in changed:
            text = new if isinstance(new, str) else f"({ast.unparse(ast.fix_missing_locations(new))})"
            alternatives.append(
                Mutation(
                    line=node.lineno,
                    source_line=self.lines[node.lineno - 1].strip(),
                    kind=kind,
                    change=f"{ast.unparse(node)} -> {text}",
                    start=start,
                    end=end,
                    text=text,
                    name=self.function or self.defined,
                    in_function=self.function is not None,
                )
            )
        self.found.append(alternatives)

    # === What is left alone ===

    def visit_JoinedStr(self, node):
        pass

    def visit_Import(self, node):
        pass

    visit_ImportFrom = visit_Import

    def visit_Raise(self, node):
        self.offer(node, "statement dropped", ["pass"])

    def visit_AnnAssign(self, node):
        self.statement(node, [node.target])

    # === Statements ===

    def visit_FunctionDef(self, node):
        outer_function, outer_defined = self.function, self.defined
        if self.function is None:
            self.defined = node.name
        for default in [*node.args.defaults, *(each for each in node.args.kw_defaults if each)]:
            self.visit(default)
        self.function = self.function or node.name
        self.body(node.body)
        self.function, self.defined = outer_function, outer_defined

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        self.body(node.body)

    def visit_Module(self, node):
        self.body(node.body)

    def body(self, statements):
        for statement in statements:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call) and not SAYING.fullmatch(_called(node.value)):
            self.offer(node, "statement dropped", ["pass"])
            self.visit(node.value)

    def visit_Assign(self, node):
        self.statement(node, node.targets)

    def visit_AugAssign(self, node):
        if type(node.op) in OPERATORS and not _is_text(node.value):
            new = copy.deepcopy(node)
            new.op = OPERATORS[type(node.op)]()
            self.offer(node, "arithmetic", ["pass", ast.unparse(new)])
        self.visit(node.value)

    def statement(self, node, targets):
        outer = self.defined
        if self.function is None:
            names = _defined(targets)
            self.defined = names[0] if names else outer
            if "__all__" in names:
                return
            if len(names) > 1 and isinstance(node.value, ast.Tuple):  # A, B = 1, 2
                for self.defined, value in zip(names, node.value.elts):
                    self.visit(value)
                self.defined = outer
                return
        elif any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets):
            self.offer(node, "statement dropped", ["pass"])
        if node.value is not None:
            self.visit(node.value)
        self.defined = outer

    def visit_Continue(self, node):
        self.offer(node, "statement dropped", ["pass"])

    visit_Break = visit_Continue

    def visit_If(self, node):
        self.negate(node.test)
        self.generic_visit(node)

    def visit_Return(self, node):
        if isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
            new = copy.deepcopy(node.value)
            new.elts.reverse()
            self.offer(node.value, "return swapped", [new])
        self.generic_visit(node)

    # === Expressions ===

    def negate(self, test):
        if not isinstance(test, ast.Compare):  # its operators are sites of their own
            plain = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else None
            self.offer(test, "condition negated", [plain or ast.UnaryOp(ast.Not(), test)])

    def visit_IfExp(self, node):
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node):
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node):
        changed = []
        for i, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                new = copy.deepcopy(node)
                new.ops[i] = other()
                changed.append(new)
        self.offer(node, "comparison", changed)
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if type(node.op) in OPERATORS and not (_is_text(node.left) or _is_text(node.right)):
            new = copy.deepcopy(node)
            new.op = OPERATORS[type(node.op)]()
            self.offer(node, "arithmetic", [new])
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        new = copy.deepcopy(node)
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.offer(node, "and, or", [new])
        self.generic_visit(node)

    def visit_Call(self, node):
        if SAYING.fullmatch(_called(node)):
            return
        if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            self.offer(node.func, "min, max, any, all", [FUNCTIONS[node.func.id]])
        dropped = []
        for i, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                new = copy.deepcopy(node)
                del new.keywords[i]
                dropped.append(new)
        if dropped:
            self.offer(node, "keyword dropped", dropped)
        self.generic_visit(node)

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool):
            self.offer(node, "constant", [str(not value)])
        elif isinstance(value, (int, float)):
            self.offer(node, "constant", [repr(value + 1), f"({value - 1!r})"])
        elif isinstance(value, str) and WORD.fullmatch(value):
            self.offer(node, "text", [repr(f"XX{value}")])


def _called(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_text(node):
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))


def _defined(targets):
    """The names that an assignment gives a value."""
    nodes = [node for target in targets for node in ast.walk(target)]
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def uses(source):
    """Where names occur in a source.

    Returns:
        `{name: lines in functions}`; `{name: names that a statement outside of functions defines with it}`; and
        `{function or class: lines of its functions' bodies}`.
    """
    lines, outside, bodies = {}, {}, {}

    def walk(node, function, defined):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]:
                walk(part, function, [*defined, node.name])
            for statement in node.body:
                for name in {function or node.name, *defined}:
                    bodies.setdefault(name, set()).update(range(statement.lineno, statement.end_lineno + 1))
                walk(statement, function or node.name, defined)
            return
        if isinstance(node, ast.ClassDef):
            defined = [*defined, node.name]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and function is None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined = [*defined, *_defined(targets)]
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
        if isinstance(name, str) and isinstance(node, (ast.Name, ast.Attribute, ast.keyword)):
            where = node.value if isinstance(node, ast.keyword) else node
            if function:
                lines.setdefault(name, set()).add(where.lineno)
            else:
                outside.setdefault(name, set()).update(set(defined) - {name})
        for child in ast.iter_child_nodes(node):
            walk(child, function, defined)

    walk(ast.parse(source), None, [])
    return lines, outside, bodies
