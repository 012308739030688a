"""`edge-ad train`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.choosing import choose, foreign_faults, is_auto
from edge_ad.cli.family_options import FamilyCommand, named_option
from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on, shown
from edge_ad.errors import ConfigError, MissingExtraError
from edge_ad.models import DEFAULT_FAMILY
from edge_ad.validation import read_yaml

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge_ad.models.progress import Progress
    from edge_ad.training_run import BestEpoch, RunRecord


def teaches(teacher: object, kind: type[Any]) -> bool:
    """Whether `--teacher` names the run of a teacher: a folder, or anything for a family without such an option."""
    from edge_ad.models.family import option_names

    return teacher is not None and (Path(str(teacher)).is_dir() or "teacher" not in option_names(kind))


def student_kind(args: Sequence[str]) -> tuple[type[Any], bool]:
    """Options of a student, and whether arguments ask for one: `--teacher` with a folder."""
    from edge_ad.models.distillation.options import StudentTrainOptions

    teacher = named_option(args, "--teacher")
    return StudentTrainOptions, teacher is not None and Path(teacher).is_dir()


@click.command(
    name="train",
    short_help="Train a detector on good pictures.",
    cls=FamilyCommand,
    kind=lambda family: family.train_options,
    other=student_kind,
)
@click.argument("data", required=False)
@text_option("-o", "--output", metavar="RUN", help="Folder of the run to write.")
@text_option(
    "--family", metavar="NAME", help=f"Model family (default: {DEFAULT_FAMILY}); its options are listed with --help."
)
@text_option("--minutes", metavar="N", help="For --preset auto: time for trying and training (default: 10).")
@text_option("--budget-ms", metavar="X", help="For --preset auto: longest time of a frame on this machine.")
@text_option(
    "--choose-by",
    metavar="WHAT",
    help="For --preset auto: drawn (default; defects drawn on held-out good pictures) or labels (test pictures).",
)
@text_option("--take", metavar="NAME", help="For --preset auto: the configuration of that name, without a trial.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run; give the same options.")
@click.option("--force", is_flag=True, help="Replace an earlier run.")
@click.option(
    "-c", "--config", "config", metavar="FILE", help="YAML file with any of these options; the command line wins."
)
def command(config: str | None, resume: bool, force: bool, **given: Any) -> None:
    """Train on the good pictures of DATA: a folder in the layout of MVTec AD, VisA or DAGM, or of good pictures.

    Told nothing else, it tries a few configurations on the pictures and takes the best (--preset auto).

    Writes a run: a checkpoint, logs, pictures of what was synthesised. Then 'edge-ad export RUN -o BUNDLE' needs no
    other option, and 'edge-ad eval RUN DATA' says how good it is.

    With --teacher RUN a small backbone learns the features of that run's, whose head is kept; the options of that are
    listed by 'edge-ad train --teacher RUN --help'.
    """
    where = f"train options ({config})" if config else "train options"
    values = _by_name(read_yaml(Path(config)), where) if config else {}
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        with terminal_progress() as progress:
            record = _trained(values, where, progress, resume=resume, force=force)
    except ImportError as exc:
        raise MissingExtraError("edge-ad train", exc.name or "torch", "train") from exc
    run = Path(str(values["output"]))
    if record.best is not None:
        click.echo(summary(record.best), err=True)
    click.echo(f"next: edge-ad export {run} -o {run.name}.edgead", err=True)
    click.echo(str(run / str(record.checkpoint)))


def _trained(values: dict[str, Any], where: str, progress: Progress, *, resume: bool, force: bool) -> RunRecord:
    """Train a family, that of the configuration that is chosen, or a student of a run's."""
    from edge_ad.models import model_family

    facts: dict[str, Any] = {}
    if is_auto(values):
        choice = choose(values, where, progress, resume=resume, force=force)
        values, facts = {"family": choice.family, **choice.values}, choice.facts
    elif faults := foreign_faults(values):
        raise ConfigError(where, faults)
    named = values.pop("family", None)
    family = model_family(str(named or DEFAULT_FAMILY))
    if teaches(values.get("teacher"), family.train_options):
        return _taught(values, named, where, progress, resume=resume, force=force)
    _refuse_foreign(values, f"family {family.name!r}", family.train_options, where)
    return family.train(values, where, progress, resume=resume, force=force, known=facts)


def _taught(
    values: dict[str, Any], named: object, where: str, progress: Progress, *, resume: bool, force: bool
) -> RunRecord:
    from edge_ad.models.distillation.options import StudentTrainOptions
    from edge_ad.models.distillation.train import train_student
    from edge_ad.training_run import read_run

    run = Path(str(values["teacher"]))
    record = read_run(run)
    if named not in (None, record.family):
        raise ConfigError(where, [f"family: the teacher {run} is a run of {record.family!r}, got {named!r}; leave it"
                                  " out"])  # fmt: skip
    _refuse_foreign(values, "a student", StudentTrainOptions, where)
    return train_student(values, where, progress, resume=resume, force=force)


def _refuse_foreign(values: Mapping[str, Any], whose: str, kind: type[Any], where: str) -> None:
    """Raise ConfigError for options that families have and `kind` has not."""
    from edge_ad.models import FAMILIES, model_family
    from edge_ad.models.family import option_names

    own = option_names(kind)
    faults = []
    for key in values:
        owners = [name for name in FAMILIES if key in option_names(model_family(name).train_options)]
        if key not in own and owners:
            faults.append(f"{key}: {whose} has no such option; it is one of {', '.join(owners)}")
    if faults:
        raise ConfigError(where, faults)


def _by_name(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Values of a file under the names of the options. Raises: ConfigError for one that is given in two spellings."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name in named:
            raise ConfigError(where, [f"{name}: given twice, as {name} and {name.replace('_', '-')}"])
        named[name] = value
    return named


def summary(best: BestEpoch) -> str:
    """Which epoch was kept, why, and its figures, on one line."""
    found = {"loss": best.loss, "image AUROC": best.image_auroc, "pixel AUROC": best.pixel_auroc}
    figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items() if value is not None)
    kept = f"kept epoch {best.epoch} ({best.rule})"
    return f"{kept}: {figures}" if figures else kept


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Lines and a bar on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from edge_ad.models.progress import Progress

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    tasks: list[TaskID] = []
    with Bar(*columns, TextColumn("{task.description}", markup=False), console=console_on(sys.stderr)) as bar:

        def say(line: str) -> None:
            bar.console.print(shown(line))

        def begin(title: str, total: int) -> None:
            for task in tasks:
                bar.remove_task(task)
            tasks[:] = [bar.add_task(title, total=total)]

        def step(text: str) -> None:
            if text:
                bar.update(tasks[0], advance=1, description=text)
            else:
                bar.advance(tasks[0])

        yield Progress(say, begin, step)
