"""A checkpoint to the hub: weights, card, plan and figures, and nothing before its licence has been named."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from prunelab.checkpoint.card import REPOSITORY
from prunelab.checkpoint.license import Licence, front_matter, licence_beside, licence_in
from prunelab.checkpoint.save import PLAN_FILE
from prunelab.errors import CheckpointError, InvalidRequest, MissingRequirement, OutputExists, first_line
from prunelab.io.markup import markdown, markdown_paragraph
from prunelab.io.reading import read_text
from prunelab.io.structured import read_json_object
from prunelab.models.tensor_files import TensorFiles
from prunelab.pruning.plan import PruningPlan

if TYPE_CHECKING:
    from prunelab.studies.comparison import Difference
    from prunelab.studies.run import Run
    from prunelab.studies.store import Measurement

_HTTPError = HfHubHTTPError.__bases__[0]
"""What the hub's client raises where no answer comes; its package is called httpx or httpx2, by the version."""
_NOT_SENT = (".*", "*/.*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.gguf", "README.md")
"""Hidden files (`.env`, `.git/`), pickles and other programs' formats, as the hub's client matches them."""
RESULTS_FILE = "results.json"
_REPLACED = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Weights that a repository may have from before; left beside others they could be the ones that are loaded."""


@dataclass(frozen=True)
class HubUpload:
    """What is to be sent.

    Attributes:
        folder: the checkpoint.
        to: the repository, `user/name`.
        base: the base model's id on the hub, or its name where it has none.
        licence: the base model's.
        card: the text of the repository's README.md.
        results: the measurements of the pruned model, for `results.json`; none if empty.
        files: all that is sent, with sizes in bytes.
    """

    folder: Path
    to: str
    base: str
    licence: Licence
    card: str
    results: Sequence[Measurement]
    files: Sequence[tuple[str, int]]

    @property
    def demand(self) -> str:
        """What a restrictive licence asks the user to do first; empty for a free one."""
        if not self.licence.is_restrictive:
            return ""
        return (
            f"{self.base} came under {self.licence.title}, which sets conditions for passing on what is made from it "
            "(names, notices, uses): read them first"
        )


def prepare_upload(
    folder: Path,
    to: str,
    *,
    run: Run | None = None,
    base: str | None = None,
    licence: str | None = None,
    api: Any = None,
) -> HubUpload:
    """Put together what is to be sent; nothing is sent.

    Args:
        folder: a checkpoint that prunelab wrote.
        to: the repository, `user/name`.
        run: a study that measured this cut; its figures and intervals go into the card.
        base: the base model's id on the hub, where the plan only has a folder's name.
        licence: the licence's identifier on the hub, where neither the checkpoint nor the base says it.
        api: of the hub.

    Raises:
        InvalidRequest: `to` or `base` is no repository's name, or the run did not measure this cut.
        CheckpointError: the folder is no checkpoint of prunelab's, or lacks a part of it.
        MissingRequirement: nobody knows the licence.
    """
    _check_name(to, "user/name")
    if base is not None:
        _check_name(base, "ORG/NAME, as the base model is called on the hub")
    plan_file, card_file = folder / PLAN_FILE, folder / "README.md"
    if not plan_file.is_file() or not card_file.is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} is no checkpoint that prunelab wrote: give the folder of `prunelab prune --out`"
        )
    _check_complete(folder)
    _check_links(folder)
    plan = PruningPlan.load(plan_file)
    named = base or plan.base.name
    found = Licence(licence.strip().lower()) if licence else licence_beside(folder) or _licence_of_base(named, api)
    if found is None:
        raise MissingRequirement(
            f"the licence of {named} is not known here, and what is made from a model keeps it: give --license, as the "
            "base's model card names it (and --base-model ORG/NAME where the plan only knows a folder)"
        )
    measured, differences = _of_this_cut(run, plan, folder) if run is not None else ([], [])
    card = _card(read_text(card_file, error=CheckpointError, remedy="prune again"), to, named, found, differences)
    files = [
        (str(path.relative_to(folder)), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_left_out(path.relative_to(folder).as_posix())
    ]
    files.append(("README.md", len(card.encode())))
    if measured:
        files.append((RESULTS_FILE, len(_results(measured))))
    return HubUpload(folder, to, named, found, card, measured, files)


def upload(parcel: HubUpload, *, private: bool = False, overwrite: bool = False, api: Any = None) -> str:
    """Send a parcel; returns the repository's address.

    Args:
        parcel: what to send.
        private: make a repository that others do not see.
        overwrite: replace the weights, the card and the figures in a repository that exists; its other files stay.
        api: of the hub.

    Raises:
        MissingRequirement: no token, or no hub.
        OutputExists: the name is taken and `overwrite` is false.
        InvalidRequest: the hub refused, with its words and the remedy.
    """
    if get_token() is None:
        raise MissingRequirement("the hub wants to know who you are: run `hf auth login`, or set HF_TOKEN")
    api = api or HfApi()
    try:
        if api.repo_exists(parcel.to) and not overwrite:
            raise OutputExists(f"{parcel.to} exists on the hub: choose another name, or give --overwrite")
        address = api.create_repo(parcel.to, private=private, exist_ok=overwrite)
        with tempfile.TemporaryDirectory() as made:
            (Path(made) / "README.md").write_text(parcel.card, encoding="utf-8")
            if parcel.results:
                (Path(made) / RESULTS_FILE).write_bytes(_results(parcel.results))
            api.upload_folder(
                repo_id=parcel.to, folder_path=str(parcel.folder), ignore_patterns=list(_NOT_SENT),
                delete_patterns=list(_REPLACED), commit_message="Weights, tokenizer and pruning plan",
            )  # fmt: skip
            api.upload_folder(
                repo_id=parcel.to,
                folder_path=made,
                delete_patterns=[RESULTS_FILE],
                commit_message="Model card and results",
            )
    except HfHubHTTPError as error:
        raise _explained(parcel.to, error) from error
    except (_HTTPError, ConnectionError) as error:
        raise MissingRequirement(
            f"the hub cannot be reached ({first_line(error)}): run the same command where there is internet, with "
            "HF_HUB_OFFLINE unset"
        ) from error
    return str(address)


def _is_left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _NOT_SENT)


def _check_name(name: str, form: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InvalidRequest(f"{name!r} is no repository's name ({first_line(error)}): give {form}") from None
    if not REPOSITORY.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no repository's name: give {form}")


def _check_complete(folder: Path) -> None:
    """All weights must be there, and the modelling file where the config names one."""
    TensorFiles.open(folder)
    classes = read_json_object(folder / "config.json", error=CheckpointError, remedy="prune again").get("auto_map")
    own = (
        name
        for name in (classes if isinstance(classes, dict) else {}).values()
        if isinstance(name, str) and "--" not in name
    )  # not another repository's
    files = dict.fromkeys(f"{name.partition('.')[0]}.py" for name in own)
    lost = [name for name in files if not (folder / name).is_file()]
    if lost:
        raise CheckpointError(
            f"{folder} lacks {', '.join(lost)}, which its config.json names and nothing loads it without: prune again"
        )


def _check_links(folder: Path) -> None:
    """Refuse links: what they lead to is not the checkpoint's, and would be sent."""
    link = next((path for path in sorted(folder.rglob("*")) if path.is_symlink()), None)
    if link is not None:
        raise CheckpointError(f"{link} is a link, and what it leads to is not sent: remove it, or put the file there")


