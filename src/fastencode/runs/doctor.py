"""What is installed, what it can use, and what to mend. Loads no library before it asks for it, so that a broken one is told.

Each check is a function that yields :class:`Check`. One that fails is told as such, and the others go on.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Check", "examine", "report"]

# Modules that are needed always; for tuning; for some things, with what these are.
_CORE = ("numpy", "scipy", "numba", "h5py", "threadpoolctl", "tqdm")
_TUNE = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "yaml",
    "jsonargparse",
    "soundfile",
    "soxr",
    "praatio",
    "pandas",
)
_MORE = {
    "matplotlib": "figures: pip install 'fastencode-neuro[report]'",
    "nibabel": "regions and maps as images: pip install 'fastencode-neuro[neuro]'",
    "cupy": "solvers on a card without torch: pip install 'fastencode-neuro[gpu-cuda12x]' or '[gpu-cuda13x]'",
    "tensorboard": "curves in tensorboard: pip install tensorboard",
}
# Only their versions are read: importing them takes long, or writes caches.
_UNREAD = ("matplotlib", "nibabel", "tensorboard", "pandas", "jsonargparse")
_LITTLE, _FEW = 20 * 10**9, 10**9  # bytes of disk: a run may need more; nothing fits
_LEAST_MEMORY = 4 * 10**9
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

Modules = Mapping[str, ModuleType | BaseException | None]
"""Name → what was imported, or why it could not be; None where only the version was read."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes
    ----------
    name : str
        What was looked at.
    verdict : str
        ok; look: something is slower, or missing, than it could be; wrong: something will fail.
    found : str
        What there is.
    advice : str
        What to do, unless all is well.
    """

    name: str
    verdict: str
    found: str
    advice: str = ""


def examine(out: Path) -> list[Check]:
    """Look at everything.

    Parameters
    ----------
    out : Path
        Where runs are to be written; need not exist yet.
    """
    modules: dict[str, ModuleType | BaseException | None] = {}
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python),
        ("libraries", lambda: _libraries(modules)),
        ("torchaudio", lambda: _torchaudio(modules)),
        ("devices", lambda: _devices(modules)),
        ("BLAS", lambda: _blas(modules)),
        ("threads", _threads),
        ("memory", _memory),
        ("kernels", _kernels),
        ("caches", _caches),
        ("disk", lambda: _disk(out)),
    ]
    found: list[Check] = []
    for name, check in checks:
        try:
            found += check()
        except Exception as error:  # whatever a broken library raises
            found.append(Check(name, "look", f"could not be checked ({_reason(error)})", "look at this by hand"))
    return found


def report(checks: list[Check]) -> str:
    """One line for each check, its advice below it, and a summary."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.verdict:5}  {check.name:{width}}  {check.found}")
        lines += [f"{'':5}  {'':{width}}  → {check.advice}"] if check.advice else []
    count = {verdict: sum(check.verdict == verdict for check in checks) for verdict in ("ok", "look", "wrong")}
    return "\n".join([*lines, "", ", ".join(f"{number} {verdict}" for verdict, number in count.items())])


def _python() -> Iterator[Check]:
    try:
        own = version("fastencode-neuro")
    except PackageNotFoundError:
        own = "a source tree that was never installed"
    yield Check("python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}")
    yield Check("fastencode", "ok", f"{own}, {Path(__file__).resolve().parents[1]}")


def _libraries(modules: dict[str, ModuleType | BaseException | None]) -> Iterator[Check]:
    """Versions; each library is imported, for one that is installed may still be broken."""
    owners = packages_distributions()
    for name in (*_CORE, *_TUNE, *_MORE):
        if name not in owners:
            yield _missing(name)
            continue
        package = owners[name][0]
        modules[name] = None if name in _UNREAD else _imported(name)
        if isinstance(error := modules[name], BaseException):
            advice = f"pip install --force-reinstall {package}"
            advice = "see torchaudio below" if name == "transformers" and "torchaudio" in str(error) else advice
            yield Check(name, "wrong", f"{version(package)} cannot be imported ({_reason(error)})", advice)
        else:
            yield Check(name, "ok", version(package))


