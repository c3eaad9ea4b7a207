"""Studies, profiles and data sources as users write them: YAML files, names, `--data`.

Every mistake is answered with the file, the key, the value and the nearest thing that exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from datamodules import (
    CocoFolderConfig,
    DataSourceConfig,
    ImageFolderConfig,
    INaturalistBoxesConfig,
    INaturalistConfig,
    LabelsCsvConfig,
)
from experiments.compose import Changes, apply, beside, load_recipe, read_yaml
from experiments.errors import MISSING, UserError, did_you_mean, first_problem
from experiments.protocols import check_protocol
from experiments.recipe import Recipe
from experiments.study import COUNTED, Claim, Metric, PaperValue, Profile, Study, Variant
from spinenet.yaml_text import is_yaml

METRICS: tuple[str, ...] = get_args(Metric)
MEASURED: dict[str, tuple[Metric, ...]] = {
    "retinanet": ("AP",),
    "mask-rcnn": ("AP", "mask/AP"),
    "classifier": ("top1", "top5"),
}
PROFILES = Path(__file__).parent / "profiles"
STUDY_KEYS = {"title", "source", "base", "recipe", "set", "protocol", "metrics", "classes"}
STUDY_KEYS |= {"variants", "claims"}
IN_RECIPES = {"title", "base"}  # of these keys, what recipes have too
TEXTS = ("title", "why", "unpublished")
VARIANT_KEYS = {"from", "times", "paper", "full_size", "protocol", *TEXTS}


def load_study(name_or_path: str, seen: tuple[Path, ...] = ()) -> Study:
    """A study by name or file. Raises UserError that names the file, the key and the way out."""
    path = _study_path(name_or_path)
    if path.resolve() in seen:
        raise UserError(f"{path.name}: base: the study is its own base; name another one")
    seen = (*seen, path.resolve())
    data = read_yaml(path)
    for key in data:
        if key not in STUDY_KEYS:
            raise UserError(f"{path.name}: unknown key {key!r}; {did_you_mean(key, STUDY_KEYS)}")
    base = _base_study(data, path, seen)
    variants = {
        **base.variants,
        **_read_variants(_mapping(data.get("variants"), f"{path.name}: variants"), base, path),
    }
    if not variants:
        raise UserError(f"{path.name}: variants: there is none; give at least one")
    study = Study(
        id=path.stem,
        file=path.name,
        title=_text(data.get("title"), f"{path.name}: title") or _title(base, path),
        source=_text(data.get("source"), f"{path.name}: source") or base.source,
        recipe=_read_recipe(str(data["recipe"]), path) if "recipe" in data else base.recipe,
        changes=(
            *base.changes,
            Changes(
                _mapping(data.get("set"), f"{path.name}: set"), f"{path.name}: set", path.parent
            ),
        ),
        variants=variants,
        claims=_read_claims(data.get("claims"), base, variants, path),
        metrics=_read_metrics(data["metrics"], path) if "metrics" in data else base.metrics,
        classes=_read_classes(data["classes"], path) if "classes" in data else base.classes,
        protocol=check_protocol(data["protocol"], f"{path.name}: protocol")
        if "protocol" in data
        else base.protocol,
    )
    _refuse_unmeasured(study)
    return study


def _refuse_unmeasured(study: Study) -> None:
    """Raise UserError for metrics, of the study or of a claim, that its runs will not have."""
    kind = apply(load_recipe(study.recipe), study.changes)["model"]["kind"]
    for name in study.metrics:
        if name not in MEASURED[kind]:
            raise UserError(
                f"{study.file}: metrics: {name} is not what a {kind} is measured by; give metrics: "
                f"[{', '.join(MEASURED[kind])}]"
            )
    for claim in study.claims:
        if claim.metric not in (*study.metrics, *COUNTED):
            raise UserError(
                f"{study.file}: claims: {claim.id!r}: metric: {claim.metric} is not among the "
                f"study's metrics; give metric: {study.metrics[0]}, or name it under metrics"
            )


def is_study(name: str) -> bool:
    """Whether a name or file is that of a study rather than of a recipe. Raises UserError for a
    file that cannot be read.
    """
    seen: list[str] = []
    while is_yaml(name) and name not in seen:
        seen.append(name)
        data = read_yaml(Path(name))
        if set(data) & (STUDY_KEYS - IN_RECIPES):
            return True
        name = beside(Path(name), str(data.get("base", "")))
    return name in shipped_studies()


def load_profile(name: str, seen: tuple[Path, ...] = ()) -> Profile:
    """A profile that comes with the package, or a YAML file, whose bases are not among those
    `seen`.
    """
    path = Path(name) if is_yaml(name) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no profile {name!r}; {did_you_mean(name, shipped_profiles())}")
    if path.resolve() in seen:
        raise UserError(f"{path.name}: it is its own base; name another profile")
    data = read_yaml(path)
    base = Profile(path.stem, "")
    if "base" in data:
        try:
            base = load_profile(beside(path, str(data.pop("base"))), (*seen, path.resolve()))
        except (UserError, OSError) as error:  # a name may be longer than any file's
            raise UserError(f"{path.name}: base: {getattr(error, 'strerror', error)}") from None
    title, seeds, full_size, is_evidence = (
        data.pop(key, getattr(base, key)) for key in ("title", "seeds", "full_size", "is_evidence")
    )
    title = _text(title, f"{path.name}: title")
    if not _is_count(seeds):
        raise UserError(f"{path.name}: seeds: {seeds!r} must be a number of at least 1")
    for key, value in (("full_size", full_size), ("is_evidence", is_evidence)):
        if not isinstance(value, bool):
            raise UserError(f"{path.name}: {key}: {value!r} must be true or false")
    origin = f"profile {path.stem}"
    by_model = dict(base.by_model)
    for kind, body in _mapping(data.pop("by_model", None), f"{path.name}: by_model").items():
        own = Changes(_mapping(body, f"{path.name}: by_model.{kind}"), origin, path.parent)
        by_model[kind] = (*by_model.get(kind, ()), own)
    changes = Changes(data, origin, path.parent)
    return Profile(
        path.stem, title, (*base.changes, changes), seeds, by_model, full_size, is_evidence
    )


SOURCES = {
    "coco": CocoFolderConfig,
    "folder": ImageFolderConfig,
    "imagefolder": ImageFolderConfig,
    "csv": LabelsCsvConfig,
    "inaturalist": INaturalistConfig,
    "inaturalist-bbox": INaturalistBoxesConfig,
}


def parse_source(text: str | None) -> DataSourceConfig | None:
    """`--data KIND:FOLDER` as a source; None stays None. Raises UserError for another form."""
    if text is None:
        return None
    kind, _, root = text.partition(":")
    if kind not in SOURCES or not root:
        forms = ", ".join(f"{k}:FOLDER" for k in SOURCES)
        raise UserError(f"--data {text}: expected one of {forms}")
    return SOURCES[kind](root=root)


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(
        p.name.removesuffix(".yaml")
        for p in files("ablations").iterdir()
        if p.name.endswith(".yaml")
    )


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def _study_path(name: str) -> Path:
    if is_yaml(name):
        return Path(name)
    path = Path(str(files("ablations"))) / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"no study {name!r}; {did_you_mean(name, shipped_studies())}; or give a .yaml file"
        )
    return path


def _base_study(data: Mapping[str, Any], path: Path, seen: tuple[Path, ...]) -> Study:
    if "base" not in data:
        if "recipe" not in data:
            raise UserError(f"{path.name}: give recipe: NAME, or base: STUDY to extend a study")
        return Study(id="", title="", recipe="", variants={})
    name = str(data["base"])
    if is_yaml(name):
        return load_study(beside(path, name), seen)
    try:
        return load_study(name, seen)
    except UserError as error:
        raise UserError(f"{path.name}: base: {error}") from None


def _title(base: Study, path: Path) -> str:
    """What a study without a title is called, which is not its base's."""
    return f"{path.name}, on {base.title}" if base.title else path.stem


