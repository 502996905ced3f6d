"""Which points flow, and which way."""

from __future__ import annotations

from typing import Any

from twinrun.errors import UsageError
from twinrun.grafting.point import B2T, T2B
from twinrun.grafting.settings import Settings
from twinrun.grafting.site import Site
from twinrun.recorder.filter import LASTING, Filter, parse_filter
from twinrun.recorder.headings import facts_of, probe
from twinrun.recorder.scope import current_tags


class Directions:
    """The two filters. What they decide by what a site always is, they decide once for a site."""

    def __init__(self, settings: Settings) -> None:
        self._texts = {B2T: settings.b2t, T2B: settings.t2b}
        self._filters: dict[str, Filter] = {
            d: parse_filter(text) for d, text in self._texts.items() if text
        }
        self._lasting = all(f.reads <= LASTING for f in self._filters.values())
        self.by_layer = any("layer" in f.reads for f in self._filters.values())
        """whether a filter asks for the layer, which a tag may state in place of the name"""
        self._known: dict[tuple[Any, ...], str | None] = {}

    def of(self, site: Site, rank: int) -> str | None:
        """b2t, t2b, or None where no filter takes this point; UsageError where both do."""
        layer = self._layer(site) if self.by_layer else None
        key = (site.name, site.kind, site.role, site.module_class, layer)
        if self._lasting and key in self._known:
            return self._known[key]
        facts = _facts(site) | {"step": site.step, "rank": rank}
        matching = [d for d, wanted in self._filters.items() if wanted(facts)]
        if len(matching) == 2:
            raise UsageError(
                f"{site.name!r} matches both directions",
                seen=f"--b2t {self._texts[B2T]!r} and --t2b {self._texts[T2B]!r}",
                expected="at most one of them to match",
                do="take the point out of one filter with 'and not ...'",
            )
        found = matching[0] if matching else None
        if self._lasting:
            self._known[key] = found
        return found

    def may_take(self, site: Site) -> bool:
        """Whether a filter could take this site in any step, on any rank and under any tags."""
        facts = _facts(site)
        return any(wanted.may(facts) for wanted in self._filters.values())

    @property
    def retagged(self) -> bool:
        """Whether a ``tags(layer=...)`` block that is open here may change what was decided by name."""
        return self.by_layer and "layer" in current_tags()

    def _layer(self, site: Site) -> Any:
        """A tag may say another layer than the name does."""
        return dict(site.tags).get("layer") if site.tags else None


def _facts(site: Site) -> dict[str, Any]:
    # A recomputed forward is decided on like the first one.
    return facts_of(
        probe(
            site.name, site.kind, site.role, site.module, site.module_class, False, dict(site.tags)
        )
    )