def _missing(name: str) -> Check:
    if name in _MORE:
        return Check(name, "ok", f"not installed; only for {_MORE[name]}")
    if name in _TUNE:
        return Check(name, "look", "not installed", "needed for tuning: pip install 'fastencode-neuro[tune]'")
    return Check(name, "wrong", "not installed", "pip install fastencode-neuro")


def _imported(name: str) -> ModuleType | BaseException:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        return error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _module(modules: Modules, name: str) -> Any:
    """A library, or None where it is missing or broken."""
    found = modules.get(name)
    return found if isinstance(found, ModuleType) else None


def _torchaudio(modules: Modules) -> Iterator[Check]:
    """transformers imports torchaudio where it is installed, whose usual build needs CUDA; a CPU build of torch brings none."""
    try:
        found = version("torchaudio")
    except PackageNotFoundError:
        yield Check("torchaudio", "ok", "not installed, and not needed")
        return
    torch = _module(modules, "torch")
    mend = "pip uninstall torchaudio (nothing here needs it), or install its build for this torch, from where torch came from"
    if isinstance(error := _imported("torchaudio"), BaseException):
        kind = "a build without CUDA" if torch is not None and torch.version.cuda is None else "installed"
        beside = f" beside torch {torch.__version__}, {kind}," if torch is not None else ""
        yield Check(
            "torchaudio", "wrong", f"{found}{beside} cannot be imported ({_reason(error)}): transformers fails on it", mend
        )
    elif torch is not None and found.split("+")[0].split(".")[:2] != torch.__version__.split("+")[0].split(".")[:2]:
        yield Check("torchaudio", "look", f"{found} beside torch {torch.__version__}: made for another version of torch", mend)
    else:
        yield Check("torchaudio", "ok", found)


def _devices(modules: Modules) -> Iterator[Check]:
    torch, card = _module(modules, "torch"), Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    if torch is None:
        yield Check("devices", "look", "torch cannot be asked", "see torch above")
    elif torch.version.cuda is None:
        advice = "this machine has an NVIDIA driver: install a CUDA build of torch to use its card" if card else ""
        yield Check("devices", "look" if card else "ok", "the CPU: torch is a build without CUDA", advice)
    elif not torch.cuda.is_available():
        advice = "nvidia-smi must list a card, and CUDA_VISIBLE_DEVICES must not hide it" if card else ""
        yield Check("devices", "look" if card else "ok", f"the CPU: torch for CUDA {torch.version.cuda} sees no device", advice)
    else:
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            short = "bfloat16" if torch.cuda.get_device_capability(index) >= (8, 0) else "no bfloat16 of its own: keep float32"
            said = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, {short}"
            full = free < total / 2
            advice = "others use this card: nvidia-smi lists them" if full else ""
            yield Check(f"cuda:{index}", "look" if full else "ok", said, advice)


def _blas(modules: Modules) -> Iterator[Check]:
    control = _module(modules, "threadpoolctl")
    if control is None:
        yield Check("BLAS", "look", "threadpoolctl cannot be asked", "see threadpoolctl above")
        return
    pools = control.threadpool_info()
    for pool in pools:
        where = pool.get("architecture")
        said = f"{pool['internal_api']} {pool.get('version') or ''}".strip() + (f" for {where}" if where else "")
        yield Check(pool["user_api"], "ok", f"{said}, {pool['num_threads']} threads, {pool['filepath']}")
    kinds = {pool["prefix"] for pool in pools if pool["user_api"] == "openmp"}
    if {"libomp", "libiomp"} <= kinds:
        advice = "a known cause of hangs: install numpy and torch from the same source"
        yield Check("openmp", "look", "libomp and libiomp are both loaded", advice)