def _read_recipe(name: str, path: Path) -> str:
    """The recipe that a study names, once it is known to be one."""
    try:
        load_recipe(beside(path, name))
    except (UserError, OSError) as error:  # a name may be longer than any file's
        raise UserError(f"{path.name}: recipe: {getattr(error, 'strerror', error)}") from None
    return beside(path, name)


def _read_metrics(names: Any, path: Path) -> tuple[Metric, ...]:
    known = [m for m in METRICS if m not in COUNTED]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path.name}: metrics: {names!r} must be a list of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise UserError(
                f"{path.name}: metrics: unknown metric {name!r}; {did_you_mean(str(name), known)}"
            )
    return tuple(names)


def _read_classes(count: Any, path: Path) -> int:
    if not _is_count(count):
        raise UserError(f"{path.name}: classes: {count!r} must be a number of outputs, such as 91")
    return count


def _read_variants(data: Mapping[str, Any], base: Study, path: Path) -> dict[str, Variant]:
    """The file's own variants in its order, each read after the one that it starts at."""
    bodies = {name: _mapping(body, f"{path.name}: variants.{name}") for name, body in data.items()}
    found: dict[str, Variant] = {}
    for name in _starts_first(bodies, base, path):
        start = _start_of(bodies[name])
        first = {**base.variants, **found}[start] if start else Variant(id="")
        found[name] = _read_variant(name, bodies[name], first, path)
    return {name: found[name] for name in bodies}


