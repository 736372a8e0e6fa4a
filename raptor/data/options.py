"""Options of data, of random transforms, and of the sources of activations."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raptor.utils.options import Choice, Invalid, keys, option, options

if TYPE_CHECKING:
    from raptor.data.module import ImageData
    from raptor.data.sources import ActivationSource


class DataNode(Choice):
    """A data set: ``data=digits|image_folder|...``, or a user's own by ``_target_``."""

    @abstractmethod
    def build(self, **changes: Any) -> ImageData:
        """Build the data set, with some keys changed."""


class AugmentNode(Choice):
    """A random transform of training images, or a user's own by ``_target_``."""

    @abstractmethod
    def build(self) -> Any:
        """Return the transform, or a partial function that makes one for a ``size``."""


class SourceNode(Choice):
    """A source of the teacher's layers: ``activations=online|cached``."""

    @abstractmethod
    def build(self) -> ActivationSource:
        """Build the source."""


@options
class CropAndFlipOptions(AugmentNode):
    """Random resized crop and horizontal flip, with colour jitter where set."""

    identity_name: ClassVar[str] = "crop_and_flip"

    scale: list[float] = option(
        "Least and greatest share of the image's area", default=[0.08, 1.0], min_length=2, max_length=2
    )
    ratio: list[float] = option(
        "Least and greatest width over height", default=[3 / 4, 4 / 3], min_length=2, max_length=2
    )
    interpolation: Literal["bicubic", "bilinear"] = option("Interpolation of the image", default="bicubic")
    jitter: list[float] | None = option("Brightness, contrast, saturation, hue; null for none", default=None)

    def __post_init__(self) -> None:
        for key in ("scale", "ratio"):
            least, greatest = getattr(self, key)
            if not 0 < least <= greatest:
                raise Invalid(key, [least, greatest], "two numbers > 0, the least first", "correct them")
        if self.jitter is not None and (len(self.jitter) != 4 or min(self.jitter) < 0):
            raise Invalid("jitter", self.jitter, "four numbers >= 0, or null", "correct them")

    def build(self) -> Any:
        """Return a partial function of :func:`raptor.data.transforms.crop_and_flip`."""
        from raptor.data.transforms import crop_and_flip

        return partial(
            crop_and_flip, scale=self.scale, ratio=self.ratio, interpolation=self.interpolation, jitter=self.jitter
        )


@options
class ImageDataOptions(DataNode):
    """What all data sets share."""

    batch_size: int = option("Images of a training step over all processes", default=64, unit="images", ge=1)
    eval_batch_size: int = option("Images of a validation step and process", default=256, unit="images", ge=1)
    num_workers: int = option("Processes that load images; 0 loads in the main one", default=0, ge=0, identity=False)
    augment: AugmentNode | None = option("Random transform of training images; null for none", default=None)
    on_error: Literal["raise", "skip"] = option("Files that cannot be used: raise, or skip and count", default="raise")
    pixels: str | None = option("A pixel cache of raptor.extract; null reads the images", default=None, identity=False)

    def __post_init__(self) -> None:
        if self.augment is not None and self.pixels is not None:
            expected = "null with data.augment: a cache holds images that are cropped already"
            raise Invalid("pixels", self.pixels, expected, "set data.pixels=null or data.augment=null")

    @abstractmethod
    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""

    def build(self, **changes: Any) -> ImageData:
        """Build the data set, with some keys changed."""
        values = {key.name: getattr(self, key.name) for key in keys(type(self))} | changes
        if self.augment is not None:
            values["augment"] = self.augment.build()
        return self.kind()(**values)


@options
class DigitsOptions(ImageDataOptions):
    """Handwritten digits of scikit-learn, 8x8 grey."""

    identity_name: ClassVar[str] = "digits"

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.digits import Digits

        return Digits


@options
class DownloadedOptions(ImageDataOptions):
    """A data set that torchvision can download."""

    root: str | None = option("Folder with the publisher's files; null downloads them", default=None)
    download: str = option("Where downloads go", default="data", identity=False)


@options
class FashionMNISTOptions(DownloadedOptions):
    """Fashion-MNIST, 28x28 grey."""

    identity_name: ClassVar[str] = "fashion_mnist"

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.fashion_mnist import FashionMNIST

        return FashionMNIST


@options
class CIFAR10Options(DownloadedOptions):
    """CIFAR-10, 32x32 colour."""

    identity_name: ClassVar[str] = "cifar10"

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.cifar import CIFAR10

        return CIFAR10


@options
class CIFAR100Options(DownloadedOptions):
    """CIFAR-100, 32x32 colour."""

    identity_name: ClassVar[str] = "cifar100"

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.cifar import CIFAR100

        return CIFAR100


@options
class PictureFoldersOptions(ImageDataOptions):
    """Pictures as ROOT/train/CLASS/* and ROOT/val/CLASS/*."""

    identity_name: ClassVar[str] = "image_folder"

    root: str | None = option("Folder that holds train/ and val/; null, with pixels, reads the cache alone")
    crop: float = option("Centre crop", default=0.875, unit="share of the shorter side", ge=0.05, le=1)
    name: str = option("Name in results", default="image_folder", identity=False)

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.image_folder import PictureFolders

        return PictureFolders


@options
class TinyImageNetOptions(PictureFoldersOptions):
    """Tiny-ImageNet in the layout of its archive."""

    identity_name: ClassVar[str] = "tiny_imagenet"

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.tiny_imagenet import TinyImageNet

        return TinyImageNet


@options
class ADE20KOptions(ImageDataOptions):
    """ADE20K: a class for every pixel."""

    identity_name: ClassVar[str] = "ade20k"

    root: str = option("Folder that holds images/ and annotations/")
    name: str = option("Name in results", default="ade20k", identity=False)
    num_classes: int = option("Classes", default=150, ge=1)
    evaluation: Literal["squash", "sliding"] = option(
        "Validation at the model's input, or in windows", default="squash"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluation == "sliding" and self.eval_batch_size != 1:
            expected = "1 with data.evaluation=sliding: pictures have sizes of their own"
            raise Invalid("eval_batch_size", self.eval_batch_size, expected, "set data.eval_batch_size=1")

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.ade20k import ADE20K

        return ADE20K


@options
class NYUv2Options(ImageDataOptions):
    """NYU Depth v2 in the layout of Kaggle."""

    identity_name: ClassVar[str] = "nyuv2"

    root: str = option("Folder that holds data/nyu2_train.csv")
    name: str = option("Name in results", default="nyuv2", identity=False)
    size: list[int] = option(
        "Height and width of the frames", default=[480, 640], unit="pixels", min_length=2, max_length=2
    )

    def kind(self) -> type[ImageData]:
        """Import the class of the data set."""
        from raptor.data.nyuv2 import NYUv2

        return NYUv2


@options
class OnlineOptions(SourceNode):
    """Run the frozen teacher in the training step."""

    identity_name: ClassVar[str] = "online"

    def build(self) -> ActivationSource:
        """Build :class:`raptor.data.sources.Online`."""
        from raptor.data.sources import Online

        return Online()


@options
class CachedOptions(SourceNode):
    """Read the teacher's layers from a store that raptor.extract wrote."""

    identity_name: ClassVar[str] = "cached"

    store: str = option("Folder of the store")

    def build(self) -> ActivationSource:
        """Build :class:`raptor.data.sources.Cached`."""
        from raptor.data.sources import Cached

        return Cached(self.store)
