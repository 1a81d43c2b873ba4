"""The model card of a tuning run: what was tuned on what, with which settings, what came of it, and what that does not show."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastencode.errors import InputError
from fastencode.files import whole_file
from fastencode.plain import plain
from fastencode.tune.log import Row, kept_epoch

__all__ = ["write_card"]

_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_TARGETS = {
    "brain": "responses as they were measured",
    "permuted": "responses in blocks that were displaced: a control, from which nothing about the brain can be learned",
    "shifted": "responses shifted in time: a control, from which nothing about the brain can be learned",
    "stimulus": "no responses, but the model's own self-supervised loss on the stories: a control",
    "model": "another model's features: a control",
}
_TITLES = {
    "brain": "tuned on brain responses",
    "permuted": "tuned on displaced brain responses",
    "shifted": "tuned on shifted brain responses",
    "stimulus": "tuned on stories alone",
    "model": "tuned on another model's features",
}
_USE = """```python
import transformers

model = transformers.AutoModel.from_pretrained("model")
extractor = transformers.AutoFeatureExtractor.from_pretrained("model")
```"""
_KNOWN = ("participants", "stories", "updates", "hashes", "versions", "commit", "end")


def write_card(
    out: Path,
    *,
    base_model: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    epochs: Sequence[Row],
) -> Path:
    """Write a Hugging Face model card.

    Parameters
    ----------
    out : Path
        The file, ``RUN/README.md``, in an existing folder. Written whole or not at all.
    base_model : str
        Name on the hub, or folder, of the model that was tuned. Of a folder only the last part is shown.
    settings : mapping
        The settings of the run, as plain values; ``targets``, ``patience``, ``unfreeze`` and ``loss`` are read, here or under
        ``tune``.
    facts : mapping
        What is known beside them; what is missing is left out. ``participants``: name → number of voxels tuned on. ``stories``:
        use (training, validation) → names. ``updates``. ``hashes``: of what → SHA-256, in any depth. ``versions``: library →
        version. ``commit``. ``end``: the last line of the log. Anything else is listed by its name, paths by their last part.
    epochs : sequence of dict
        The log's lines of kind epoch, epoch 0 among them: :func:`fastencode.tune.log.epochs`.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        If there is no epoch, or the file cannot be written.
    """
    end = dict(facts.get("end") or {})
    rows = [*epochs, {"kind": "end", **end}] if end else list(epochs)
    kept = kept_epoch(rows)
    if kept is None:
        raise InputError("a model card needs at least one epoch: write it when one is finished")
    before = min(epochs, key=lambda row: row["epoch"])
    tune = settings["tune"] if isinstance(settings.get("tune"), Mapping) else settings
    shown = Path(base_model).name if Path(base_model).exists() or not _ON_HUB.fullmatch(base_model) else base_model
    kind = str(tune.get("targets", "brain")).partition(":")[0]
    heading = f"{shown}, {_TITLES.get(kind, _TITLES['brain'])}"
    parts = [
        _front(base_model if shown == base_model and _ON_HUB.fullmatch(base_model) else None, kind),
        f"# {heading}",
        _warnings(tune, end, kept, before, epochs),
        _summary(shown, tune, facts, end, kept),
        _scores(kept, before, facts.get("participants") or {}),
        f"## Use\n\n`model/` is the tuned model, `heads/` what predicts each participant's voxels from it.\n\n{_USE}",
        _made_of(facts),
        f"## Settings\n\n```json\n{json.dumps(plain(settings, shown=True), indent=2, ensure_ascii=False)}\n```",
    ]
    with whole_file(out) as partial:
        partial.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return out


def _front(base_model: str | None, targets: str) -> str:
    """The YAML that the hub reads. JSON's texts are YAML's too."""
    tags = ["brain-tuning", "speech", "fmri", *(["control"] if targets != "brain" else [])]
    base = f"base_model: {json.dumps(base_model)}\n" if base_model else ""
    return f"---\nlibrary_name: transformers\n{base}tags: {json.dumps(tags)}\n---"


def _summary(shown: str, tune: Mapping[str, Any], facts: Mapping[str, Any], end: Mapping[str, Any], kept: Row) -> str:
    """What was done, as a list."""
    kind = str(tune.get("targets", "brain")).partition(":")[0]
    lines = [f"**Base model**: {shown}", f"**Targets**: {_TARGETS.get(kind, kind)}"]
    if people := facts.get("participants"):
        lines.append(f"**Participants**: {', '.join(f'{_cell(who)} ({n:,} voxels)' for who, n in people.items())}")
    lines += [
        f"**Stories, {use}**: {', '.join(map(_cell, names)) or 'none'}" for use, names in (facts.get("stories") or {}).items()
    ]
    updates = facts.get("updates", end.get("updates"))
    if updates is not None:
        lines.append(f"**Updates**: {updates:,}; the model is that of epoch {kept['epoch']}, after {kept['updates']:,}")
    if end.get("cnn_unchanged") and "cnn" not in (tune.get("unfreeze") or ()):
        lines.append("**Frozen**: the convolutions below the transformer; their weights are the base model's, to the bit")
    more = {name: value for name, value in facts.items() if name not in _KNOWN}
    lines += [f"**{_cell(name)}**: {_told(value)}" for name, value in more.items()]
    return "## What was done\n\n" + "\n".join(f"- {line}" for line in lines)


def _warnings(tune: Mapping[str, Any], end: Mapping[str, Any], kept: Row, before: Row, epochs: Sequence[Row]) -> str:
    """What a user of the model must know first."""
    found = list(_learning(kept))
    if kept["epoch"] == before["epoch"]:
        found.append("**No epoch was kept.** The model is the base model: no update is in it.")
    if "cnn" in (tune.get("unfreeze") or ()):
        found.append("The convolutions below the transformer were tuned too: early layers are not the base model's.")
    elif end.get("cnn_unchanged") is False:
        found.append("**The frozen convolutions changed.** They were not to: do not use this model.")
    if not end:
        found.append("The run has not ended: this is the model so far.")
    elif end.get("why") == "early stop":
        last = max(row["epoch"] for row in epochs)
        found.append(f"Early stop: the validation loss did not fall any more. Epoch {kept['epoch']} of {last} was kept.")
    if any(row.get("train_loss") is None for row in epochs if row["epoch"] > before["epoch"]):
        found.append("**The training loss was not a number** in an epoch. Lower the learning rates and begin again.")
    if not found:
        return ""
    return "\n".join(["> **Warnings**", ">", *(f"> - {words}" for words in found)])


def _learning(kept: Row) -> Iterator[str]:
    """Whether the tuned model predicts the validation stories better than their mean does."""
    loss, mean = kept.get("validation_loss"), kept.get("mean_loss")
    if loss is None or mean is None:
        yield "Whether the model learned anything about brains is not known: nothing was compared with predicting the mean."
    elif not loss < mean:
        yield (
            f"**No learning: the model did not beat the mean.** Its validation loss is {loss:.4f}; predicting each voxel's mean, "
            f"whatever was said, gives {mean:.4f}. Do not use it; `fastencode-tune diagnose` says what may have failed."
        )
    behind = [who for who, one in (kept.get("participants") or {}).items() if _behind(one)]
    if behind and (loss is None or mean is None or loss < mean):
        yield f"The model did not beat the mean for {', '.join(map(_cell, behind))}."


def _behind(one: Mapping[str, Any]) -> bool:
    loss, mean = one.get("loss"), one.get("mean_loss")
    return loss is not None and mean is not None and loss >= mean


def _scores(kept: Row, before: Row, voxels: Mapping[str, int]) -> str:
    """A table with one row for each participant, and what its numbers are not."""
    if not any(one.get("validation_loss") is not None for one in (kept, before)):
        return "## Scores\n\nThere are none: no story was kept for validation.\n\n![Curves of the run](curves.png)"
    losses, scores = ("loss of the mean", "loss before", "loss after"), ("r before", "r after", "r after, middle half")
    head = ["participant", "voxels", *losses, *scores]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    after, first = kept.get("participants") or {}, before.get("participants") or {}
    for who, one in after.items():
        old, n = first.get(who) or {}, voxels.get(who)
        quantiles = one.get("quantiles") or {}
        cells = [
            _cell(who),
            "" if n is None else f"{n:,}",
            *(_shown(value) for value in (one.get("mean_loss"), old.get("loss"), one.get("loss"), old.get("r"), one.get("r"))),
            f"{_shown(quantiles.get('25'))} to {_shown(quantiles.get('75'))}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    means = [kept.get("mean_loss"), before.get("validation_loss"), kept.get("validation_loss")]
    means += [before.get("validation_r"), kept.get("validation_r")]
    lines.append("| " + " | ".join(["mean", "", *(_shown(value) for value in means), ""]) + " |")
    return f"## Scores\n\nOn the validation stories, before the first update and after epoch {kept['epoch']}:\n\n" + (
        "\n".join(lines) + f"\n\n{_CAVEATS}\n\n![Curves of the run](curves.png)"
    )


_CAVEATS = """\
- r is the mean correlation over the voxels that were tuned on, not corrected for noise ceilings; between the two numbers of the
  last column lies the middle half of the voxels.
