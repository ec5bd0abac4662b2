"""The axes of curves, with their titles. All count training only."""

from collections.abc import Mapping

from evotext.run_folder.cost import Axis

AXES: Mapping[Axis, str] = {
    "episodes": "Episodes",
    "generated_tokens": "Generated tokens",
    "seconds": "Seconds of training",
    "flops": "Floating-point operations",
}
