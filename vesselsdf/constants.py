"""Constants that the configuration checks; a module of their own, so that reading it imports nothing else."""

from typing import Literal

Modality = Literal["ct", "mr", "microscopy", "in_vivo"]
"""What synthetic images can look like, see `synthesis.scanner`."""

REFINEMENT_CONSTANT = {"mean": 0.80078, "sample": 0.88127, "min": 1.12005, "exact": 0.70602}
"""Sharp constants ``c`` of ``|phi - U C phi| <= c h`` per coarse-graining operator, rounded up; derived in `scales`."""