- Before the first update the heads are random. So these scores say that model and heads learned together, not that the tuned
  model is better than the base model: `fastencode-tune align` compares both, each with ridge regressions of its own.
- These are no test scores. Where an early stop, the settings, or the choice of an epoch followed the validation stories, they are
  higher than those of unheard stories would be. Where voxels were chosen by their noise ceilings on a test story, so are scores
  on that story.
- Whether responses, and not any targets of this kind, changed the model is seen beside a control that was tuned on displaced
  responses (`targets: permuted`) with as many updates."""


def _made_of(facts: Mapping[str, Any]) -> str:
    """Hashes, versions and commit."""
    lines = [f"- SHA-256 of {_cell(name)}: `{value}`" for name, value in _flat(facts.get("hashes") or {})]
    if versions := facts.get("versions"):
        lines.append("- Versions: " + ", ".join(f"{_cell(name)} {_cell(value)}" for name, value in versions.items()))
    if facts.get("commit"):
        lines.append(f"- Commit of fastencode: `{facts['commit']}`")
    return "## Made of\n\n" + "\n".join(lines) if lines else ""


def _flat(values: Mapping[str, Any], around: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{around}{name}, ")
        else:
            yield f"{around}{name}", value


def _told(value: Any) -> str:
    """A fact of any kind; of a path from the root only the last part, because cards are published."""
    if isinstance(value, str | Path) and Path(value).is_absolute():
        return _cell(Path(value).name)
    return _cell(value) if isinstance(value, str) else _cell(json.dumps(plain(value, shown=True), ensure_ascii=False))


def _shown(value: Any) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _cell(value: object) -> str:
    """Text that breaks no table and no list."""
    return re.sub(r"([|*`\[\]<>\\])", r"\\\1", " ".join(str(value).split()))