def _explained(to: str, error: HfHubHTTPError) -> InvalidRequest:
    status, owner = getattr(error.response, "status_code", None), to.partition("/")[0]
    remedies = {
        401: "the token is not valid (any more): run `hf auth login`",
        403: f"the token may not write to {owner}: take a token with write access, or your own name",
        409: "the name is taken: choose another, or give --overwrite",
    }
    return InvalidRequest(f"the hub refused {to} ({first_line(error)}): {remedies.get(status or 0, 'try again later')}")


def _licence_of_base(base: str, api: Any) -> Licence | None:
    """What the base's folder or its card on the hub says; None where neither is to be had."""
    if Path(base).is_dir():
        return licence_beside(Path(base))
    if not REPOSITORY.fullmatch(base):
        return None
    try:
        card = (api or HfApi()).model_info(base).card_data
    except (_HTTPError, OSError):
        return None
    return licence_in(dict(card.to_dict())) if card is not None else None


def _of_this_cut(run: Run, plan: PruningPlan, folder: Path) -> tuple[list[Measurement], list[Difference]]:
    measured = [m for m in run.measurements if m.plan == plan.fingerprint]
    if not measured:
        raise InvalidRequest(f"{run.folder} did not measure the cut in {folder}: give the run of this plan, or none")
    return measured, [d for d in run.differences if d.measurement.plan == plan.fingerprint]


def _results(measured: Sequence[Measurement]) -> bytes:
    return (json.dumps([m.row() for m in measured], indent=1) + "\n").encode()


INTENDED = """\
## Intended use

Research on pruning, and uses for which this very checkpoint was evaluated. It was not trained after the cut: it is less
able than {base}, unevenly so, and nothing that was measured of {base}'s safety or fairness holds for it unmeasured.
"""


def _card(text: str, to: str, base: str, licence: Licence, differences: Sequence[Difference]) -> str:
    """The checkpoint's own card under its new name, with licence, base, measured losses and intended use."""
    fields, body = front_matter(text)
    fields = {**fields, **licence.fields()}
    fields.pop("base_model", None)
    if REPOSITORY.fullmatch(base):
        fields = {"base_model": base, **fields}
    body = body.replace('"PATH"', json.dumps(to)).replace(" PATH", f" {to}").rstrip("\n")
    shown = markdown(base)
    parts = [
        body,
        _losses(differences),
        INTENDED.format(base=shown),
        f"Licence: {markdown(licence.title)}, as {shown}'s.\n",
    ]
    head = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n" + "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _losses(differences: Sequence[Difference]) -> str:
    if not differences:
        return ""
    lines = [
        "## What was lost",
        "",
        "Against the whole model on the same samples, 95 % intervals, Holm's adjustment:",
        "",
    ]
    return "\n".join([*lines, *(f"- {markdown_paragraph(difference.sentence())}" for difference in differences)])
