"""What every method returns."""

from dataclasses import dataclass, field

from torch import Tensor

from kit.propose import Proposals
from kit.shapes import check_shape
from kit.vote import Vote


@dataclass(frozen=True)
class Result:
    """One image's way from prompt to mask.

    names: the C classes looked for; prompts: name -> its prompt; scores: name -> probability in [0, 1]; stages in order, each (C, H, W) or,
    once background has a plane, (1 + C, H, W);
    labels int64 (H, W) in 0..C, 0 = background; confidence (H, W) in [0, 1]; seconds: stage -> time; settings: what produced it; notes:
    what a reader should know; votes: stage -> what the masks decided there, and proposals: these masks (where a method has any).
    """

    names: tuple[str, ...]
    prompts: dict[str, str]
    scores: dict[str, float]
    stages: dict[str, Tensor]
    labels: Tensor
    confidence: Tensor
    settings: dict
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    votes: dict[str, Vote] = field(default_factory=dict)
    proposals: Proposals | None = None

    def __post_init__(self) -> None:
        height, width = check_shape(self.labels, "H W", "labels").shape
        check_shape(self.confidence, "H W", "confidence", H=height, W=width)
        for stage, maps in self.stages.items():
            if maps.ndim != 3 or maps.shape[0] not in (len(self.names), 1 + len(self.names)):
                raise ValueError(
                    f"expected stage {stage} to have {len(self.names)} or {1 + len(self.names)} planes, got {tuple(maps.shape)}"
                )
