"""Where a result was made: code, libraries, machine. No host names, no paths."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "numpy",
    "pycocotools",
    "hotcoco",
    "wandb",
    "pillow",
    "scikit-learn",
    "scipy",
    "safetensors",
)
SUITE = "spinenet-reproduction"


def environment() -> dict[str, Any]:
    """Commit and whether the tree differs from it, a hash of the sources that decide a training,
    versions, processor, cores, memory, GPU.
    """
    import torch

    from experiments.code_version import code_digest

    has_gpu = torch.cuda.is_available()
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "code": code_digest(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(),
        "gpu": gpu_name(),
        "cuda": torch.version.cuda if has_gpu else None,
        "cudnn": torch.backends.cudnn.version() if has_gpu else None,
        "packages": {name: found for name in (SUITE, *PACKAGES) if (found := _version(name))},
    }


def gpu_name() -> str | None:
    """The GPU that runs would take, if there is one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def trained_on(facts: Mapping[str, Any]) -> str:
    """What a recorded environment trained on: the GPU's name, or the processor's."""
    device = facts.get("gpu") if facts.get("accelerator") == "gpu" else facts.get("processor")
    return str(device or "unknown")


def memory_gib() -> float:
    """The machine's memory in GiB, to a tenth."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _version(name: str) -> str:
    """Empty for what is run from a folder without being installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def usable_cores() -> int:
    """Cores that this process may run on; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(*arguments: str) -> str:
    """What git says of the checkout this package is in; empty for an installed package."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def processor() -> str:
    """The processor's name, by which speeds measured here are told from others."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
