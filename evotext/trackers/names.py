"""The names of metrics that all trackers share."""

from collections.abc import Mapping

from evotext.run_folder.cost import AXES


def shared_names(record: Mapping[str, float | int | str]) -> dict[str, float]:
    """Return the numbers of a record by the names that all trackers share: those of training begin with `train/`.

    The spending so far is under `spent/`; the kind and the generation are left out.
    """
    prefix = "" if record["kind"] == "eval" else "train/"
    return {
        (f"spent/{name}" if name in AXES else prefix + name): float(value)
        for name, value in record.items()
        if name != "generation" and not isinstance(value, str)
    }
