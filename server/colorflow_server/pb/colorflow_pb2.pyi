import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_UINT16: _ClassVar[DataType]

class Style(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STYLE_UNSPECIFIED: _ClassVar[Style]
    STYLE_GRAY: _ClassVar[Style]
    STYLE_SCREENTONE: _ClassVar[Style]
    STYLE_LINEART: _ClassVar[Style]

class Fit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIT_UNSPECIFIED: _ClassVar[Fit]
    FIT_PAD: _ClassVar[Fit]
    FIT_CROP: _ClassVar[Fit]

class Luminance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LUMINANCE_UNSPECIFIED: _ClassVar[Luminance]
    LUMINANCE_PAGE: _ClassVar[Luminance]
    LUMINANCE_LINES: _ClassVar[Luminance]
    LUMINANCE_MODEL: _ClassVar[Luminance]

class Context(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTEXT_UNSPECIFIED: _ClassVar[Context]
    CONTEXT_PAGE: _ClassVar[Context]
    CONTEXT_BLEND: _ClassVar[Context]

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_ARRAY: _ClassVar[ImageFormat]

class ReferenceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFERENCE_STATE_UNSPECIFIED: _ClassVar[ReferenceState]
    REFERENCE_STATE_NORMAL: _ClassVar[ReferenceState]
    REFERENCE_STATE_PINNED: _ClassVar[ReferenceState]
    REFERENCE_STATE_BANNED: _ClassVar[ReferenceState]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_UINT16: DataType
STYLE_UNSPECIFIED: Style
STYLE_GRAY: Style
STYLE_SCREENTONE: Style
STYLE_LINEART: Style
FIT_UNSPECIFIED: Fit
FIT_PAD: Fit
FIT_CROP: Fit
LUMINANCE_UNSPECIFIED: Luminance
LUMINANCE_PAGE: Luminance
LUMINANCE_LINES: Luminance
LUMINANCE_MODEL: Luminance
CONTEXT_UNSPECIFIED: Context
CONTEXT_PAGE: Context
CONTEXT_BLEND: Context
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_ARRAY: ImageFormat
REFERENCE_STATE_UNSPECIFIED: ReferenceState
REFERENCE_STATE_NORMAL: ReferenceState
REFERENCE_STATE_PINNED: ReferenceState
REFERENCE_STATE_BANNED: ReferenceState

class Array(_message.Message):
    __slots__ = ("shape", "data_type", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data_type: DataType
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data_type: _Optional[_Union[DataType, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("name", "encoded", "array")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    name: str
    encoded: bytes
    array: Array
    def __init__(self, name: _Optional[str] = ..., encoded: _Optional[bytes] = ..., array: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class Size(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ColorizeOptions(_message.Message):
    __slots__ = ("steps", "guidance_scale", "seed", "style", "fit", "luminance", "saturation", "context", "chroma_layer", "pinned", "banned", "preview_every", "size", "guidance_steps", "decode_margin", "guider_steps")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STYLE_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    LUMINANCE_FIELD_NUMBER: _ClassVar[int]
    SATURATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CHROMA_LAYER_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    BANNED_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MARGIN_FIELD_NUMBER: _ClassVar[int]
    GUIDER_STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: int
    guidance_scale: float
    seed: int
    style: Style
    fit: Fit
    luminance: Luminance
    saturation: float
    context: Context
    chroma_layer: bool
    pinned: _containers.RepeatedScalarFieldContainer[str]
    banned: _containers.RepeatedScalarFieldContainer[str]
    preview_every: int
    size: Size
    guidance_steps: int
    decode_margin: int
    guider_steps: int
    def __init__(self, steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., seed: _Optional[int] = ..., style: _Optional[_Union[Style, str]] = ..., fit: _Optional[_Union[Fit, str]] = ..., luminance: _Optional[_Union[Luminance, str]] = ..., saturation: _Optional[float] = ..., context: _Optional[_Union[Context, str]] = ..., chroma_layer: _Optional[bool] = ..., pinned: _Optional[_Iterable[str]] = ..., banned: _Optional[_Iterable[str]] = ..., preview_every: _Optional[int] = ..., size: _Optional[_Union[Size, _Mapping]] = ..., guidance_steps: _Optional[int] = ..., decode_margin: _Optional[int] = ..., guider_steps: _Optional[int] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("format", "model_image", "canvas")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_IMAGE_FIELD_NUMBER: _ClassVar[int]
    CANVAS_FIELD_NUMBER: _ClassVar[int]
    format: ImageFormat
    model_image: bool
    canvas: bool
    def __init__(self, format: _Optional[_Union[ImageFormat, str]] = ..., model_image: _Optional[bool] = ..., canvas: _Optional[bool] = ...) -> None: ...

class InlineReferences(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class ColorizeRequest(_message.Message):
    __slots__ = ("pack", "page", "reference_set", "inline_references", "options", "output", "priority")
    PACK_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SET_FIELD_NUMBER: _ClassVar[int]
    INLINE_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    pack: str
    page: Image
    reference_set: str
    inline_references: InlineReferences
    options: ColorizeOptions
    output: Output
    priority: int
    def __init__(self, pack: _Optional[str] = ..., page: _Optional[_Union[Image, _Mapping]] = ..., reference_set: _Optional[str] = ..., inline_references: _Optional[_Union[InlineReferences, _Mapping]] = ..., options: _Optional[_Union[ColorizeOptions, _Mapping]] = ..., output: _Optional[_Union[Output, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("row", "column", "quadrant", "rank", "reference", "patch", "similarity", "window")
    ROW_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    QUADRANT_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    row: int
    column: int
    quadrant: int
    rank: int
    reference: str
    patch: int
    similarity: float
    window: int
    def __init__(self, row: _Optional[int] = ..., column: _Optional[int] = ..., quadrant: _Optional[int] = ..., rank: _Optional[int] = ..., reference: _Optional[str] = ..., patch: _Optional[int] = ..., similarity: _Optional[float] = ..., window: _Optional[int] = ...) -> None: ...

class PageResult(_message.Message):
    __slots__ = ("image", "chroma", "model_image", "canvas", "matches", "seconds", "queue_seconds", "style", "passed_through")
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CHROMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_IMAGE_FIELD_NUMBER: _ClassVar[int]
    CANVAS_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STYLE_FIELD_NUMBER: _ClassVar[int]
    PASSED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    image: Image
    chroma: Image
    model_image: Image
    canvas: Image
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    seconds: _containers.ScalarMap[str, float]
    queue_seconds: float
    style: str
    passed_through: bool
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., chroma: _Optional[_Union[Image, _Mapping]] = ..., model_image: _Optional[_Union[Image, _Mapping]] = ..., canvas: _Optional[_Union[Image, _Mapping]] = ..., matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ..., seconds: _Optional[_Mapping[str, float]] = ..., queue_seconds: _Optional[float] = ..., style: _Optional[str] = ..., passed_through: _Optional[bool] = ...) -> None: ...

class ColorizeResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: PageResult
    def __init__(self, result: _Optional[_Union[PageResult, _Mapping]] = ...) -> None: ...

class SequenceStart(_message.Message):
    __slots__ = ("pack", "reference_set", "options", "output", "priority")
    PACK_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SET_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    pack: str
    reference_set: str
    options: ColorizeOptions
    output: Output
    priority: int
    def __init__(self, pack: _Optional[str] = ..., reference_set: _Optional[str] = ..., options: _Optional[_Union[ColorizeOptions, _Mapping]] = ..., output: _Optional[_Union[Output, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class SequencePage(_message.Message):
    __slots__ = ("id", "image", "options", "timeout")
    ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    image: Image
    options: ColorizeOptions
    timeout: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., options: _Optional[_Union[ColorizeOptions, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CancelPage(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ColorizeSequenceRequest(_message.Message):
    __slots__ = ("start", "reference", "page", "cancel")
    START_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    start: SequenceStart
    reference: Image
    page: SequencePage
    cancel: CancelPage
    def __init__(self, start: _Optional[_Union[SequenceStart, _Mapping]] = ..., reference: _Optional[_Union[Image, _Mapping]] = ..., page: _Optional[_Union[SequencePage, _Mapping]] = ..., cancel: _Optional[_Union[CancelPage, _Mapping]] = ...) -> None: ...

class PageAccepted(_message.Message):
    __slots__ = ("position", "estimated_wait_seconds")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    position: int
    estimated_wait_seconds: float
    def __init__(self, position: _Optional[int] = ..., estimated_wait_seconds: _Optional[float] = ...) -> None: ...

class PageRetrieval(_message.Message):
    __slots__ = ("matches",)
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    def __init__(self, matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ...) -> None: ...

class PagePreview(_message.Message):
    __slots__ = ("step", "steps", "image")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    image: Image
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class PageError(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class ColorizeSequenceResponse(_message.Message):
    __slots__ = ("page_id", "accepted", "retrieval", "preview", "result", "error")
    PAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    page_id: str
    accepted: PageAccepted
    retrieval: PageRetrieval
    preview: PagePreview
    result: PageResult
    error: PageError
    def __init__(self, page_id: _Optional[str] = ..., accepted: _Optional[_Union[PageAccepted, _Mapping]] = ..., retrieval: _Optional[_Union[PageRetrieval, _Mapping]] = ..., preview: _Optional[_Union[PagePreview, _Mapping]] = ..., result: _Optional[_Union[PageResult, _Mapping]] = ..., error: _Optional[_Union[PageError, _Mapping]] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("id", "sha256", "name", "tag", "size", "added", "approved", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    sha256: str
    name: str
    tag: str
    size: Size
    added: str
    approved: bool
    state: ReferenceState
    def __init__(self, id: _Optional[int] = ..., sha256: _Optional[str] = ..., name: _Optional[str] = ..., tag: _Optional[str] = ..., size: _Optional[_Union[Size, _Mapping]] = ..., added: _Optional[str] = ..., approved: _Optional[bool] = ..., state: _Optional[_Union[ReferenceState, str]] = ...) -> None: ...

class CreateReferenceSetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CreateReferenceSetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AddTarget(_message.Message):
    __slots__ = ("set", "tag", "approved", "create")
    SET_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    set: str
    tag: str
    approved: bool
    create: bool
    def __init__(self, set: _Optional[str] = ..., tag: _Optional[str] = ..., approved: _Optional[bool] = ..., create: _Optional[bool] = ...) -> None: ...

class AddReferencesRequest(_message.Message):
    __slots__ = ("target", "image")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    target: AddTarget
    image: Image
    def __init__(self, target: _Optional[_Union[AddTarget, _Mapping]] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class AddReferencesResponse(_message.Message):
    __slots__ = ("added", "duplicates", "refused")
    class Refusal(_message.Message):
        __slots__ = ("name", "reason")
        NAME_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        name: str
        reason: str
        def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
    ADDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    added: _containers.RepeatedCompositeFieldContainer[Reference]
    duplicates: _containers.RepeatedCompositeFieldContainer[Reference]
    refused: _containers.RepeatedCompositeFieldContainer[AddReferencesResponse.Refusal]
    def __init__(self, added: _Optional[_Iterable[_Union[Reference, _Mapping]]] = ..., duplicates: _Optional[_Iterable[_Union[Reference, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[AddReferencesResponse.Refusal, _Mapping]]] = ...) -> None: ...

class ListReferenceSetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReferenceSetsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ListReferencesRequest(_message.Message):
    __slots__ = ("set",)
    SET_FIELD_NUMBER: _ClassVar[int]
    set: str
    def __init__(self, set: _Optional[str] = ...) -> None: ...

class ListReferencesResponse(_message.Message):
    __slots__ = ("references",)
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    references: _containers.RepeatedCompositeFieldContainer[Reference]
    def __init__(self, references: _Optional[_Iterable[_Union[Reference, _Mapping]]] = ...) -> None: ...

class GetReferenceRequest(_message.Message):
    __slots__ = ("set", "id")
    SET_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    set: str
    id: int
    def __init__(self, set: _Optional[str] = ..., id: _Optional[int] = ...) -> None: ...

class GetReferenceResponse(_message.Message):
    __slots__ = ("reference", "image")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    reference: Reference
    image: Image
    def __init__(self, reference: _Optional[_Union[Reference, _Mapping]] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class RemoveReferencesRequest(_message.Message):
    __slots__ = ("set", "ids")
    SET_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    set: str
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, set: _Optional[str] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RemoveReferencesResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: int
    def __init__(self, removed: _Optional[int] = ...) -> None: ...

class SearchReferencesRequest(_message.Message):
    __slots__ = ("set", "page", "pack", "count")
    SET_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    set: str
    page: Image
    pack: str
    count: int
    def __init__(self, set: _Optional[str] = ..., page: _Optional[_Union[Image, _Mapping]] = ..., pack: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class SearchReferencesResponse(_message.Message):
    __slots__ = ("hits",)
    class Hit(_message.Message):
        __slots__ = ("quadrant", "rank", "reference", "patch", "similarity")
        QUADRANT_FIELD_NUMBER: _ClassVar[int]
        RANK_FIELD_NUMBER: _ClassVar[int]
        REFERENCE_FIELD_NUMBER: _ClassVar[int]
        PATCH_FIELD_NUMBER: _ClassVar[int]
        SIMILARITY_FIELD_NUMBER: _ClassVar[int]
        quadrant: int
        rank: int
        reference: Reference
        patch: int
        similarity: float
        def __init__(self, quadrant: _Optional[int] = ..., rank: _Optional[int] = ..., reference: _Optional[_Union[Reference, _Mapping]] = ..., patch: _Optional[int] = ..., similarity: _Optional[float] = ...) -> None: ...
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[SearchReferencesResponse.Hit]
    def __init__(self, hits: _Optional[_Iterable[_Union[SearchReferencesResponse.Hit, _Mapping]]] = ...) -> None: ...

class DeleteReferenceSetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteReferenceSetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Pack(_message.Message):
    __slots__ = ("name", "version", "license", "description", "styles", "sizes", "multiple", "steps", "guidance_scale", "toml", "reloads", "reload_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    TOML_FIELD_NUMBER: _ClassVar[int]
    RELOADS_FIELD_NUMBER: _ClassVar[int]
    RELOAD_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    license: str
    description: str
    styles: _containers.RepeatedScalarFieldContainer[Style]
    sizes: _containers.RepeatedCompositeFieldContainer[Size]
    multiple: int
    steps: int
    guidance_scale: float
    toml: str
    reloads: int
    reload_error: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., license: _Optional[str] = ..., description: _Optional[str] = ..., styles: _Optional[_Iterable[_Union[Style, str]]] = ..., sizes: _Optional[_Iterable[_Union[Size, _Mapping]]] = ..., multiple: _Optional[int] = ..., steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., toml: _Optional[str] = ..., reloads: _Optional[int] = ..., reload_error: _Optional[str] = ...) -> None: ...

class ListPacksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPacksResponse(_message.Message):
    __slots__ = ("packs",)
    PACKS_FIELD_NUMBER: _ClassVar[int]
    packs: _containers.RepeatedCompositeFieldContainer[Pack]
    def __init__(self, packs: _Optional[_Iterable[_Union[Pack, _Mapping]]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerLimits(_message.Message):
    __slots__ = ("max_message_bytes", "max_pixels", "min_side", "max_queue", "max_pages_in_flight", "max_inline_references")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_INLINE_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_pixels: int
    min_side: int
    max_queue: int
    max_pages_in_flight: int
    max_inline_references: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_pixels: _Optional[int] = ..., min_side: _Optional[int] = ..., max_queue: _Optional[int] = ..., max_pages_in_flight: _Optional[int] = ..., max_inline_references: _Optional[int] = ...) -> None: ...

class ServerLoad(_message.Message):
    __slots__ = ("waiting", "running", "slots", "slots_used")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    waiting: int
    running: int
    slots: int
    slots_used: int
    def __init__(self, waiting: _Optional[int] = ..., running: _Optional[int] = ..., slots: _Optional[int] = ..., slots_used: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "backend", "packs", "limits", "load", "uptime_seconds", "draining")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PACKS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    version: str
    backend: str
    packs: _containers.RepeatedCompositeFieldContainer[Pack]
    limits: ServerLimits
    load: ServerLoad
    uptime_seconds: float
    draining: bool
    def __init__(self, version: _Optional[str] = ..., backend: _Optional[str] = ..., packs: _Optional[_Iterable[_Union[Pack, _Mapping]]] = ..., limits: _Optional[_Union[ServerLimits, _Mapping]] = ..., load: _Optional[_Union[ServerLoad, _Mapping]] = ..., uptime_seconds: _Optional[float] = ..., draining: _Optional[bool] = ...) -> None: ...