def _threads() -> Iterator[Check]:
    from fastencode.limits import available_processors

    mine, set_ = available_processors(), {name: os.environ[name] for name in _THREADS if name in os.environ}
    said = f"{mine} of {os.cpu_count()} processors" + "".join(f", {name}={value}" for name, value in set_.items())
    many = [name for name, value in set_.items() if value.strip().isdigit() and int(value) > mine]
    advice = f"{many[0]} is more than there are: threads wait for each other; unset it" if many else ""
    yield Check("threads", "look" if many else "ok", said, advice)


def _memory() -> Iterator[Check]:
    from fastencode.limits import available_memory

    free = available_memory()
    if free is None:
        yield Check("memory", "ok", "not known")
        return
    little = free < _LEAST_MEMORY
    advice = "tuning a base model takes about 4 GB: free some, or lower --batch" if little else ""
    yield Check("memory", "look" if little else "ok", f"{free / 1e9:.1f} GB free for this process", advice)


def _kernels() -> Iterator[Check]:
    from fastencode import kernels

    lost = {}
    for op in (name for name, found in kernels.OPS.items() if found.cost is not None):
        try:
            reason = kernels.lost(op)
        except ImportError as error:
            yield Check("kernels", "wrong", str(error), "see what it says")
            return
        if reason is not None:
            lost[op] = reason
    if lost:
        advice = "install again where a C++ compiler is present (FASTENCODE_REQUIRE_EXT=1 says what fails)"
        yield Check("kernels", "look", "; ".join(dict.fromkeys(lost.values())), advice)
    else:
        yield Check("kernels", "ok", f"compiled, {'with' if kernels.has_tiles() else 'without'} matrix tiles")


def _caches() -> Iterator[Check]:
    """Folders that libraries keep things in between processes."""
    home, env = Path.home(), os.environ
    cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    hub = env.get("HF_HUB_CACHE") or Path(env.get("HF_HOME") or cache / "huggingface") / "hub"
    own = [env["NUMBA_CACHE_DIR"]] if env.get("NUMBA_CACHE_DIR") else [_kernel_folder(), cache / "numba"]
    config = env.get("MPLCONFIGDIR") or Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib"
    yield _cache("Numba's cache", own, "each process compiles its kernels anew, a second each: set NUMBA_CACHE_DIR")
    yield _cache("Hugging Face's cache", [hub], "models cannot be fetched by name: set HF_HOME to a folder with room")
    yield _cache("matplotlib's folder", [config], "each process looks for fonts anew: set MPLCONFIGDIR")


def _kernel_folder() -> Path:
    from fastencode import kernels

    return Path(kernels.__path__[0]) / "__pycache__"


def _cache(name: str, folders: list[Any], otherwise: str) -> Check:
    """Whether one of the folders can be written."""
    why = ""
    for folder in map(Path, folders):
        why = _unwritable(folder)
        if not why:
            return Check(name, "ok", f"{folder} can be written")
    return Check(name, "look", f"{folders[-1]} cannot be written ({why})", otherwise)


def _unwritable(folder: Path) -> str:
    """Why nothing can be written in a folder, or in the nearest above it that exists; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=_above(folder)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _above(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _disk(out: Path) -> Iterator[Check]:
    for name, folder in (("disk for runs", out), ("disk for temporary files", Path(tempfile.gettempdir()))):
        free, why = shutil.disk_usage(_above(folder)).free, _unwritable(folder)
        said = f"{free / 1e9:.1f} GB free in {_above(folder).absolute()}"
        if why:
            yield Check(name, "wrong", f"{folder} cannot be written ({why})", "choose another folder")
        elif free < _FEW:
            yield Check(name, "wrong", said, "free some, or choose another disk")
        elif free < _LITTLE and folder == out:
            advice = "a base model is 0.4 GB at each kept epoch and 1.1 GB as a state to go on from; --cache-gb bounds the cache"
            yield Check(name, "look", said, advice)
        else:
            yield Check(name, "ok", said)
