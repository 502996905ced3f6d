"""``LaunchArgs``, the rules that adjust or refuse them, and rendering to torchrun."""
