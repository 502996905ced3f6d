"""How a logical tensor is spread over ranks: dims text, mesh, boxes, reshard plans. Pure; never imports torch."""
