"""Models that travel: save, load and share through the Hugging Face hub, with a card that says what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download

from raptor.models.io import DESCRIPTION, WEIGHTS, read, save

PAPER = "https://arxiv.org/abs/2512.19941"
CARD = Path(__file__).with_name("model_card.md.j2")


class HubModel(
    ModelHubMixin,
    library_name="raptor",
    tags=["raptor", "vision-transformer", "block-recurrent"],
    pipeline_tag="image-feature-extraction",
    paper_url=PAPER,
):
    """Gives a model ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    What travels is the model folder of :mod:`raptor.models.io` (safetensors and JSON) and a ``README.md``.

    Attributes
    ----------
    kind
        Name of the class in ``model.json``, by which :func:`raptor.load` finds it.
    about
        Plain data on what made the model, with the figures of its run; kept in ``model.json`` and on the card.
    """

    kind: ClassVar[str] = ""
    about: dict[str, Any]
    # not None: model.json rebuilds the model, so that the mixin need not guess a config from constructor arguments
    _hub_mixin_config: dict[str, Any] = {}  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a model of this class from a folder, or by its name on the hub.

        Parameters
        ----------
        pretrained_model_name_or_path
            Folder, or ``owner/name``.
        **kwargs
            Of huggingface_hub: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

        Raises
        ------
        ModelFileError
            If it holds another kind of model, or no whole one.
        """
        if Path(pretrained_model_name_or_path).is_dir():
            return cls._load(Path(pretrained_model_name_or_path))
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> Self:
        known = ("revision", "token", "cache_dir", "force_download", "local_files_only")
        download = {key: value for key, value in kwargs.items() if key in known}
        return cls._load(Path(snapshot_download(model_id, allow_patterns=[WEIGHTS, DESCRIPTION], **download)))

    @classmethod
    def _load(cls, folder: Path) -> Self:
        model: Self = read(folder, cls)
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        save(self, save_directory, about=getattr(self, "about", None))  # type: ignore[arg-type]

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Write the ``README.md``: what the model is, how to load it, what its run measured."""
        about = getattr(self, "about", {})
        info = self._hub_mixin_info.model_card_data
        card: ModelCard = ModelCard.from_template(
            card_data=ModelCardData(**info.to_dict()),
            template_path=str(CARD),
            kind=type(self).__name__,
            config=self.to_config(),  # type: ignore[attr-defined]
            parameters=sum(p.numel() for p in self.parameters()),  # type: ignore[attr-defined]
            about=about,
            metrics=dict(sorted((about.get("metrics") or {}).items())),
            paper=PAPER,
            **kwargs,
        )
        return card
