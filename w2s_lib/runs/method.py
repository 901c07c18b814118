"""A student, or its labels, as a function of texts or states: what `@w2s.method` makes of one.

A method is its source. It is part of a run's description, so it is in the id, in the record, and in
the hands of whoever trains the run again. Chapter: leaderboard.
"""

import ast
import builtins
import inspect
import json
import symtable
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

from w2s_lib.runs.description import Choice
from w2s_lib.runs.errors import SpecError, nearest, require

TAKES = ("states, labels, unlabeled, seed", "texts, labels, unlabeled, seed")
"""The arguments of a method: it is given states of a frozen model, or the texts."""


class Method(Choice):
    """A function of texts or states, weak labels, further ones without, and a seed; it gives P(y = 1)."""

    source: str
    """One function, from its `def` on. It uses its arguments, builtins and what it imports
    itself."""
    settings: str = "{}"
    """Arguments after `*` that are not at their default, as a JSON object, names in order."""

    def __post_init__(self) -> None:
        made, this = self._function, f"method {self.name!r}"
        given = ast.unparse(made.args)
        said = f"{this} takes ({given}), and has to take ({TAKES[0]}) or ({TAKES[1]})"
        fits = given.partition(", *, ")[0] in TAKES and None not in made.args.kw_defaults
        require(fits, f"{said}, and settings with a default after a *")
        own = self.defaults
        for name in self.given:
            require(name in own, f"{this} has no setting {name!r}: {nearest(name, own)}")
        scope = symtable.symtable(self.source, "<method>", "exec")
        outside = sorted({*_from_outside(scope)} - {made.name, *dir(builtins)})
        said = f"{this} uses {', '.join(outside)}, which it neither is given nor imports"
        require(not outside, f"{said}: its id would not cover that")

    @property
    def _function(self) -> ast.FunctionDef:
        try:
            (made,) = ast.parse(self.source).body
        except (SyntaxError, ValueError) as error:
            raise SpecError(f"Method.source is not one function: {error}") from None
        if not isinstance(made, ast.FunctionDef):
            raise SpecError(f"Method.source is no function: {self.source!r:.100}")
        return made

    @property
    def name(self) -> str:
        """The function's."""
        return self._function.name

    @property
    def sees(self) -> str:
        """What it is given: "states" or "texts"."""
        return self._function.args.args[0].arg

    def __str__(self) -> str:
        """Its name, and the settings that are not at their default."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"{self.name}({given})" if given else self.name

    @property
    def defaults(self) -> dict[str, Any]:
        """What its function takes after `*`, and the default of each.

        Raises:
            SpecError: a default that is no number, text, True or False.
        """
        named = self._function.args
        try:
            return {
                setting.arg: ast.literal_eval(value)
                for setting, value in zip(named.kwonlyargs, named.kw_defaults, strict=True)
                if value is not None
            }
        except ValueError:
            said = f"method {self.name!r}: a setting's default is written out, not computed"
            raise SpecError(said) from None

    def set(self, **settings: bool | int | float | str) -> Self:
        """The same with other settings: what its function takes after `*`.

        One that is given its default is as one that is not given: it is the same run.
        """
        wanted, defaults = self.given | settings, self.defaults.items()
        own = dict(setting for setting in wanted.items() if setting not in defaults)
        return replace(self, settings=json.dumps(own, sort_keys=True))

    @property
    def given(self) -> dict[str, Any]:
        """The settings by name."""
        try:
            return dict(json.loads(self.settings))
        except ValueError as error:
            raise SpecError(f"Method.settings is {self.settings!r:.100}: {error}") from None

    def __call__(self, given: Any, labels: Any, unlabeled: Any, seed: int) -> Any:
        """Calls it here and now, such as to try it out.

        Args:
            given: what the supervisor labelled: n texts, of comparisons pairs of them; or their
                last-token states, (n, hidden) float32, of comparisons the first's less the second's.
            labels: (n,) float32, its P(y = 1).
            unlabeled: m further texts, or their states, (m, hidden) float32.
            seed: an int for whatever is drawn at random.

        Returns:
            (m,) P(y = 1) of the further texts, of a student; or, where it makes labels
            (`Relabelled`), (n,) P(y = 1) of the labelled ones.
        """
        space: dict[str, Any] = {}
        exec(compile(self.source, f"<method {self.name}>", "exec"), space)  # noqa: S102
        return space[self.name](given, labels, unlabeled, seed, **self.given)


def method(function: Callable[..., Any]) -> Method:
    """Makes a function a student (`entry`), or what makes a student's labels (`Relabelled`).

    Args:
        function: takes `states` or `texts`, `labels`, `unlabeled` and `seed`, and gives P(y = 1):
            see `Method.__call__`. After a `*` it may take settings, each with a default. It imports
            what it needs itself.

    Raises:
        SpecError: other arguments; a closure or a global; no function whose source is at hand.
    """
    try:
        text = textwrap.dedent(inspect.getsource(function))
        (made,) = ast.parse(text).body
    except (OSError, TypeError, SyntaxError, ValueError):
        said = "is no function whose source can be found: define it with `def`, in a cell or a file"
        raise SpecError(f"{function!r} {said}") from None
    lines = text.splitlines()[made.lineno - 1 : made.end_lineno]  # without its decorators
    return Method(source="\n".join(line.rstrip() for line in lines))


def _from_outside(scope: symtable.SymbolTable) -> Iterator[str]:
    """The names that code uses and does not define: of a module, and of all that is in it."""
    top = scope.get_type() == "module"
    for symbol in scope.get_symbols():
        if symbol.is_global() if not top else not symbol.is_assigned():
            yield symbol.get_name()
    for inner in scope.get_children():
        yield from _from_outside(inner)
