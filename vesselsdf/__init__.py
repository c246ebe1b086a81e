"""Vessel networks from CT and MR volumes as multi-resolution signed distance fields, with their topology verified."""

__version__ = "0.1.0"

_ENTRY_POINTS = {
    "Volume": "volume",
    "read_volume": "volume",
    "write_volume": "volume",
    "reconstruct": "api",
    "reconstruct_classes": "classes",
    "evaluate": "api",
    "compare": "file_evaluation",
    "train": "api",
    "VesselSDFError": "errors",
}

__all__ = ["__version__", *_ENTRY_POINTS]


def __getattr__(name: str):
    # Imported on first use, so that `import vesselsdf` costs milliseconds and pulls in neither torch nor MONAI.
    if name in _ENTRY_POINTS:
        from importlib import import_module

        return getattr(import_module(f"vesselsdf.{_ENTRY_POINTS[name]}"), name)
    raise AttributeError(f"module 'vesselsdf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
