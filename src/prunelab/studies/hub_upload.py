"""Upload a checkpoint to the hub: weights, card, plan and figures, and only with a known licence."""

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
"""Base class of the hub client's connection errors, from httpx or httpx2 depending on its version."""
_NOT_SENT = (".*", "*/.*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.gguf", "README.md")
"""Hidden files (`.env`, `.git/`), pickles and other programs' formats, as the hub's client matches them."""
RESULTS_FILE = "results.json"
_REPLACED = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Old weights to delete from a repository, which could otherwise be loaded in place of the new ones."""


@dataclass(frozen=True)
class HubUpload:
    """A prepared upload.

    Attributes:
        folder: the checkpoint.
        to: the repository, `user/name`.
        base: hub id of the base model, or its name if it has none.
        licence: licence of the base model.
        card: the text of the repository's README.md.
        results: measurements of the pruned model for `results.json`, which is omitted if empty.
        files: all files to upload, with sizes in bytes.
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
        """What the user must do first under a restrictive licence; empty for a free one."""
        if not self.licence.is_restrictive:
            return ""
        return (
            f"{self.base} is licensed under {self.licence.title}, which sets conditions on sharing derived models "
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
    """Prepare an upload without sending anything.

    Args:
        folder: a checkpoint that prunelab wrote.
        to: the repository, `user/name`.
        run: a study that measured this model; adds its figures and intervals to the card.
        base: hub id of the base model, if the plan only records a folder.
        licence: hub identifier of the licence, if neither the checkpoint nor the base model states it.
        api: client of the hub.

    Raises:
        InvalidRequest: `to` or `base` is not a repository name, or the run did not measure this model.
        CheckpointError: the folder is not a checkpoint written by prunelab, or is incomplete.
        MissingRequirement: the licence is unknown.
    """
    _check_name(to, "user/name")
    if base is not None:
        _check_name(base, "ORG/NAME, the hub id of the base model")
    plan_file, card_file = folder / PLAN_FILE, folder / "README.md"
    if not plan_file.is_file() or not card_file.is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} is not a checkpoint written by prunelab: give the folder of `prunelab prune --out`"
        )
    _check_complete(folder)
    _check_links(folder)
    plan = PruningPlan.load(plan_file)
    base_name = base or plan.base.name
    known_licence = (
        Licence(licence.strip().lower()) if licence else licence_beside(folder) or _licence_of_base(base_name, api)
    )
    if known_licence is None:
        raise MissingRequirement(
            f"the licence of {base_name} is unknown, and the pruned model must keep it: give --license as stated in "
            "the base model's card (and --base-model ORG/NAME if the plan only records a folder)"
        )
    measured, differences = _of_this_cut(run, plan, folder) if run is not None else ([], [])
    card_text = read_text(card_file, error=CheckpointError, remedy="prune again")
    card = _card(card_text, to, base_name, known_licence, differences)
    files = [
        (str(path.relative_to(folder)), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_left_out(path.relative_to(folder).as_posix())
    ]
    files.append(("README.md", len(card.encode())))
    if measured:
        files.append((RESULTS_FILE, len(_results(measured))))
    return HubUpload(folder, to, base_name, known_licence, card, measured, files)


def upload(prepared: HubUpload, *, private: bool = False, overwrite: bool = False, api: Any = None) -> str:
    """Upload a prepared checkpoint and return the repository's address.

    Args:
        prepared: the upload.
        private: create a private repository.
        overwrite: replace the weights, the card and the figures of an existing repository; its other files are kept.
        api: client of the hub.

    Raises:
        MissingRequirement: no token, or the hub is unreachable.
        OutputExists: the repository exists and `overwrite` is false.
        InvalidRequest: the hub refused the upload; with its reason and a remedy.
    """
    if get_token() is None:
        raise MissingRequirement("uploading requires a login to the hub: run `hf auth login`, or set HF_TOKEN")
    api = api or HfApi()
    try:
        if api.repo_exists(prepared.to) and not overwrite:
            raise OutputExists(f"{prepared.to} exists on the hub: choose another name, or give --overwrite")
        address = api.create_repo(prepared.to, private=private, exist_ok=overwrite)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "README.md").write_text(prepared.card, encoding="utf-8")
            if prepared.results:
                (Path(folder) / RESULTS_FILE).write_bytes(_results(prepared.results))
            api.upload_folder(
                repo_id=prepared.to, folder_path=str(prepared.folder), ignore_patterns=list(_NOT_SENT),
                delete_patterns=list(_REPLACED), commit_message="Weights, tokenizer and pruning plan",
            )  # fmt: skip
            api.upload_folder(
                repo_id=prepared.to,
                folder_path=folder,
                delete_patterns=[RESULTS_FILE],
                commit_message="Model card and results",
            )
    except HfHubHTTPError as error:
        raise _explained(prepared.to, error) from error
    except (_HTTPError, ConnectionError) as error:
        raise MissingRequirement(
            f"the hub cannot be reached ({first_line(error)}): run the command on a machine with internet access "
            "and HF_HUB_OFFLINE unset"
        ) from error
    return str(address)


