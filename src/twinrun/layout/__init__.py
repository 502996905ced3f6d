"""How a logical tensor is spread over ranks: dims text, mesh, boxes, reshard plans. Pure; never imports torch."""

from twinrun.layout.box import Box, Piece
from twinrun.layout.dims import DATA_AXES, Dim, Dims, Modifier
from twinrun.layout.fits import fits, pending, unnamed
from twinrun.layout.match import View, match
from twinrun.layout.mesh import WORLD, Mesh, parse_axes
from twinrun.layout.parse import parse_dims
from twinrun.layout.place import place
from twinrun.layout.placement import Cell, Group, Placement
from twinrun.layout.routes import Route, routes

__all__ = [
    "DATA_AXES",
    "WORLD",
    "Box",
    "Cell",
    "Dim",
    "Dims",
    "Group",
    "Mesh",
    "Modifier",
    "Piece",
    "Placement",
    "Route",
    "View",
    "fits",
    "match",
    "parse_axes",
    "parse_dims",
    "pending",
    "place",
    "routes",
    "unnamed",
]
