"""What decides a search, so that it can be stopped, brought back, and done again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError, did_you_mean, first_problem
from experiments.store import write_atomically
from spinenet.genotype import GenotypeError
from spinenet.search.controllers import Controller, RandomSearch, RegularisedEvolution
from spinenet.search.space import Space, space

ControllerName = Literal["policy", "evolution", "random"]
Mode = Literal["synchronous", "asynchronous"]
Reward = Literal["AP", "top1"]
LARGEST_SEED = 2**32 - 1  # that Lightning takes
FILE = "search.json"
PROXY_RUN = "proxy_run"  # in it, beside the settings


@dataclass(frozen=True)
class SearchConfig:
    """One search. `samples` networks are tried by a controller with this `seed`, each trained by
    `recipe` in `profile` with `run_seed`; the reward is a metric on validation, in percent.

    A synchronous controller learns of candidate n when it is asked for n + `lag`, whoever is
    faster, so that the outcome does not depend on timing; more than `lag` candidates are never
    under way. An asynchronous one learns of each as it ends, and no worker waits. A network of more
    than `macs_m` multiply-adds (1e6, as trained) is no sample: another is drawn in its place.
    """

    space: str = "spinenet"
    controller: ControllerName = "policy"
    samples: int = 100
    seed: int = 0
    lag: int = 4
    macs_m: float | None = None
    recipe: str = "proxy"
    profile: str = "proxy"
    reward: Reward = "AP"
    run_seed: int = 0
    mode: Mode = "synchronous"

    def __post_init__(self) -> None:
        if self.controller not in get_args(ControllerName):
            known = get_args(ControllerName)
            raise UserError(
                f"controller {self.controller!r} is unknown; {did_you_mean(self.controller, known)}"
            )
        for name in ("samples", "lag"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("seed", "run_seed"):
            if not 0 <= getattr(self, name) <= LARGEST_SEED:
                raise UserError(
                    f"{name} {getattr(self, name)} must be at least 0 and at most {LARGEST_SEED}"
                )
        if self.macs_m is not None and not 0 < self.macs_m < math.inf:
            raise UserError(
                f"macs_m {self.macs_m} must be positive and finite; leave it out for no limit"
            )

    def searched_space(self) -> Space:
        """The space by its name. Raises UserError for an unknown one."""
        try:
            return space(self.space)
        except GenotypeError as error:
            raise UserError(str(error)) from None

    def make_controller(self) -> Controller:
        """A controller that has been told nothing yet."""
        return controllers()[self.controller](self.searched_space(), self.seed)


def controllers() -> dict[str, Callable[[Space, int], Controller]]:
    """What makes a controller of a space from a seed, by name."""
    from spinenet.search.policy import PolicyGradient  # with torch

    return {
        "policy": lambda where, seed: PolicyGradient(where, seed=seed),
        "evolution": lambda where, seed: RegularisedEvolution(where, seed=seed),
        "random": lambda where, seed: RandomSearch(where, seed=seed),
    }


def keep_settings(folder: Path, config: SearchConfig, proxy_run: str = "") -> None:
    """Write a search's settings into its folder, or check that they are those of before; only the
    number of samples may have grown. `proxy_run` is the run that the proxy is without a genotype of
    the search.

    Raises UserError that names the setting which differs.
    """
    path = folder / FILE
    if path.is_file():
        refuse_other_proxy(folder, proxy_run)
        before = read_config(folder)
        for name, value in asdict(config).items():
            if name != "samples" and getattr(before, name) != value:
                raise UserError(
                    f"{path}: {name} is {getattr(before, name)!r}, not {value!r}; go on with the "
                    "same settings, or give the search another name"
                )
        if config.samples < before.samples:
            raise UserError(
                f"{path}: samples is {before.samples}, and {config.samples} is fewer; give at "
                "least as many, or give the search another name"
            )
    write_atomically(path, json.dumps({PROXY_RUN: proxy_run, **asdict(config)}, indent=1))


def refuse_other_proxy(folder: Path, proxy_run: str) -> None:
    """Raise UserError where a search was begun by a recipe or profile that has changed since: all
    of its samples would be other runs.
    """
    before = _read(folder).get(PROXY_RUN)
    if before and proxy_run and before != proxy_run:
        raise UserError(
            f"{folder / FILE}: {PROXY_RUN} is {before}, not {proxy_run}: the proxy's recipe or "
            "profile has changed since, so its samples are other runs; restore it, or give the "
            "search another name"
        )


def read_config(folder: Path) -> SearchConfig:
    """The settings in a search's folder. Raises UserError where there is none, and for one that is
    not as it should be.
    """
    settings = {name: value for name, value in _read(folder).items() if name != PROXY_RUN}
    known = [field.name for field in fields(SearchConfig)]
    for name in settings:
        if name not in known:
            raise _unreadable(folder, f"unknown key {name!r}; {did_you_mean(name, known)}")
    try:
        return TypeAdapter(SearchConfig).validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        raise _unreadable(folder, ": ".join(filter(None, first_problem(error)))) from None


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        path = folder / FILE
        raise UserError(f"{path}: no such search; `spinenet search` starts one") from None
    except (OSError, ValueError) as error:
        raise _unreadable(folder, f"cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _unreadable(folder, "is no mapping")
    return found


def _unreadable(folder: Path, why: str) -> UserError:
    return UserError(f"{folder / FILE}: {why}; mend it, or give the search another name")
