"""What each dim of a tensor is called and how it lies over the axes of a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from twinrun.errors import DimsError

SQUEEZED = "1"
"""The name of a dim of size 1 that carries no meaning."""

DATA_AXES = frozenset(
    {
        "dp",
        "ddp",
        "data",
        "data_parallel",
        "batch",
        "attn_dp",
        "dp_replicate",
        "dp_shard",
        "fsdp",
        "hsdp",
    }
)
"""Axes whose ranks see different samples, unless the dims text says otherwise."""


@dataclass(frozen=True, slots=True)
class Modifier:
    """One axis on one dim: it shards the dim, or (partial) its ranks hold addends of a sum.

    ``repeat``: how many neighbours on the axis hold the same part, as where more ranks than
    key-value heads make ranks share a head.
    """

    axis: str
    zigzag: bool = False
    partial: bool = False
    repeat: int = 1

    def __str__(self) -> str:
        words = [word for word, on in (("zigzag", self.zigzag), ("partial", self.partial)) if on]
        words += [f"repeat{self.repeat}"] if self.repeat > 1 else []
        return f"{self.axis}:{'+'.join(words)}" if words else self.axis


@dataclass(frozen=True, slots=True)
class Dim:
    """One dim: its name, or several names when it is fused, and the axes on it, outermost first."""

    names: tuple[str, ...]
    modifiers: tuple[Modifier, ...] = ()

    @property
    def fused(self) -> bool:
        return len(self.names) > 1

    @property
    def squeezed(self) -> bool:
        return self.names == (SQUEEZED,)

    @property
    def name(self) -> str:
        """``h``, ``1`` or ``(num_heads*head_dim)``."""
        return f"({'*'.join(self.names)})" if self.fused else self.names[0]

    def __str__(self) -> str:
        on = f"[{','.join(map(str, self.modifiers))}]" if self.modifiers else ""
        return f"{self.name}{on}"


@dataclass(frozen=True, slots=True)
class Dims:
    """A parsed dims text; ``str`` gives the canonical text, which parses to an equal value.

    ``pending``: axes written as ``[tp:partial]`` beside the dims. ``data_axis``: the name that
    ``dp:=name`` gives. ``replicated``: the axes declared ``axis:replicated``. ``packed``: for each
    ``name:packed=a+b``, the lengths of the sequences that lie one after another on that dim.
    """

    dims: tuple[Dim, ...] = ()
    pending: tuple[str, ...] = ()
    data_axis: str | None = None
    replicated: tuple[str, ...] = ()
    packed: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __iter__(self) -> Iterator[Dim]:
        return iter(self.dims)

    def __len__(self) -> int:
        return len(self.dims)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each dim, fused ones as ``(a*b)``, squeezed ones as ``1``."""
        return tuple(dim.name for dim in self.dims)

    @property
    def partial(self) -> tuple[str, ...]:
        """Axes over which a sum is pending, wherever they were written."""
        on_dims = (m.axis for dim in self.dims for m in dim.modifiers if m.partial)
        return tuple(chain(on_dims, self.pending))

    @property
    def sharding(self) -> tuple[str, ...]:
        """Axes that split a dim."""
        return tuple(m.axis for dim in self.dims for m in dim.modifiers if not m.partial)

    @property
    def named_axes(self) -> tuple[str, ...]:
        """Every axis on which ranks differ by what the text says."""
        return tuple(chain((m.axis for dim in self.dims for m in dim.modifiers), self.pending))

    def data_axes(self, known: frozenset[str] = DATA_AXES) -> frozenset[str]:
        """Axes whose ranks hold other samples: ``dp:=name`` if given, else ``known`` ones.

        Axes that shard, sum or are declared replicated are none; an empty ``known`` (parameters)
        leaves none.
        """
        if not known:
            return frozenset()
        axes = frozenset({self.data_axis}) if self.data_axis else known
        return axes - set(self.named_axes) - set(self.replicated)

    def packed_lengths(self, dim: Dim) -> tuple[int, ...]:
        """Lengths of the sequences packed on ``dim``; empty when it is one sequence."""
        return dict(self.packed).get(dim.names[0], ()) if not dim.fused else ()

    def __str__(self) -> str:
        pending = [f"[{axis}:partial]" for axis in self.pending]
        facts = [f"dp:={self.data_axis}"] if self.data_axis else []
        facts += [f"{axis}:replicated" for axis in self.replicated]
        facts += [f"{name}:packed={'+'.join(map(str, sizes))}" for name, sizes in self.packed]
        words = [*map(str, self.dims), *pending, *(["#", *facts] if facts else [])]
        return " ".join(words)

    def check(self, shape: tuple[int, ...], *, name: str = "", where: str = "") -> None:
        """Raise DimsError unless this text describes a tensor of ``shape``.

        ``name`` is the tensor's and ``where`` tells what was read: rank, step, source line.
        """
        seen = ", ".join(part for part in (where, name, str(list(shape))) if part)
        subject = repr(name) if name else "the tensor"
        if len(shape) != len(self.dims):
            raise self._wrong_count(shape, subject, seen)
        for at, (dim, size) in enumerate(zip(self.dims, shape, strict=True)):
            if dim.squeezed and size != 1:
                raise DimsError(
                    f"dims {str(self)!r} call dim {at} of {subject} '1', but its size is {size}",
                    seen=seen,
                    expected="size 1 where the dims text says 1",
                    do="name the dim, for instance 'n'   (docs/dims.md)",
                )

    def _wrong_count(self, shape: tuple[int, ...], subject: str, seen: str) -> DimsError:
        count, missing = len(self.dims), len(shape) - len(self.dims)
        if missing > 0:
            do = f"name the missing {'one' if missing == 1 else str(missing)}, for instance {self._filled(missing)!r}"
        else:
            do = f"take out {-missing} of them"
        return DimsError(
            f"dims {str(self)!r} name {count} dim{'' if count == 1 else 's'}, "
            f"but {subject} has shape {list(shape)}",
            seen=seen,
            expected=f"one name for each of the {len(shape)} dims",
            do=f"{do}   (docs/dims.md)",
        )

    def _filled(self, missing: int) -> str:
        """This text with ``missing`` made-up names before the last dim, as an example to edit."""
        used = {name for dim in self.dims for name in dim.names}
        letters = (
            c for c in chain("nmklijpquvwxyz", (f"n{i}" for i in range(64))) if c not in used
        )
        fresh = tuple(Dim((name,)) for name, _ in zip(letters, range(missing), strict=False))
        dims = (*self.dims[:-1], *fresh, *self.dims[-1:])
        return str(Dims(dims, self.pending, self.data_axis, self.replicated, self.packed))
