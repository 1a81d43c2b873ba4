"""Learning rates: which share of its peak each group has at an update."""

from __future__ import annotations

from fastencode.tune.config import TuneConfig

__all__ = ["shares_of_peak"]


def shares_of_peak(done: int, total: int, config: TuneConfig, *, people: int = 1, stories: int = 1) -> tuple[float, float]:
    """The share of its peak that the speech model's rate and the heads' rate has.

    Parameters
    ----------
    done, total : int
        Updates done so far, and in all.
    config : TuneConfig
        ``schedule``, ``warm_up`` and ``epochs``.
    people, stories : int
        Participants and training stories, for the schedule "miscounted".

    Returns
    -------
    float, float
        Of update s (from 0 on) of n, with w = max(1, ⌊warm_up · n⌋) and e the epoch (from 0 on) of E:

        - linear: min((s + 1) / w, (n − s) / max(1, n − w))
        - constant: min((s + 1) / w, 1)
        - epochs: e / 5 before epoch 5, then (E − e) / (E − 5); for heads max(.8^e, .1)
        - miscounted: t = E · stories · s / n stories were heard so far, and m = 3 · people · E · stories were planned:
          min(t / (.1 m), (m − t) / (.9 m))
    """
    warm = max(1, int(config.warm_up * total + 1e-9))
    rise = (done + 1) / warm
    if config.schedule == "linear":
        share = min(rise, (total - done) / max(1, total - warm))
    elif config.schedule == "constant":
        share = min(rise, 1.0)
    elif config.schedule == "epochs":
        epochs, epoch = config.epochs, done * config.epochs // total
        return epoch / 5 if epoch < 5 else (epochs - epoch) / max(1, epochs - 5), max(0.8**epoch, 0.1)
    else:
        heard, planned = config.epochs * stories * done / total, 3 * people * config.epochs * stories
        share = min(heard / (0.1 * planned), (planned - heard) / (0.9 * planned))
    return share, share
