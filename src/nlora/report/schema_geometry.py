"""What tables and pages read of the geometry of a run's updates, in a row of a ledger."""

from typing import Annotated, Any

from pydantic import Field

from nlora.store.reading import Kind, Measured


class Mean(Kind):
    """A measure of the updates: its mean over matrices, and where there is one their sum."""

    mean: Measured | None
    sum: Measured | None = None


class Sum(Kind):
    """Likewise, the sum."""

    sum: Measured | None


class Pair(Kind):
    """Two updates, and what was measured of both."""

    a: str
    b: str
    oo: Mean | None = None
    awom_input_fro: Mean | None = None
    awom_output_fro: Mean | None = None
    inner_product: Mean | None = None
    cosine: Mean | None = None
    entry_overlap: Mean | None = None
    input_overlap: Mean | None = None
    output_overlap: Mean | None = None


class Meeting(Kind):
    """Where two updates collide."""

    a: str
    b: str
    collision_rate: Mean
    opposing: Measured | None = None


class Rate(Kind):
    """Collisions at one threshold."""

    acr: Measured | None
    pairs: list[Meeting] = Field(default_factory=list)


class Last(Kind):
    """The newest update against all before it."""

    oo: Sum
    awom_input_fro: Sum


class OneAdapter(Kind):
    """One update by itself."""

    name: str | None = None
    frobenius: Mean
    gsr: Mean
    spectral_norm: Mean | None = None
    l1: Mean | None = None
    nuclear_norm: Mean | None = None
    effective_rank: Mean | None = None


class Layer(Kind):
    """One matrix: how much the updates collide in it, and how dense each is."""

    acr: Measured | None
    density: list[Measured]


class Density(Kind):
    """Of one update, in all matrices of a kind."""

    density: Mean


class OfAKind(Kind):
    """All matrices of a kind."""

    acr: Measured | None
    per_adapter: list[Density]


class Steps(Kind):
    """What single stages changed, where one update is continued."""

    pairs: list[Pair] = Field(default_factory=list)
    collisions: list[Rate] = Field(default_factory=list)
    per_adapter: list[OneAdapter] = Field(default_factory=list)


class Geometry(Kind):
    """The geometry of a run's updates, of which tables and pages read this."""

    pairs: list[Pair] = Field(default_factory=list)
    steps: Steps | None = None
    adapters: list[str] = Field(default_factory=list)
    layers: dict[str, Layer] = Field(default_factory=dict)
    kinds: dict[str, OfAKind] = Field(default_factory=dict)
    continues: dict[str, Any]
    collisions: Annotated[list[Rate], Field(min_length=2)]
    per_adapter: Annotated[list[OneAdapter], Field(min_length=1)]
    last: Last | None


class Matrix(Kind):
    """One matrix of a sparse update."""

    frobenius: Measured


class Sparse(Kind):
    """What a stage of sparse updates at chosen positions notes."""

    matrices: dict[str, Matrix]
    collision_rates: list[Measured]
