"""The optional parts of an installation, and one sentence for what is missing of them."""

from __future__ import annotations

from importlib.util import find_spec

from roadsense.errors import RoadsenseError

MODULES = {
    "onnx": ("onnxruntime", "safetensors"),
    "train": ("torch", "stable_baselines3", "sb3_contrib", "tensorboard", "onnx", "matplotlib"),
    "ray": ("ray",),
    "tensorrt": ("tensorrt", "cuda"),
}
"""Extra → modules that come with it and not with the core; one of several extras stands at the smallest."""


def missing(module: str) -> RoadsenseError:
    """The error for a module that is not installed; one that belongs to no extra is a part of the core."""
    root = module.partition(".")[0]
    extra = next((f"[{extra}]" for extra, modules in MODULES.items() if root in modules), "")
    return RoadsenseError(f'{root} is not installed; install it with: pip install "roadsense{extra}".')


def available(*extras: str) -> bool:
    """Whether all modules of these extras are installed; imports nothing."""
    return all(find_spec(module) is not None for extra in extras for module in MODULES[extra])


def require(*extras: str) -> None:
    """Refuses to go on without these extras; imports nothing.

    Raises:
        RoadsenseError: a module is not installed; names it and how to get it.
    """
    for extra in extras:
        for module in MODULES[extra]:
            if find_spec(module) is None:
                raise missing(module)
