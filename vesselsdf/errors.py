"""The package's own errors: each carries one sentence that says what is wrong, where, and what to do."""


class VesselSDFError(Exception):
    """Base of all errors that the package raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 3


class InputError(VesselSDFError):
    """Bad input or usage: a file, a field of it, or an argument that cannot be used as it is."""

    exit_code = 2


class RunError(VesselSDFError):
    """A run that started well and failed: a loss that became NaN, a damaged checkpoint, no memory left."""

    exit_code = 3


class TopologyCheckFailed(VesselSDFError):
    """The topology that was required of a result does not hold."""

    exit_code = 4