def _is_left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _NOT_SENT)


def _check_name(name: str, form: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InvalidRequest(f"{name!r} is not a repository name ({first_line(error)}): give {form}") from None
    if not REPOSITORY.fullmatch(name):
        raise InvalidRequest(f"{name!r} is not a repository name: give {form}")


def _check_complete(folder: Path) -> None:
    """Require all weights, and the modelling file if the config names one."""
    TensorFiles.open(folder)
    classes = read_json_object(folder / "config.json", error=CheckpointError, remedy="prune again").get("auto_map")
    local_classes = (
        name
        for name in (classes if isinstance(classes, dict) else {}).values()
        if isinstance(name, str) and "--" not in name
    )  # excludes classes of other repositories
    files = dict.fromkeys(f"{name.partition('.')[0]}.py" for name in local_classes)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}, which its config.json needs for loading: prune again"
        )


def _check_links(folder: Path) -> None:
    """Refuse links, because their targets are not part of the checkpoint but would be uploaded."""
    link = next((path for path in sorted(folder.rglob("*")) if path.is_symlink()), None)
    if link is not None:
        raise CheckpointError(f"{link} is a link, which cannot be uploaded: remove it, or replace it with the file")


def _explained(to: str, error: HfHubHTTPError) -> InvalidRequest:
    status, owner = getattr(error.response, "status_code", None), to.partition("/")[0]
    remedies = {
        401: "the token is invalid or expired: run `hf auth login`",
        403: f"the token may not write to {owner}: use a token with write access, or your own user name",
        409: "the repository exists: choose another name, or give --overwrite",
    }
    return InvalidRequest(f"the hub refused {to} ({first_line(error)}): {remedies.get(status or 0, 'try again later')}")


def _licence_of_base(base: str, api: Any) -> Licence | None:
    """The licence stated in the base model's folder or hub card; None if neither is available."""
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
        raise InvalidRequest(
            f"{run.folder} did not measure the model in {folder}: give the run of this plan, or leave out --run"
        )
    return measured, [d for d in run.differences if d.measurement.plan == plan.fingerprint]


def _results(measured: Sequence[Measurement]) -> bytes:
    return (json.dumps([m.row() for m in measured], indent=1) + "\n").encode()


INTENDED = """\
## Intended use

Research on pruning, and uses for which this checkpoint was evaluated. It was not trained after pruning: it is less
capable than {base}, to a degree that varies by task, and safety or fairness results of {base} do not carry over to it.
"""


def _card(text: str, to: str, base: str, licence: Licence, differences: Sequence[Difference]) -> str:
    """The checkpoint's card with the new name, licence, base model, measured losses and intended use."""
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
        "Compared with the dense model on the same samples (95 % intervals, Holm-adjusted):",
        "",
    ]
    return "\n".join([*lines, *(f"- {markdown_paragraph(difference.sentence())}" for difference in differences)])
