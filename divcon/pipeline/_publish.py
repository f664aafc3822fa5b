"""Publishing an adapter of a run: to a folder, or to a repository of a hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from divcon.distill import CARD, is_trained, read_manifest, write_whole
from divcon.distill._paths import expanded_path
from divcon.pipeline._cards import card_of, results_of
from divcon.signatures import DivconError, learn_variable, masked

# What is published besides the files that decide the adapter, which its manifest names, and nothing else.
_BESIDE = ("adapter_config.json", "adapter_model.safetensors", "manifest.json", "probe.json")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_OF_A_PATH = (".", "/", "~", "$")


class PublishError(DivconError):
    """An adapter can't be published: there is none, the target can't be used, or it holds what has to stay here."""


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        where: The folder, or the address of the repository.
        files: The names of the files.
        content_hash: Of the adapter, as in its manifest.
    """

    where: str
    files: tuple[str, ...]
    content_hash: str


def publish(folder: Path, student: str, target: str, *, public: bool = False) -> Published:
    """Copy the adapter of a student, with its model card, to a folder or to a repository of a Hugging Face hub.

    The hub is the one that `HF_ENDPOINT` names, and the key is `HF_TOKEN`'s or that of `hf auth login`.

    Args:
        folder: The run folder.
        student: The student's name, such as `sd-r`.
        target: A folder, which is there or begins with `.`, `/`, `~` or `$`; or a repository as `owner/name`.
        public: Whether a new repository can be read by everyone.

    Raises:
        PublishError: See there.
        ManifestError: The adapter was changed since its training.
    """
    learn_variable("HF_TOKEN")
    adapter = _adapter(folder, student)
    into_folder = target.startswith(_OF_A_PATH) or Path(target).is_dir()
    if not into_folder and not _HUB_NAME.fullmatch(target):
        raise PublishError(
            f"'{target}' is neither a folder nor a repository.", "Write ./folder, or owner/name of a repository."
        )
    with tempfile.TemporaryDirectory(prefix="divcon-push-") as made:
        staged = Path(made)
        manifest = read_manifest(adapter)
        for name in {*_BESIDE, *manifest.files}:
            if (adapter / name).is_file():
                shutil.copyfile(adapter / name, staged / name)
        write_whole(staged / CARD, card_of(manifest, student, results_of(folder)))
        _require_nothing_private(staged, folder)
        files = tuple(sorted(file.name for file in staged.iterdir()))
        where = _into_folder(staged, target) if into_folder else _to_hub(staged, target, manifest.served_name, public)
    return Published(where, files, manifest.content_hash)


def _adapter(folder: Path, student: str) -> Path:
    adapters = folder / "adapters"
    trained = sorted(one.name for one in adapters.glob("*") if is_trained(one))
    if student not in trained:
        raise PublishError(
            f"{folder} has no trained student '{student}'.",
            f"Take {' or '.join(trained)}." if trained else "Run 'divcon train', or give the folder of another run.",
        )
    return adapters / student


def _require_nothing_private(staged: Path, run: Path) -> None:
    """Refuse files that hold a known secret, or a path of this machine."""
    here = sorted({str(path) for path in (Path.home(), run.resolve(), Path.cwd())} - {"/"})
    for file in sorted(staged.iterdir()):
        if file.suffix == ".safetensors":
            continue
        text = file.read_text(encoding="utf-8")
        if masked(text) != text:
            raise PublishError(f"{file.name} holds a secret of this machine.", "Remove it from the training questions.")
        found = next((path for path in here if f"{path}/" in text), None)
        if found is not None:
            raise PublishError(
                f"{file.name} holds a path of this machine, under {found}.",
                "Name bases by their hub names, keep paths out of questions, and train again.",
            )


def _into_folder(staged: Path, target: str) -> str:
    folder = expanded_path(target)
    if folder.is_file():
        raise PublishError(f"{folder} is a file.", "Give a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        if not is_trained(folder):
            raise PublishError(f"{folder} holds other files than an adapter's.", "Give a new folder.")
        for name in read_manifest(folder).files:
            (folder / name).unlink()  # of the adapter that was pushed there before
    shutil.copytree(staged, folder, dirs_exist_ok=True)
    return str(folder)


def _to_hub(staged: Path, target: str, name: str, public: bool) -> str:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    except ImportError as error:
        raise PublishError("Pushing needs the package huggingface-hub.", "pip install 'divcon[hub]'.") from error
    import httpx

    hub = HfApi(library_name="divcon")
    try:
        repository = hub.create_repo(target, private=not public, exist_ok=True)
        hub.upload_folder(repo_id=target, folder_path=staged, commit_message=f"Push {name}")
    except OfflineModeIsEnabled as error:
        raise PublishError("HF_HUB_OFFLINE is set, so no hub is reached.", "Set HF_HUB_OFFLINE=0.") from error
    except HFValidationError as error:
        raise PublishError(f"'{target}' is no name of a repository: {error}.", "Write owner/name.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = (
            "Run 'hf auth login', or set HF_TOKEN to a key that may write there."
            if status in (401, 403)
            else "Push again; nothing here has changed."
        )
        raise PublishError(f"The hub refused {target} with status {status}: {error}.", remedy) from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise PublishError(f"{target} can't be pushed to: {error}.", "Push again; nothing here has changed.") from error
    return str(repository)
