"""Several processes at one piece of work, as torchrun starts them: which share is whose, and what they agree on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

Made = TypeVar("Made")


class ShardError(ValueError):
    """A group of processes that cannot work together, told in one sentence."""


@dataclass(frozen=True)
class Shard:
    """Which part of the work is this process's: part `rank` and every `world`-th after it.

    `local` is its number among those on its machine: which GPU it takes.   Raises ShardError for numbers that do not fit.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.local < 0:
            raise ShardError(f"expected a rank from 0 to {self.world - 1}, got rank {self.rank} of {self.world}; start with torchrun")

    @classmethod
    def from_environment(cls) -> "Shard":
        """What torchrun tells its processes (RANK, WORLD_SIZE, LOCAL_RANK); without it the one process has everything."""
        names = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK"}
        given = {field_: os.environ[name] for field_, name in names.items() if name in os.environ}
        try:
            return cls(**{field_: int(text) for field_, text in given.items()})
        except ValueError as error:
            values = ", ".join(f"{names[field_]}={text}" for field_, text in given.items())
            raise ShardError(f"expected the numbers torchrun sets, got {values}: start with torchrun, or unset them") from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """The processes can hear of each other inside: gloo, for a few words at the beginning and at the end, over TCP.

        A rank may wait days for the slowest one.   Raises ShardError where torchrun has not said how they find each other.
        """
        if self.world == 1:
            yield
            return
        if "MASTER_ADDR" not in os.environ:
            raise ShardError(f"rank {self.rank} of {self.world} does not know where the others are: start all of them with torchrun")
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=30), rank=self.rank, world_size=self.world)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()

    def agreed(self, make: Callable[[], Made]) -> Made:
        """What the first process makes, for all of them; its refusal is everybody's."""
        if self.world == 1:
            return make()
        made: list = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except ValueError as error:
                made[1] = ShardError(str(error))
        torch.distributed.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise made[1]
        return made[0]
