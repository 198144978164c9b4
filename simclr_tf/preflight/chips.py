"""The TPUs that the compiler knows, and their published figures."""

from __future__ import annotations

import dataclasses
import math
import re

from simclr_tf.errors import RequestError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPUs, described per device; a device runs one replica.

    Attributes:
      devices_per_chip: 2 if each core is a device (v2, v3); in later ones a chip's cores are one.
      hbm_bytes: memory of a device.
      peak_flops: bfloat16 floating-point operations per second of a device.
      clock_hz: cycles per second.
    """

    devices_per_chip: int
    hbm_bytes: int
    peak_flops: float
    clock_hz: float


# Memory and peak of a chip: https://cloud.google.com/tpu/docs/v2, and likewise to v6e. Clocks of v2
# and v3: Jouppi et al., "A domain-specific supercomputer for training deep neural networks", CACM
# 63(7), 2020; of v4: Jouppi et al., https://arxiv.org/abs/2304.01433. Those of v5e, v5p and v6e are
# not published: they follow from the peak with 4, 8 and 4 matrix units, of 128 x 128 and in v6e of
# 256 x 256 cells. (Google's page on v6e says 2 units in most copies and 4 in some; with 2 its clock
# would be twice as fast as any other's.)
CHIPS = {
    "v2": Chip(2, 8 * GIB, 45e12 / 2, 0.70e9),
    "v3": Chip(2, 16 * GIB, 123e12 / 2, 0.94e9),
    "v4": Chip(1, 32 * GIB, 275e12, 1.05e9),
    "v5e": Chip(1, 16 * GIB, 197e12, 1.50e9),
    "v5p": Chip(1, 95 * GIB, 459e12, 1.75e9),
    "v6e": Chip(1, 32 * GIB, 918e12, 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a TPU.

    Attributes:
      name: in the compiler's format, such as `v3:8x8`.
      chip: its generation.
      num_devices: number of devices, and so of replicas.
    """

    name: str
    chip: Chip
    num_devices: int


def parse_topology(name: str) -> Topology:
    """Reads `v3:8x8`: generation, and chips along each axis.

    Raises:
      RequestError: its generation or shape is unknown.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if not match or match[1] not in CHIPS:
        raise RequestError(
            f"A topology must be GENERATION:CHIPS, with a generation of {', '.join(CHIPS)}, such "
            f"as v3:8x8, v4:4x4x4 or v5e:4x4. Received: {name!r}."
        )
    chip = CHIPS[match[1]]
    chips = math.prod(map(int, match[2].split("x")))
    return Topology(name, chip, chips * chip.devices_per_chip)
