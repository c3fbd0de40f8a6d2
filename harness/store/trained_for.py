"""What a trained model was trained for, from its row's options; and which of these are the variant's own. No torch.

problems([parse_options(options) for options in distinct])     # ["classification digits", "recall items=56", …]
own_options(parse_options("init=paper;task=recall;items=56"))  # " init=paper"
"""

from __future__ import annotations

from harness.store.record import MODEL_KEYS

SETTINGS = ("model.", "recipe.")  # keys of `options` that are not the variant's own
ORIGINS = ("trained.start", "trained.data", "trained.step", "judged.data")  # the same, told only where they differ
LOAD = ("colours", "items", "questions", "shapes", "steps")  # the same, of recall models: without a prefix


def problems(parsed: list[dict[str, str]]) -> list[str]:
    """What two rows must share to be compared: `classification digits`, with the settings that tell problems apart."""
    names = [" ".join(filter(None, [options.get("task", ""), options.get("data", "")])) for options in parsed]
    told = []
    for name, options in zip(names, parsed, strict=True):
        alike = [other for title, other in zip(names, parsed, strict=True) if title == name]
        keys = sorted({key for other in alike for key in other if is_setting(key, other) or key in ORIGINS})
        telling = [key for key in keys if len({other.get(key) for other in alike}) > 1]
        if all(other.get("trained.step") == other.get("recipe.steps") for other in alike):  # all trained to their end
            telling = [key for key in telling if key != "trained.step"]
        told.append(" ".join([name, *(f"{bare(key)}={options.get(key, 'default')}" for key in telling)]))
    return told


def own_options(options: dict[str, str]) -> str:
    """The variant's own, ` init=paper`: those that are no task, data, model, recipe or load."""
    other = ("task", "data", *MODEL_KEYS)
    own = [key for key in sorted(options) if "." not in key and key not in other and not is_setting(key, options)]
    return "".join(f" {key}={options[key]}" for key in own)


def is_setting(key: str, options: dict[str, str]) -> bool:
    """Whether a key of a trained model's options is of its model, recipe or load."""
    return key.startswith(SETTINGS) or (options.get("task") == "recall" and key in LOAD)


def bare(key: str) -> str:
    """A key without what it is of: `model.width` → `width`."""
    return key.partition(".")[2] or key
