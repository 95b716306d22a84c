"""How a teacher teaches where nothing is said: with which weight it begins and what ends it, and why. Knows records and
what data can tell; ignorant of steps and of models in memory.
"""

from collections.abc import Mapping
from dataclasses import replace

from growkit.checkpoint.record import grown_exactly
from growkit.checkpoint.small_files import read_json
from growkit.checkpoint.source import PROVENANCE, Checkpoint
from growkit.errors import RequestError
from growkit.training.settings import EVERYTHING, UNTIL, Settings
from growkit.training.teachers.teaching import first_weight

OVERTAKEN, STEPS = UNTIL
SHARE = "0 to 1 for a teacher that takes away a quarter to a half of the model's validation loss"


def taught(
    settings: Settings, source: Checkpoint, teachers: Mapping[str, Mapping[str, str]], validated: bool
) -> tuple[Settings, tuple[str, ...]]:
    """The settings with the teacher's first weight and its end made whole, and notes that say why.

    source: the model that learns. teachers: SHA-256 of the files of each of its teachers. validated: whether
    the data has a validation split. Raises RequestError where an end is asked for that nobody can tell.
    """
    if settings.teacher_until == OVERTAKEN and not validated:
        raise RequestError("--teacher-until overtaken is told by validation, and the data has no validation split")
    until = settings.teacher_until or (OVERTAKEN if validated else STEPS)
    exactly_grown = any(_grown_exactly(source, teacher) for teacher in teachers.values())
    usual, why = first_weight(settings.teacher_schedule, exactly_grown, until == OVERTAKEN and EVERYTHING in teachers)
    weight, why = (usual, why) if settings.teacher_weight is None else (settings.teacher_weight, "as asked for")
    end = f"for {settings.teacher_steps:,} steps"
    if until == OVERTAKEN:
        end += ", or until validation finds the model better"
    begins = SHARE if weight is None else f"{weight:g}"
    notes = [f"the teacher's weight begins at {begins} ({why}), {settings.teacher_schedule} {end}"]
    if settings.teacher_until is None and not validated:
        notes.append(
            "the data has no validation split to tell when the model overtakes its teacher: it teaches to the end"
        )
    return replace(settings, teacher_weight=weight, teacher_until=until), tuple(notes)


def _grown_exactly(source: Checkpoint, teacher: Mapping[str, str]) -> bool:
    """Whether the model that learns was grown exactly from its teacher, as its growkit.json says."""
    record = source.folder / PROVENANCE if source.folder is not None else None
    if record is None or not record.is_file():
        return False
    return grown_exactly(read_json(record), sorted(teacher.values()))