def _starts_first(
    bodies: Mapping[str, Mapping[str, Any]], base: Study, path: Path
) -> dict[str, None]:
    """The variants' names, each after the one that it starts at. Raises UserError for a start that
    does not exist, and for variants that start at each other.
    """
    ordered: dict[str, None] = {}
    for name in bodies:
        chain = [name]
        while (start := _start_of(bodies[chain[-1]])) in bodies and start not in ordered:
            if start == chain[-1] and start in base.variants:
                break  # the base's variant of this name, changed
            if start in chain:
                circle = " → ".join([*chain[chain.index(start) :], start])
                raise UserError(
                    f"{path.name}: variants.{start}.from: these start at each other: {circle}; "
                    "let one start elsewhere"
                )
            chain.append(start)
        known = {**base.variants, **bodies}
        if start and start not in known:
            raise UserError(
                f"{path.name}: variants.{chain[-1]}.from: unknown variant {start!r}; "
                f"{did_you_mean(start, known)}"
            )
        ordered |= dict.fromkeys(reversed(chain))
    return ordered


def _start_of(body: Mapping[str, Any]) -> str:
    """The name of the variant that this one starts at; empty for the study's base."""
    return str(body["from"]) if "from" in body else ""


def _read_variant(name: str, body: Mapping[str, Any], first: Variant, path: Path) -> Variant:
    """One variant, as a difference from `first`."""
    where = f"{path.name}: variants.{name}"
    _check_variant_keys(body, where)
    own = {key: value for key, value in body.items() if key in VARIANT_KEYS}
    changes = {key: value for key, value in body.items() if key not in VARIANT_KEYS}
    texts = {key: _text(own.get(key), f"{where}.{key}") for key in TEXTS}
    if first.unpublished:
        raise UserError(f"{where}.from: {first.id!r} is an unpublished network; start elsewhere")
    if texts["unpublished"] and (changes or "from" in own):
        raise UserError(
            f"{where}: an unpublished network has no recipe; leave out "
            f"{', '.join(changes) or 'from'}, or 'unpublished'"
        )
    protocol, times, full_size = (f"{where}.{key}" for key in ("protocol", "times", "full_size"))
    larger = Changes(_mapping(own.get("full_size"), full_size), where, path.parent)
    return Variant(
        id=name,
        changes=(*first.changes, Changes(changes, where, path.parent)),
        times={**first.times, **_factors(_mapping(own.get("times"), times), times)},
        paper=_read_paper(own.get("paper"), f"{where}.paper"),
        full_size=(*first.full_size, larger),
        start=_start_of(own),
        protocol=check_protocol(own["protocol"], protocol) if "protocol" in own else first.protocol,
        **texts,
    )


def _check_variant_keys(body: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a key that is neither a variant's own nor begins at a recipe's field."""
    recipes = {f.name for f in fields(Recipe)}
    for key in body:
        first = key.partition(".")[0]
        if key not in VARIANT_KEYS and first not in recipes:
            hint = did_you_mean(first, VARIANT_KEYS | recipes)
            raise UserError(f"{where}: unknown key {key!r}; {hint}")


def _read_paper(data: Any, where: str) -> dict[str, PaperValue]:
    """The printed numbers by metric."""
    found = {}
    for metric, value in _mapping(data, where).items():
        if metric not in METRICS:
            raise UserError(f"{where}: unknown metric {metric!r}; {did_you_mean(metric, METRICS)}")
        if isinstance(value, int | float):
            raise UserError(
                f"{where}.{metric}: {value!r} has no source; say where it is printed, such as "
                f'{{value: {value}, source: "table 2"}}'
            )
        found[metric] = _typed(PaperValue, value, f"{where}.{metric}")
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _text(value: Any, where: str) -> str:
    """What is to be read by people; nothing is an empty one."""
    if value is not None and not isinstance(value, str):
        raise UserError(f'{where}: {value!r} must be text; put it in quotes: "{value}"')
    return value or ""


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping with string keys; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected a mapping of keys to values, found {value!r}")
    return {str(key): inner for key, inner in value.items()}


def _list(value: Any, path: Path) -> list[Any]:
    """The claims; nothing is none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{path.name}: claims: expected a list of claims, found {value!r}")
    return value


def _factors(values: Mapping[str, Any], where: str) -> dict[str, float]:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise UserError(f"{where}.{key}: {value!r} must be a factor above 0, such as 0.65")
    return dict(values)


def _read_claims(
    data: Any, base: Study, variants: Mapping[str, Variant], path: Path
) -> tuple[Claim, ...]:
    """The base's claims and the file's. An id stands for one: by it a claim finds its runs."""
    own = [_read_claim(c, i, variants, path) for i, c in enumerate(_list(data, path))]
    claims = (*base.claims, *own)
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise UserError(f"{path.name}: claims: two have the id {name!r}; give one another id")
    return claims


def _read_claim(data: Any, index: int, variants: Mapping[str, Variant], path: Path) -> Claim:
    claim: Claim = _typed(Claim, data, f"{path.name}: claims[{index}]")
    if claim.a == claim.b:
        raise UserError(
            f"{path.name}: claims[{index}].b: {claim.b!r} is a as well; name the variant that it "
            "is compared with"
        )
    for side in ("a", "b"):
        if getattr(claim, side) not in variants:
            name = getattr(claim, side)
            raise UserError(
                f"{path.name}: claims[{index}].{side}: unknown variant {name!r}; "
                f"{did_you_mean(name, variants)}"
            )
        if variants[getattr(claim, side)].unpublished:
            raise UserError(
                f"{path.name}: claims[{index}].{side}: {getattr(claim, side)!r} is an unpublished "
                "network, so nothing can be judged by it"
            )
    return claim


def _typed(cls: type, data: Any, where: str) -> Any:
    """`data` as the dataclass `cls`, with unknown keys refused."""
    given, known = _mapping(data, where), [f.name for f in fields(cls)]
    for key in given:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {did_you_mean(key, known)}")
    try:
        return TypeAdapter(cls).validate_python(given)
    except ValidationError as error:
        key, told = first_problem(error)
        way_out = "; give one" if told == MISSING else ""
        raise UserError(f"{where}{'.' if key else ''}{key}: {told}{way_out}") from None
